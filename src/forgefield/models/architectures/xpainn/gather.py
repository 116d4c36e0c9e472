"""Sums over neighbours: features times radial weights, and features times weights times harmonics."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from forgefield.graph.gather import filled_slots, pairs_to_slots, senders_to_slots
from forgefield.graph.graph import Graph
from forgefield.kernels.operators import ops
from forgefield.models.blocks.linear import in_kernels


class Layout(NamedTuple):
    """What lies where in the rows of a message.

    A sender's row: scalars, a scalar per channel of each degree (times harmonics), and, with `state`, the equivariant
    features of each degree (2l+1, C). Weights of a pair: scalars, channels of each degree, and these once more.
    Sums: scalars, then (2l+1, C) of each degree.
    """

    width: int
    degrees: tuple[int, ...]
    channels: tuple[int, ...]
    state: bool

    @property
    def n_weights(self) -> int:
        """Weights of a pair."""
        return self.width + (1 + self.state) * sum(self.channels)

    @property
    def sizes(self) -> list[int]:
        """Numbers that the equivariant features of each degree have."""
        return [(2 * l + 1) * c for l, c in zip(self.degrees, self.channels, strict=True)]


def neighbour_sums(sent: Tensor, weights: Tensor, harmonics: Tensor, graph: Graph, layout: Layout) -> Tensor:
    """Sum over the neighbours of each atom.

    Args:
        sent: rows of the senders, (N, F).
        weights: of the pairs, (P, W).
        harmonics: of the pairs' unit vectors, (P, (L+1)^2).
        graph: the batch.
        layout: what lies where.

    Returns:
        (N, scalars and equivariant features).
    """
    if in_kernels(sent):
        table = graph.table_sender, graph.table_pair, graph.table_sign, graph.pair_first, graph.pair_second
        parts = [k for part in zip(layout.degrees, layout.channels, strict=True) for k in part]
        return ops.neighbour_sum(sent, weights, harmonics, *table, [layout.width, int(layout.state), *parts])
    shape, channels = graph.table_sign.shape, list(layout.channels)
    states = layout.sizes if layout.state else []
    at_slots = senders_to_slots(sent, graph).split([layout.width, *channels, *states], 1)
    factors = pairs_to_slots(weights, graph) * filled_slots(graph, 2)
    by_part = factors.split([layout.width, *channels, *(channels if layout.state else [])], 1)
    spread = pairs_to_slots(harmonics, graph)
    sign = graph.table_sign.reshape(-1, 1)
    found = [(at_slots[0] * by_part[0]).unflatten(0, shape).sum(1)]
    n = len(channels)
    for k, (l, c) in enumerate(zip(layout.degrees, channels, strict=True)):
        y = spread[:, l * l : (l + 1) ** 2] * (sign if l % 2 else sign.abs())
        edges = (at_slots[1 + k] * by_part[1 + k]).unflatten(0, shape)
        part = torch.bmm(y.unflatten(0, shape).transpose(1, 2), edges)
        if layout.state:
            moved = at_slots[1 + n + k].unflatten(1, (2 * l + 1, c)) * by_part[1 + n + k].unsqueeze(1)
            part = part + moved.unflatten(0, shape).sum(1)
        found.append(part.flatten(1))
    return torch.cat(found, 1)
