"""What is asked of a finished run: grounding, audit, designs, report."""
