"""Energies from the scalars of the last block."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from forgefield.models.architectures.xpainn.dense import ACTIVATIONS, times


class EnergyReadout(nn.Module):
    """A network with one hidden layer for each head.

    Args:
        width: features of an atom.
        hidden: hidden width.
        n_heads: H.
        activation: a name of ACTIVATIONS.
    """

    def __init__(self, width: int, hidden: int, n_heads: int, activation: str) -> None:
        super().__init__()
        draw = lambda i, o: torch.empty(n_heads, i, o).uniform_(-1.0 / math.sqrt(i), 1.0 / math.sqrt(i))  # noqa: E731
        self.first, self.second = nn.Parameter(draw(width, hidden)), nn.Parameter(draw(hidden, 1))
        self.bias, self.shift = nn.Parameter(torch.zeros(n_heads, hidden)), nn.Parameter(torch.zeros(n_heads, 1))
        self.activation = activation

    def forward(self, s: Tensor, head: Tensor) -> Tensor:
        """Energies (N,), eV, of features (N, C) for heads (N,)."""
        act = ACTIVATIONS[self.activation]
        found = [
            act(times(s, self.first[k]) + self.bias[k]) @ self.second[k] + self.shift[k]
            for k in range(self.shift.shape[0])
        ]
        if len(found) == 1:
            return found[0].squeeze(1)
        return torch.cat(found, 1).gather(1, head.unsqueeze(1)).squeeze(1)
