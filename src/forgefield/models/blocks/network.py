"""Small fully connected networks with a written adjoint."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from forgefield.kernels.choice import compiled
from forgefield.kernels.operators import ops
from forgefield.models.blocks.linear import in_kernels, map_rows

SILU_GAIN = 1.6791767923989418
"""Factor that gives silu of a standard normal variable a second moment of 1 (e3nn's value)."""


def scaled_silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return silu of unit second moment and its derivative, each shaped as `x`."""
    if compiled(x):
        value, slope, _ = ops.gated(x, SILU_GAIN)
        return value, slope
    s = torch.sigmoid(x)
    v = x * s
    return v * SILU_GAIN, (s + v * (1.0 - s)) * SILU_GAIN


class Network(nn.Module):
    """Layers without bias, silu between them; weights are unit normal and scaled by 1/sqrt(fan in) when used.

    Args:
        sizes: widths from input to output.
    """

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        pairs = itertools.pairwise(sizes)
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(i, o)) for i, o in pairs])

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Evaluate on rows (R, in); returns the output and what `adjoint` needs."""
        if in_kernels(x):
            y, *hidden = ops.network(x, list(self.weights), SILU_GAIN)
            return y, hidden
        slopes: list[Tensor] = []
        for w in self.weights[:-1]:
            x, slope = scaled_silu(map_rows(x, w, 1.0 / math.sqrt(w.shape[0])))
            slopes.append(slope)
        last = self.weights[-1]
        return map_rows(x, last, 1.0 / math.sqrt(last.shape[0])), slopes

    def adjoint(self, g: Tensor, slopes: list[Tensor]) -> Tensor:
        """Gradient by the input from the gradient by the output."""
        if in_kernels(g):
            return ops.network_adjoint(g, slopes, list(self.weights), SILU_GAIN)[0]
        for w, slope in zip(reversed(self.weights), [*reversed(slopes), None], strict=True):
            g = map_rows(g, w, 1.0 / math.sqrt(w.shape[0]), transpose=True)
            g = g if slope is None else g * slope
        return g
