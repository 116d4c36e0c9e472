"""What is read from the features of atoms, or from their mean and the structure's own features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forgefield.models.architectures.alignn.layers import Layer


class Heads(nn.Module):
    """One linear map for each level of theory.

    Args:
        inputs: width of the features.
        outputs: numbers read from them.
        n_heads: maps.
    """

    def __init__(self, inputs: int, outputs: int, n_heads: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(n_heads * outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_heads * outputs).uniform_(-bound, bound))
        self.shape = (n_heads, outputs)

    def forward(self, x: Tensor, head: Tensor) -> Tensor:
        """Map rows (R, in) of heads (R,) to (R, out)."""
        found = nn.functional.linear(x, self.weight, self.bias)
        if self.shape[0] == 1:
            return found
        rows = torch.arange(x.shape[0], device=x.device)
        return found.unflatten(1, self.shape)[rows, head]


class Mixing(nn.Module):
    """Joins the mean over the atoms with features of the structure.

    Args:
        width: features of an atom.
        extra: features of a structure.
    """

    def __init__(self, width: int, extra: int) -> None:
        super().__init__()
        both = width + extra
        self.embed, self.first, self.second = Layer(extra, extra), Layer(both, both), Layer(both, both)

    def forward(self, pooled: Tensor, extra: Tensor) -> Tensor:
        """Map rows (S, C) and (S, F) to (S, C + F)."""
        return self.second(self.first(torch.cat([pooled, self.embed(extra)], 1)))
