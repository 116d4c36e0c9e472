"""What a run leaves to read: one self-contained page."""
