"""Learning rate schedules, one file each; settings are filled from the `train` keys of the same name."""
