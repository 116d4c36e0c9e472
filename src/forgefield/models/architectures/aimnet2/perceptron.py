"""Networks with biases and GELU between the layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from forgefield.kernels.operators import ops
from forgefield.models.blocks.linear import in_kernels


def times(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply rows (R, C) by a matrix (C, D); without a constant, which no trace can hold."""
    if in_kernels(x):
        return ops.linear(x, weight, x.new_empty(0, dtype=torch.int64), [1, 1, 0, 0], 1.0, False)
    return x @ weight


class Perceptron(nn.Module):
    """Linear layers with GELU between them; weights as Xavier-normal numbers, biases 0.

    Args:
        sizes: widths from input to output.
        activated: GELU follows the last layer too.
    """

    def __init__(self, sizes: Sequence[int], activated: bool) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(sizes))
        self.weights = nn.ParameterList([nn.init.xavier_normal_(torch.empty(i, o)) for i, o in pairs])
        self.biases = nn.ParameterList([torch.zeros(o) for _, o in pairs])
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        """Map rows (R, in) to (R, out)."""
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = times(x, weight) + bias
            if k < last or self.activated:
                x = nn.functional.gelu(x)
        return x
