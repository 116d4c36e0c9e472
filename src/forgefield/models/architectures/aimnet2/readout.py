"""Energies from the last pass: a network and a shift by element for each head."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from forgefield.models.architectures.aimnet2.perceptron import network


class Readout(nn.Module):
    """Networks of all heads side by side, GELU between their layers, and learned shifts that begin at 0.

    Args:
        width: features of an atom.
        hidden: hidden widths, per head.
        n_heads: H.
        n_elements: Z.
    """

    def __init__(self, width: int, hidden: Sequence[int], n_heads: int, n_elements: int) -> None:
        super().__init__()
        draw = lambda i, o: torch.stack([nn.init.xavier_normal_(torch.empty(i, o)) for _ in range(n_heads)])  # noqa: E731
        sizes = list(itertools.pairwise([width, *hidden, 1]))
        self.weights = nn.ParameterList([draw(i, o) for i, o in sizes])  # (H, in, out)
        self.biases = nn.ParameterList([torch.zeros(n_heads, o) for _, o in sizes])
        self.shifts = nn.Parameter(torch.zeros(n_heads, n_elements))  # eV

    def forward(self, aim: Tensor, head: Tensor, element: Tensor) -> Tensor:
        """Energies (N,), eV, of features (N, C) for heads (N,) and elements (N,)."""
        n_heads = self.shifts.shape[0]
        of_heads = [
            network(aim, [w[k] for w in self.weights], [b[k] for b in self.biases], activated=False)
            for k in range(n_heads)
        ]
        found = of_heads[0] if n_heads == 1 else torch.cat(of_heads, 1).gather(1, head.unsqueeze(1))
        return found.squeeze(1) + self.shifts[head, element]
