"""Networks with biases and GELU between the layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from forgefield.kernels.operators import ops
from forgefield.models.blocks.linear import in_kernels


def network(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activated: bool,
    table: Tensor | None = None,
    row: Tensor | None = None,
) -> Tensor:
    """Map rows through linear layers with GELU between them.

    Args:
        x: inputs (R, in); without the first ones if these come from a table.
        weights: (in, out) of each layer.
        biases: (out,) of each layer.
        activated: GELU follows the last layer too.
        table: the first inputs of each row of x, as few rows (T, first) that are repeated.
        row: which of them, (R,).

    Returns:
        (R, out) of the last layer.
    """
    if in_kernels(x):
        if table is None or row is None:
            table, row = x.new_empty((0, 0)), x.new_empty(0, dtype=torch.int64)
        return ops.dense(x, table, row, list(weights), list(biases), activated, False)[0]
    last = len(weights) - 1
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if k or table is None or row is None:
            x = x @ weight + bias
        else:  # products of the table's rows once each
            first, rest = weight.split([table.shape[1], x.shape[1]])
            x = x @ rest + (table @ first + bias).index_select(0, row)
        if k < last or activated:
            x = nn.functional.gelu(x)
    return x


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
        """Map rows (R, in) to (R, out), as `network` does."""
        return network(x, list(self.weights), list(self.biases), self.activated, table, row)
