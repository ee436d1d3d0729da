"""What serves a notebook while it runs; knows nothing of radiology."""
