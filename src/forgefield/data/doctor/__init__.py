"""Looks for what would poison a model: duplicates, leaks, wrong units and signs, outliers, broken structures."""
