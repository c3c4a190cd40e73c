"""What is minimised, and one update of it."""
