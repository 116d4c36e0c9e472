"""Networks with biases and GELU between the layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from forgefield.kernels.operators import ops
from forgefield.models.architectures.aimnet2.gelu import curved_gelu
from forgefield.models.blocks.linear import in_kernels


def times(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply rows (R, C) by a matrix (C, D); without a constant, which no trace can hold."""
    if in_kernels(x):
        return ops.linear(x, weight, x.new_empty(0, dtype=torch.int64), [1, 1, 0, 0], 1.0, False)
    return x @ weight


def gelu(x: Tensor) -> Tensor:
    """Activate numbers of any shape."""
    return curved_gelu(x)[0] if in_kernels(x) else nn.functional.gelu(x)


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

    def forward(self, x: Tensor, table: Tensor | None = None, row: Tensor | None = None) -> Tensor:
        """Map rows (R, in) to (R, out).

        Args:
            x: inputs; without the first ones if these come from a table.
            table: the first inputs of each row of x, as few rows (T, first) that are repeated.
            row: which of them, (R,).
        """
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if k or table is None or row is None:
                x = times(x, weight) + bias
            else:  # products of the table's rows once each
                first, rest = weight.split([table.shape[1], x.shape[1]])
                x = times(x, rest) + (times(table, first) + bias).index_select(0, row)
            if k < last or self.activated:
                x = gelu(x)
        return x
