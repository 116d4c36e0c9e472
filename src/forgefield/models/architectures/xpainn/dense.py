"""Small networks, and linear maps of equivariant features."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from forgefield.kernels.operators import ops
from forgefield.models.architectures.xpainn.irreps import Irreps
from forgefield.models.blocks.linear import in_kernels

ACTIVATIONS = {"silu": nn.functional.silu, "softplus": nn.functional.softplus}


def times(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply rows (R, C) by a matrix (C, D); without a constant, which no trace can hold."""
    if in_kernels(x):
        return ops.linear(x, weight, x.new_empty(0, dtype=torch.int64), [1, 1, 0, 0], 1.0, False)
    return x @ weight


class Dense(nn.Module):
    """x W + b with W uniform in +-1/sqrt(C) and b = 0.

    Args:
        width: C of the input.
        out: of the output.
        bias: whether there is b.
    """

    def __init__(self, width: int, out: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, C) to (R, out)."""
        y = times(x, self.weight)
        return y if self.bias is None else y + self.bias


class CutDense(Dense):
    """(x W + b) f of rows (x f, f), multiplied by a cutoff f before: no pass over what is as wide as the output."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, C + 1) to (R, out)."""
        return times(x, torch.cat([self.weight, self.bias.unsqueeze(0)]))  # type: ignore[union-attr]


class Network(nn.Module):
    """Layers with an activation between them.

    Args:
        sizes: widths from input to output.
        activation: a name of ACTIVATIONS.
    """

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Dense(i, o) for i, o in itertools.pairwise(sizes))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, first) to (R, last)."""
        for k, layer in enumerate(self.layers):
            x = layer(x if k == 0 else ACTIVATIONS[self.activation](x))
        return x


class Mix(nn.Module):
    """Mix the channels of each degree: W normal of variance 1/C, and b = 0 for scalars.

    Args:
        given: channels by degree.
        out: channels of the output, by degree.
        bias: whether scalars get b.
    """

    def __init__(self, given: Irreps, out: Sequence[int], bias: bool) -> None:
        super().__init__()
        self.given = given
        drawn = [torch.randn(c, o) / math.sqrt(c) for c, o in zip(given.channels, out, strict=True)]
        self.weights = nn.ParameterList(drawn)
        self.bias = nn.Parameter(torch.zeros(out[0])) if bias and given.degrees[0] == 0 else None

    def forward(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Map (N, 2l+1, C) of each degree to (N, 2l+1, out)."""
        mixed = [times(x.flatten(0, 1), w).unflatten(0, x.shape[:2]) for x, w in zip(parts, self.weights, strict=True)]
        if self.bias is not None:
            mixed[0] = mixed[0] + self.bias
        return mixed


def split(x: Tensor, irreps: Irreps) -> list[Tensor]:
    """Features (N, size) as (N, 2l+1, C) of each degree."""
    parts = x.split(irreps.sizes, 1)
    return [part.unflatten(1, (2 * l + 1, c)) for part, (l, c) in zip(parts, irreps.parts, strict=True)]


def soft_lengths(parts: Sequence[Tensor], softness: float) -> Tensor:
    """sqrt(|x|^2 + e^2) - e of each channel, (N, channels of all degrees): smooth where x vanishes."""
    squares = torch.cat([part.square().sum(1) for part in parts], 1)
    return torch.sqrt(squares + softness**2) - softness
