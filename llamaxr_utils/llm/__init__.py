"""Prompts, base models, fine-tuning and decoding."""
