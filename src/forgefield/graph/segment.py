"""Sums of rows by group."""

from __future__ import annotations

from torch import Tensor


def sum_by(values: Tensor, index: Tensor, n: int) -> Tensor:
    """Sum the rows of `values` (R, ...) that share an `index` (R,); returns (n, ...)."""
    out = values.new_zeros((n, *values.shape[1:]))
    return out.index_add(0, index, values)
