"""Architectures: one file or folder each."""
