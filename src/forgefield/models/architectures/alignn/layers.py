"""Layers of ALIGNN: networks of one layer, and edge-gated sums over the edges of a graph."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from forgefield.graph.segment import sum_by
from forgefield.kernels.operators import ops
from forgefield.models.blocks.linear import in_kernels

SMOOTH_FLOOR, PUBLISHED_FLOOR = 1.0, 1e-6
"""Added to the sum of the gates. With weights that fade out it must not be small: the only neighbour left would keep
its whole influence until shortly before the cutoff."""


class Gaussians(nn.Module):
    """exp(-(x - c_k)^2 / d) on evenly spaced centres; d is their distance, not its square.

    Args:
        low: first centre.
        high: last centre.
        count: number of Gaussians.
    """

    def __init__(self, low: float, high: float, count: int) -> None:
        super().__init__()
        self.rate = (count - 1) / (high - low)
        centres = torch.linspace(low, high, count, dtype=torch.float64)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Values (R, K) at numbers (R, 1)."""
        return torch.exp((x - self.centres).square() * -self.rate)


class Norm(nn.Module):
    """Layer norm, then SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map rows (R, C) to (R, C)."""
        if in_kernels(x):
            return ops.norm_silu(x, self.weight, self.bias)
        return nn.functional.silu(nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias))


class Layer(nn.Module):
    """Linear map, layer norm, SiLU.

    Args:
        inputs: width before.
        outputs: width after.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, outputs), Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows (R, in) to (R, out)."""
        return self.norm(self.linear(x))


class Edges(NamedTuple):
    """Where the edges of a graph begin and end, and how much each counts."""

    source: Tensor  # (E,)
    target: Tensor  # (E,)
    weight: Tensor  # (E, 1)


class GatedSum(nn.Module):
    """Edge-gated convolution.

    m = S x_source + D x_target + E y; gates s = weight * logistic(m);
    x' = x + SiLU(norm(A x + sum(s * B x_source) / (sum(s) + floor))), y' = y + SiLU(norm(m)).

    Args:
        width: features of nodes and edges.
        floor: added to the sum of the gates.
        last: y' is not wanted.
    """

    def __init__(self, width: int, floor: float, last: bool) -> None:
        super().__init__()
        self.floor = floor
        bound = width**-0.5
        draw = lambda *shape: nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))  # noqa: E731
        self.nodes = draw(4 * width, width)  # S, D, B, A
        self.node_bias = draw(2 * width)  # of B and A
        self.gate, self.gate_bias = draw(width, width), draw(width)
        self.node_norm = Norm(width)
        self.edge_norm = None if last else Norm(width)

    def forward(self, x: Tensor, y: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """Features of nodes (N, C) and edges (E, C); the edges' as they were where `last`."""
        width = x.shape[1]
        nodes = nn.functional.linear(x, self.nodes, nn.functional.pad(self.node_bias, (2 * width, 0)))
        bonds, own = nodes.split([3 * width, width], 1)
        gates = nn.functional.linear(y, self.gate, self.gate_bias)
        sums, m = gated_sum(gates, bonds, edges, self.edge_norm is not None)
        total, norm = sums.chunk(2, 1)
        x = x + self.node_norm(own + total / (norm + self.floor))
        return x, y if self.edge_norm is None else y + self.edge_norm(m)


def gated_sum(y: Tensor, nodes: Tensor, edges: Edges, keep: bool) -> tuple[Tensor, Tensor]:
    """Sums over the edges that lead to each node.

    Args:
        y: what edges bring to their gates, (E, C).
        nodes: what nodes send to the gates, take to the gates, and send through them, side by side, (N, 3 C).
        edges: the graph.
        keep: the sums before the gates' logistic curve are wanted too.

    Returns:
        Sums of gates times values, and of gates, side by side, (N, 2 C); the sums before the curve, (E, C), or nothing.
    """
    source, target, weight = edges
    if in_kernels(y):
        return ops.gated_sum(y, nodes, weight, source, target, keep)
    send, take, value = nodes.chunk(3, 1)
    m = y + send.index_select(0, source) + take.index_select(0, target)
    gate = torch.sigmoid(m) * weight
    messages = torch.cat([gate * value.index_select(0, source), gate], 1)
    return sum_by(messages, target, nodes.shape[0]), m
