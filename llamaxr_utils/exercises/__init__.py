"""What each exercise accepts, its hints and its solution, by notebook."""
