"""One file per format an artifact can hold."""
