"""Files -> structures -> batches."""
