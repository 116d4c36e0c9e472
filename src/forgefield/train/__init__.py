"""Fit a potential to batches: losses, optimizers, schedules, the loop, its checkpoints and its records."""
