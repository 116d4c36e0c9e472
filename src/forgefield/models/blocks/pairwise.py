"""Sums over pairs with written gradients, as physics terms have them."""

from __future__ import annotations

import torch
from torch import Tensor

from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by


def halves(energy: Tensor, first: Tensor, second: Tensor, n: int) -> Tensor:
    """Half of each pair's energy (P,) at either of its atoms: (n,)."""
    half = 0.5 * energy
    return sum_by(half, first, n) + sum_by(half, second, n)


def along(slope: Tensor, r: Tensor, vectors: Tensor) -> Tensor:
    """Gradient by the pair vectors (P, 3) from the derivative by their length (P,)."""
    return (slope / r).unsqueeze(1) * vectors


def head_of_atoms(graph: Graph) -> Tensor:
    """Index of each atom's head, (N,)."""
    return graph.head.index_select(0, graph.structure)


def fade(r: Tensor, cutoff: float, width: float) -> tuple[Tensor, Tensor]:
    """Step from 1 at `cutoff - width` to 0 at `cutoff`, with its derivative; a plain cut where the width is 0.

    Args:
        r: distances, any shape.
        cutoff: end, Å.
        width: over which value, slope and curvature change without a jump, Å.
    """
    inside = (r < cutoff).to(r.dtype)
    if width <= 0.0:
        return inside, torch.zeros_like(r)
    x = ((r - (cutoff - width)) / width).clamp(0.0, 1.0)
    value = 1.0 - x * x * x * (10.0 - x * (15.0 - 6.0 * x))
    away = x * (1.0 - x)
    return value * inside, -30.0 / width * away * away
