"""Loss functions of one quantity, one file each."""
