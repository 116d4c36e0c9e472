"""The keys of the `train` block, by subject."""
