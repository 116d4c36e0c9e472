"""Compiled kernels of the hot sums, as operators of the namespace `forgefield`."""
