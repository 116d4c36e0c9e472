"""What a run will cost, from carrying out a few steps of it."""
