"""Comparing models: the same data, the same budget of time, one table and one page."""
