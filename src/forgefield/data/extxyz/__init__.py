"""Extended XYZ, read frame by frame."""
