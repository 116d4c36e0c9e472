"""Layers of ALIGNN: networks of one layer, and edge-gated sums over the edges of a graph."""

from __future__ import annotations

import math
from collections.abc import Callable
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
        self.low, self.high, self.rate = low, high, (count - 1) / (high - low)
        centres = torch.linspace(low, high, count, dtype=torch.float64)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Values (R, K) at numbers (R, 1)."""
        return torch.exp((x - self.centres).square() * -self.rate)


class Table:
    """Looks up what networks make of one number, where there are many numbers in single precision.

    The networks run in double precision at evenly spaced nodes, an eightieth of the first Gaussians' width apart.
    Between them polynomials of degree 7 are nearer than single precision tells, also for weights four times as large
    as fresh ones (`tests/models/test_alignn_table.py`). Derivatives are the polynomials', so that forces are those of
    the energy.

    Args:
        gaussians: what the number is given to first.
    """

    WORTH = 2  # numbers for each node from which on looking up pays
    FINE, MARGIN = 80, 4

    def __init__(self, gaussians: Gaussians) -> None:
        width = (2.0 * gaussians.rate) ** -0.5
        inner = math.ceil((gaussians.high - gaussians.low) * self.FINE / width)
        self.rate = inner / (gaussians.high - gaussians.low)
        self.low = gaussians.low - self.MARGIN / self.rate
        self.count = inner + 2 * self.MARGIN + 1

    def __call__(self, networks: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """What the networks make of x, (R, 1): (R, C)."""
        if x.dtype != torch.float32 or x.shape[0] < self.WORTH * self.count or not in_kernels(x):
            return networks(x)
        nodes = torch.arange(self.count, dtype=torch.float64) / self.rate + self.low
        return ops.interpolate(x, networks(nodes.unsqueeze(1)), self.low, self.rate)


class Norm(nn.Module):
    """Layer norm, then SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map rows (R, C) to (R, C)."""
        if in_kernels(x):
            return ops.norm_silu(x, self.weight.to(x.dtype), self.bias.to(x.dtype))
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return nn.functional.silu(nn.functional.layer_norm(x, weight.shape, weight, bias))


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Rows (R, C) times the transpose of a matrix (D, C), plus a row (D,)."""
    if in_kernels(x):
        return ops.linear(x, weight, x.new_empty(0, dtype=torch.int64), [1, 1, 0, 0], 1.0, True) + bias
    return nn.functional.linear(x, weight, bias)


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
        """Map rows (R, in) to (R, out), in the precision of the rows."""
        linear = self.linear
        return self.norm(affine(x, linear.weight.to(x.dtype), linear.bias.to(x.dtype)))


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

    def forward(self, x: Tensor, y: Tensor, edges: Edges, place: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features of nodes and edges after the layer.

        Args:
            x: of the nodes, (N, C).
            y: of the edges, (E, C), or what `joined` makes of features that several edges have in common, (A, 2 C).
            edges: the graph.
            place: row of `y` of each edge, (E,), where they are in common.

        Returns:
            (N, C), (E, C); the edges' as they were where `last`.
        """
        width = x.shape[1]
        bonds = affine(x, self.nodes[: 3 * width], nn.functional.pad(self.node_bias[:width], (2 * width, 0)))
        own = affine(x, self.nodes[3 * width :], self.node_bias[width:])
        sums, y = self._edges(y, bonds, edges, place)
        total, norm = sums.chunk(2, 1)
        return x + self.node_norm(own + total / (norm + self.floor)), y

    def _edges(self, y: Tensor, nodes: Tensor, edges: Edges, place: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sums of messages and gates at the nodes, (N, 2 C), and the edges' new features."""
        last = self.edge_norm is None
        if in_kernels(y) and fills_vectors(self.node_norm.weight.shape[0] * y.element_size()):
            norm, none = self.node_norm if self.edge_norm is None else self.edge_norm, y.new_empty(0)
            parameters = (self.gate, self.gate_bias) if place is None else (none, none)
            place = edges.source[:0] if place is None else place
            found, kept = ops.gated_layer(
                y, *parameters, nodes, edges.weight, norm.weight, norm.bias, edges.source, edges.target, place, not last
            )
            return found, y if last else kept
        y, gates = (self.joined(y) if place is None else y.index_select(0, place)).chunk(2, 1)
        sums, m = gated_sum(gates, nodes, edges, not last)
        return sums, y if self.edge_norm is None else y + self.edge_norm(m)

    def joined(self, y: Tensor) -> Tensor:
        """Features (R, C) and what they bring to the gates, side by side, (R, 2 C)."""
        return torch.cat([y, affine(y, self.gate.to(y.dtype), self.gate_bias.to(y.dtype))], 1)


def fills_vectors(row: int) -> bool:
    """Whether a row of so many bytes is 1, 2, 4, 8 or 16 vectors, as the operator for whole layers asks."""
    return row in (64, 128, 256, 512, 1024)


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
