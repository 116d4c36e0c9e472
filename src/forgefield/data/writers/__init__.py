"""One file per format that can be written; see data/writer.py."""
