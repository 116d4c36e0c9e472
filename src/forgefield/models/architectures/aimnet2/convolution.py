"""Sums over neighbours: features times radial functions, as scalars and as squared lengths of vectors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from forgefield.graph.gather import filled_slots, pairs_to_slots, senders_to_slots
from forgefield.graph.graph import Graph
from forgefield.kernels.operators import ops
from forgefield.models.blocks.linear import in_kernels


class Surroundings(NamedTuple):
    """What the convolutions of all passes share."""

    graph: Graph
    radial: Tensor  # (P, 2, G): functions of scalars and of vectors
    unit: Tensor  # (P, 3)


def surroundings(graph: Graph, vectors: Tensor, r: Tensor, scalar: Tensor, vector: Tensor) -> Surroundings:
    """Join geometry.

    Args:
        graph: the batch.
        vectors: of the pairs, (P, 3), Å.
        r: their lengths, (P, 1).
        scalar: radial functions of the scalars, (P, G).
        vector: radial functions of the vectors, (P, G').
    """
    width = max(scalar.shape[1], vector.shape[1])
    both = [nn.functional.pad(x, (0, width - x.shape[1])) for x in (scalar, vector)]
    return Surroundings(graph, torch.stack(both, 1), vectors / r)


def radial_sum(features: Tensor, near: Surroundings) -> Tensor:
    """Sums over neighbours: features times functions, and times functions and unit vector to the neighbour.

    Args:
        features: of the atoms, (N, A G).
        near: geometry.

    Returns:
        (N, 4, A G), the scalars first.
    """
    graph, radial, unit = near
    if in_kernels(features):
        table = graph.table_sender, graph.table_pair, graph.table_sign, graph.pair_first, graph.pair_second
        return ops.radial_sum(features, radial, unit, *table)
    shape, width = graph.table_sign.shape, radial.shape[2]
    sent = senders_to_slots(features, graph).unflatten(1, (-1, width))
    functions = pairs_to_slots(radial, graph) * filled_slots(graph, 3)
    scalar, vector = (sent.unsqueeze(1) * functions.unsqueeze(2)).flatten(2).unbind(1)
    arrows = pairs_to_slots(unit, graph) * graph.table_sign.reshape(-1, 1)
    lengthwise = arrows.unflatten(0, shape).transpose(1, 2)
    sums = scalar.unflatten(0, shape).sum(1, keepdim=True)
    return torch.cat([sums, torch.bmm(lengthwise, vector.unflatten(0, shape))], 1)


class Convolution(nn.Module):
    """s_ag = sum over j of a_j(,g) g_g(r);  v_ah = |sum over j, g of W_agh a_j(,g) g_g(r) r/|r| |^2.

    Args:
        n_features: A.
        n_scalar: radial functions of the scalars, G.
        n_vector: radial functions of the vectors.
        n_combinations: H.
        by_function: the features have one value for each radial function.
    """

    def __init__(
        self, n_features: int, n_scalar: int, n_vector: int, n_combinations: int, *, by_function: bool
    ) -> None:
        super().__init__()
        self.shape, self.width = (n_features, n_scalar, n_vector), max(n_scalar, n_vector)
        self.by_function = by_function
        self.mix = nn.Parameter(torch.stack([waves(n_vector, n_combinations) for _ in range(n_features)]))
        self.size = n_features * (n_scalar + n_combinations)

    def forward(self, features: Tensor, near: Surroundings) -> Tensor:
        """Scalars, then squared lengths, (N, A G + A H), from features (N, A G) or (N, A)."""
        n_features, n_scalar, n_vector = self.shape
        width = self.width
        if not self.by_function:
            features = features.repeat_interleave(width, 1)
        sums = radial_sum(features, near)
        if in_kernels(sums):
            return ops.lengths(sums, self.mix, n_scalar)
        sums = sums.unflatten(2, (n_features, width))
        scalar, vector = sums[:, 0, :, :n_scalar], sums[:, 1:, :, :n_vector]
        lengths = torch.einsum("nxag,agh->nxah", vector, self.mix).pow(2).sum(1)
        return torch.cat([scalar.flatten(1), lengths.flatten(1)], 1)


def waves(n: int, count: int) -> Tensor:
    """Columns (n, count) far from each other: chosen one by one from random waves, each the farthest from the last.

    Every column has mean 0 and standard deviation 1.
    """
    k = torch.arange(n)
    angle = 2 * torch.pi * k / n
    drawn = torch.randn(8 * count, 4)
    found = drawn[:, :1] * torch.sin(drawn[:, 1:2] * angle) + drawn[:, 2:3] * torch.cos(drawn[:, 3:] * angle)
    found = found - found.mean(1, keepdim=True)
    found = found / found.std(1, keepdim=True)
    distances = torch.cdist(found, found)
    chosen = [int(distances.sum(1).argmax())]
    while len(chosen) < count:
        gap = distances[chosen].min(0).values
        gap[chosen] = -1.0
        chosen.append(int(gap.argmax()))
    return found[chosen].T
