"""One file per command of the command line; nothing heavy is imported before a command runs."""
