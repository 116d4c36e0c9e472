"""Total charge and unpaired electrons, handed out to the atoms by attention (Unke et al., SpookyNet, 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by
from forgefield.models.architectures.xpainn.dense import ACTIVATIONS, Dense


class ElectronEmbedding(nn.Module):
    """Adds to the features of each atom its share of what a structure states; nothing where that is 0.

    Args:
        width: of the features.
        kind: charge (of both signs, with weights of their own) or spin (unpaired electrons).
        activation: a name of ACTIVATIONS.
    """

    def __init__(self, width: int, kind: str, activation: str) -> None:
        super().__init__()
        self.kind, self.activation, self.scale = kind, activation, 1.0 / math.sqrt(width)
        n = 2 if kind == "charge" else 1
        self.query = Dense(width, width)
        self.key = nn.Parameter(torch.randn(n, width))
        self.value = nn.Parameter(torch.randn(n, width) * self.scale)
        self.residual = nn.ModuleList(Dense(width, width, bias=False) for _ in range(2))

    def forward(self, s: Tensor, graph: Graph) -> Tensor:
        """Return the features (N, C) with their share added."""
        if self.kind == "charge":
            charge = graph.charge.to(s.dtype).unsqueeze(1)
            stated = torch.cat([charge, -charge], 1).clamp(min=0.0)
        else:
            stated = graph.multiplicity.to(s.dtype).unsqueeze(1) - 1.0
        key = ((stated / stated.clamp(min=1.0)) @ self.key).index_select(0, graph.structure)
        value = (stated @ self.value).index_select(0, graph.structure)
        weight = nn.functional.softplus((self.query(s) * key).sum(1, keepdim=True) * self.scale)
        total = sum_by(weight, graph.structure, graph.n_structures).index_select(0, graph.structure)
        share = value * (weight / total)
        x = share
        for layer in self.residual:
            x = layer(ACTIVATIONS[self.activation](x) - ACTIVATIONS[self.activation](torch.zeros_like(x)))
        return s + share + x
