"""From files on disk to batches, and back."""
