"""One file per file format; the file's name is the value of `data.format`."""
