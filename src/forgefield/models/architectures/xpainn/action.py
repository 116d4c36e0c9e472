"""Blocks of XPaiNN: messages from the neighbours, and updates of each atom."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from forgefield.graph.graph import Graph
from forgefield.models.architectures.xpainn.dense import CutDense, Dense, Mix, Network, soft_lengths, split
from forgefield.models.architectures.xpainn.gather import Layout, neighbour_sums
from forgefield.models.architectures.xpainn.norm import EquivariantNorm
from forgefield.models.architectures.xpainn.settings import XpainnSettings


class Surroundings(NamedTuple):
    """What all blocks share."""

    graph: Graph
    radial: Tensor  # (P, B + 1), functions and 1, times the cutoff
    harmonics: Tensor  # (P, (L+1)^2), of the unit vectors


class Message(nn.Module):
    """s_i += sum of a_j w(r);  v_i += sum of (v_j b_j w'(r) + Y(r) c_j w''(r)), with a, b, c a network of s_j.

    The first block has no b: all v are zero there, so that only its own bias could pass, which c does as well.

    Args:
        settings: the shape of the model.
        first: whether v is zero.
    """

    def __init__(self, settings: XpainnSettings, first: bool) -> None:
        super().__init__()
        irreps, width = settings.irreps, settings.node_dim
        self.layout = Layout(width, irreps.degrees, irreps.channels, not first)
        self.norm = nn.LayerNorm(width) if settings.layer_norm else nn.Identity()
        self.equivariant_norm = (
            EquivariantNorm(irreps, settings.softness) if settings.layer_norm and not first else nn.Identity()
        )
        self.sender = Network([width, width, self.layout.n_weights], settings.activation)
        self.radial = CutDense(settings.num_basis, self.layout.n_weights)
        self.irreps = irreps

    def forward(self, s: Tensor, v: Tensor | None, near: Surroundings) -> tuple[Tensor, Tensor]:
        """Add the messages to scalars (N, C) and equivariant features (N, size)."""
        sent = self.sender(self.norm(s))
        weights = self.radial(near.radial)
        if v is not None:
            parts = self.equivariant_norm(split(v, self.irreps))
            own, gates = sent.split([self.layout.n_weights - self.irreps.count, self.irreps.count], 1)
            gates = gates.split(list(self.irreps.channels), 1)
            gated = [(x * g.unsqueeze(1)).flatten(1) for x, g in zip(parts, gates, strict=True)]
            sent = torch.cat([own, *gated], 1)
        sums = neighbour_sums(sent, weights, near.harmonics, near.graph, self.layout)
        to_s, to_v = sums.split([s.shape[1], sums.shape[1] - s.shape[1]], 1)
        return s + to_s, to_v if v is None else v + to_v


class Update(nn.Module):
    """v += (U v) a;  s += b L(U v . V v) + c, with a, b, c a network of s and the lengths of V v.

    Args:
        settings: the shape of the model.
        moves: whether v is updated; nobody reads it after the last block of a model of energies.
    """

    def __init__(self, settings: XpainnSettings, moves: bool) -> None:
        super().__init__()
        irreps, width = settings.irreps, settings.node_dim
        self.irreps, self.softness, self.moves = irreps, settings.softness, moves
        self.norm = nn.LayerNorm(width) if settings.layer_norm else nn.Identity()
        self.equivariant_norm = EquivariantNorm(irreps, settings.softness) if settings.layer_norm else nn.Identity()
        self.mix = Mix(irreps, [2 * c for c in irreps.channels], bias=True)
        self.dot = Dense(irreps.count, width, bias=False)
        self.sizes = [width, width, irreps.count] if moves else [width, width]
        self.network = Network([width + irreps.count, width, sum(self.sizes)], settings.activation)

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Update scalars (N, C) and equivariant features (N, size)."""
        normed = self.norm(s)
        mixed = self.mix(self.equivariant_norm(split(v, self.irreps)))
        us, vs = zip(*[x.chunk(2, 2) for x in mixed], strict=True)
        of_dot, alone, *gates = self.network(torch.cat([normed, soft_lengths(vs, self.softness)], 1)).split(
            self.sizes, 1
        )
        dots = torch.cat([(a * b).sum(1) for a, b in zip(us, vs, strict=True)], 1)
        s = s + of_dot * self.dot(dots) + alone
        if self.moves:
            split_gates = gates[0].split(list(self.irreps.channels), 1)
            v = v + torch.cat([(a * g.unsqueeze(1)).flatten(1) for a, g in zip(us, split_gates, strict=True)], 1)
        return s, v
