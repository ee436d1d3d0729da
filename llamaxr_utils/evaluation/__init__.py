"""Metrics, findings, baselines and cases."""
