"""Charges that sum to the total charge, and the moments they make."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by

SOFT = 1e-6
"""Added to the sum of the weights by which missing charge is handed out."""


def totals(graph: Graph, n_channels: int, dtype: torch.dtype) -> Tensor:
    """Charge that each channel shall sum to, (S, C): the total, or Q/2 + (m-1)/2 and Q/2 - (m-1)/2 of both spins."""
    charge = graph.charge.to(dtype).unsqueeze(1)
    if n_channels == 1:
        return charge
    unpaired = 0.5 * (graph.multiplicity.to(dtype).unsqueeze(1) - 1.0)
    return torch.cat([0.5 * charge + unpaired, 0.5 * charge - unpaired], 1)


def equilibrate(charges: Tensor, weights: Tensor, wanted: Tensor, graph: Graph) -> Tensor:
    """Hand out what is missing of the totals: q + f (Q - sum q) / (sum f + 1e-6), the sums over a structure.

    Args:
        charges: q (N, C).
        weights: f (N, C), not negative.
        wanted: Q (S, C).
        graph: the batch.
    """
    n = graph.n_structures
    both = sum_by(torch.cat([charges, weights], 1), graph.structure, n)
    sums, norms = both.chunk(2, 1)
    share = (wanted - sums) / (norms + SOFT)
    return charges + weights * share.index_select(0, graph.structure)


class Moments(NamedTuple):
    """Moments of point charges; zero where a structure is periodic, for which they mean nothing."""

    dipole: Tensor  # (S, 3), e Å: sum of q x
    quadrupole: Tensor  # (S, 3, 3), e Å^2: sum of q (x x^T - 1 |x|^2 / 3)


def moments(charges: Tensor, graph: Graph, masses: Tensor | None) -> Moments:
    """Sum the charges' moments; positions are constants in it.

    Args:
        charges: (N,), e.
        graph: the batch.
        masses: of the atoms, (N,): moments are about their centre; None: about the origin.
    """
    n, x = graph.n_structures, graph.positions.to(charges.dtype)
    if masses is not None:
        both = sum_by(torch.cat([x * masses.unsqueeze(1), masses.unsqueeze(1)], 1), graph.structure, n)
        x = x - (both[:, :3] / both[:, 3:]).index_select(0, graph.structure)
    outer = (x.unsqueeze(2) * x.unsqueeze(1)).flatten(1)
    alone = (~graph.pbc.any(1)).to(charges.dtype).unsqueeze(1)
    sums = sum_by(torch.cat([x, outer], 1) * charges.unsqueeze(1), graph.structure, n) * alone
    second = sums[:, 3:].unflatten(1, (3, 3))
    trace = second.diagonal(dim1=1, dim2=2).sum(1).reshape(-1, 1, 1)
    unit = torch.eye(3, dtype=charges.dtype, device=charges.device)
    return Moments(sums[:, :3], second - trace * unit / 3.0)
