"""Atoms as tensors: neighbours, pairs and sums."""
