"""Foreign engines, each behind its own file."""
