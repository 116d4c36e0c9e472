"""Optimizers, one file each; the fields of a plug-in's settings are filled from the `train` keys of the same name."""
