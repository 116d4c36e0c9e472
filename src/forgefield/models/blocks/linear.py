"""Linear maps of the rows of atoms or pairs: one matrix for all, or one per degree, or one per degree and element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from forgefield.kernels.choice import compiled
from forgefield.kernels.operators import ops
from forgefield.models.blocks.grouped import linear_by_element


def map_rows(x: Tensor, weight: Tensor, scale: float = 1.0, transpose: bool = False) -> Tensor:
    """Multiply rows (R, C) by `scale` times a matrix (C, D), or by the transpose of (D, C)."""
    if in_kernels(x):
        return ops.linear(x, weight, _NO_COUNTS, [1, 1, 0, 0], scale, transpose)
    weight = weight * scale
    return x @ (weight.T if transpose else weight)


def map_degrees(
    x: Tensor, weights: Tensor, degrees: Sequence[int], scale: float = 1.0, transpose: bool = False
) -> Tensor:
    """Multiply each degree's rows by its matrix.

    Args:
        x: (N, sum of 2l+1, C).
        weights: one matrix per degree, (G, C, D), or (G, D, C) with `transpose`.
        degrees: l of each.
        scale: factor of all matrices.
        transpose: use the transposed matrices.

    Returns:
        (N, sum of 2l+1, D).
    """
    if in_kernels(x):
        return ops.linear(x, weights, _NO_COUNTS, _blocks(*[tuple(degrees)] * 3), scale, transpose)
    weights = weights * scale
    weights = weights.transpose(1, 2) if transpose else weights
    parts = x.split([2 * l + 1 for l in degrees], 1)
    found = [_times(part, w) for part, w in zip(parts, weights.unbind(0), strict=True)]
    return torch.cat(found, 1) if len(found) > 1 else found[0]


def map_elements(
    x: Tensor,
    weights: Tensor,
    given: Sequence[int],
    wanted: Sequence[int],
    counts: Tensor,
    scale: float = 1.0,
    transpose: bool = False,
) -> Tensor:
    """Multiply the degrees that are both given and wanted by a matrix of degree and element; other rows are zero.

    Args:
        x: of atoms sorted by element, (N, sum of 2l+1 of the given, C).
        weights: (G, Z, C, D), or (G, Z, D, C) with `transpose`; G counts the degrees in both lists.
        given: degrees of the input, ascending.
        wanted: degrees of the output, ascending.
        counts: atoms of each element, (Z,), on the CPU.
        scale: factor of all matrices.
        transpose: use the transposed matrices.

    Returns:
        (N, sum of 2l+1 of the wanted, D).
    """
    mapped = [l for l in wanted if l in given]
    if in_kernels(x):
        return ops.linear(x, weights, counts, _blocks(tuple(given), tuple(wanted), tuple(mapped)), scale, transpose)
    weights = weights * scale
    weights = weights.transpose(2, 3) if transpose else weights
    parts = dict(zip(given, x.split([2 * l + 1 for l in given], 1), strict=True))
    found = []
    for degree in wanted:
        if degree in mapped:
            found.append(linear_by_element(parts[degree], weights[mapped.index(degree)], counts))
        else:
            found.append(x.new_zeros((x.shape[0], 2 * degree + 1, weights.shape[3])))
    return torch.cat(found, 1) if len(found) > 1 else found[0]


def join_degrees(parts: Sequence[Tensor], weights: Sequence[Tensor], factor: float = 1.0) -> Tensor:
    """Multiply the rows (N, 2l+1, D) of degrees 0, 1, ... by `factor` / sqrt(D) times a matrix (D, C) of each.

    Returns:
        (N, sum of 2l+1, C).
    """
    if in_kernels(parts[0]):
        return ops.mix(list(parts), list(weights), factor)
    found = [
        map_degrees(x, w.unsqueeze(0), [l], factor / math.sqrt(w.shape[0]))
        for l, (x, w) in enumerate(zip(parts, weights, strict=True))
    ]
    return torch.cat(found, 1)


def join_degrees_adjoint(g: Tensor, weights: Sequence[Tensor], factor: float = 1.0) -> list[Tensor]:
    """Gradients by the parts that `join_degrees` took, of degrees 0, 1, ..., from that by what it gave."""
    rows = [2 * l + 1 for l in range(len(weights))]
    if in_kernels(g):
        return ops.mix_adjoint(g, list(weights), rows, factor)
    return [
        map_degrees(x, w.unsqueeze(0), [l], factor / math.sqrt(w.shape[0]), transpose=True)
        for l, (x, w) in enumerate(zip(g.split(rows, 1), weights, strict=True))
    ]


_NO_COUNTS = torch.zeros(0, dtype=torch.int64)


def in_kernels(x: Tensor) -> bool:
    """Whether the compiled operators for the CPU take this tensor."""
    return x.device.type == "cpu" and compiled(x)


@cache
def _blocks(given: tuple[int, ...], wanted: tuple[int, ...], mapped: tuple[int, ...]) -> list[int]:
    """Rows of the output, then width, first input row and first output row of each mapped degree."""
    found = [sum(2 * l + 1 for l in wanted)]
    for degree in mapped:
        before = [sum(2 * l + 1 for l in degrees if l < degree) for degrees in (given, wanted)]
        found += [2 * degree + 1, *before]
    return found


def _times(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply the last axis of (N, M, C) by (C, D) as one product, whatever the strides: a batched one is slower."""
    return (x.reshape(-1, x.shape[2]) @ weight).reshape(-1, x.shape[1], weight.shape[1])
