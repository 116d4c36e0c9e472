"""One file per command of `forgefield data`; a file is found by its name, nothing heavy is imported before it runs."""
