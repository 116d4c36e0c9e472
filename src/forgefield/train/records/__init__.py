"""Places where the records of a fit go, one file each; the file's name is the name in `train.loggers`."""
