"""Image networks, their scores and what they look at."""
