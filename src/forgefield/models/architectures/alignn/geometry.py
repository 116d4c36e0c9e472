"""Distances, angles, and how much each bond and angle counts."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by
from forgefield.models.architectures.alignn.layers import Edges
from forgefield.models.architectures.alignn.settings import AlignnSettings


class Geometry(NamedTuple):
    """What the layers see of a batch. The P pairs are 2 P directed edges, as `Graph`'s triplets count them."""

    distance: Tensor  # (P, 1), Å: what the Gaussians are given
    factor: Tensor | None  # (P, 1): of the features of bonds
    cosine: Tensor  # (A, 1): of each angle
    angle: Tensor  # (T,): the angle of each triplet
    edges: Edges  # atoms -> atoms, (2 P,)
    corners: Edges  # edges -> edges, (T,)
    penalty: Tensor  # (N,)


class Windows(nn.Module):
    """Weights that end messages at cutoffs: smoothly, or as the published model does.

    Args:
        settings: of the model.
    """

    def __init__(self, settings: AlignnSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, graph: Graph, vectors: Tensor) -> Geometry:
        """Look at the pair vectors (P, 3), Å."""
        settings = self.settings
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        envelope = self._fade(r, settings.envelope_cutoff) if settings.use_cutoff_function else None
        weight = envelope if settings.smooth_weights and envelope is not None else self._inside(r, settings.cutoff)
        distance = r if envelope is None or settings.multiply_cutoff else envelope
        factor = envelope if settings.multiply_cutoff else None
        both = torch.cat([weight, weight])
        first, second = graph.pair_first, graph.pair_second
        edges = Edges(torch.cat([first, second]), torch.cat([second, first]), both)
        cosine, corners = self._corners(graph, vectors, r)
        return Geometry(distance, factor, cosine, graph.triplet_angle, edges, corners, self._penalty(graph, r))

    def _fade(self, r: Tensor, cutoff: float) -> Tensor:
        return envelope(r / cutoff, self.settings.exponent)

    def _inside(self, r: Tensor, cutoff: float) -> Tensor:
        """1 up to the cutoff, 0 beyond; 1 everywhere where neighbours are not those within it."""
        if not self.settings.ends_at_cutoff and cutoff >= self.settings.cutoff:
            return torch.ones_like(r)
        return (r <= cutoff).to(r.dtype)

    def _corners(self, graph: Graph, vectors: Tensor, r: Tensor) -> tuple[Tensor, Edges]:
        """Cosines (A, 1) of the angles and weights of the triplets."""
        settings, entering, leaving = self.settings, graph.triplet_entering, graph.triplet_leaving
        window = self._fade if settings.smooth_weights else self._inside
        limit = (
            min(settings.angle_cutoff, settings.envelope_cutoff) if settings.smooth_weights else settings.angle_cutoff
        )
        unit = vectors / r
        unit = torch.cat([unit, -unit])
        ends = (edges.index_select(0, graph.angle_triplet) for edges in (entering, leaving))
        sides = [unit.index_select(0, end) for end in ends]
        cosine = -(sides[0] * sides[1]).sum(1, keepdim=True)
        weight = window(r, limit)
        weight = torch.cat([weight, weight])
        counts = weight.index_select(0, entering) * weight.index_select(0, leaving)
        counts = counts * graph.triplet_filled.unsqueeze(1)
        if settings.lighten_edges:
            whole = torch.cat([vectors, -vectors])
            across = whole.index_select(0, entering) + whole.index_select(0, leaving)
            counts = counts * window(_length(across), settings.envelope_cutoff)
        return cosine, Edges(entering, leaving, counts)

    def _penalty(self, graph: Graph, r: Tensor) -> Tensor:
        """Energy of atoms that are too close, (N,): linear in the published form, else without a kink."""
        settings, n = self.settings, graph.n_atoms
        if not settings.use_penalty:
            return r.new_zeros(n)
        missing = nn.functional.relu(settings.penalty_threshold - r).squeeze(1)
        found = settings.penalty_factor * missing
        if settings.compat == "none":
            found = found * missing / settings.penalty_threshold
        return sum_by(found, graph.pair_first, n) + sum_by(found, graph.pair_second, n)


def envelope(x: Tensor, p: int) -> Tensor:
    """Step from 1 at 0 to 0 at 1 with two vanishing derivatives there, zero beyond, any shape.

    It is 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2), written as (1 - x)^3 sum_k (k+1)(k+2)/2 x^k, k < p:
    without differences of large numbers.
    """
    total = torch.full_like(x, p * (p + 1) / 2)
    for k in range(p - 2, -1, -1):
        total = total * x + (k + 1) * (k + 2) / 2
    rest = nn.functional.relu(1.0 - x)
    return rest * rest * rest * total


def _length(vectors: Tensor) -> Tensor:
    """Lengths (R, 1) with a derivative of zero at zero."""
    return torch.sqrt(vectors.square().sum(1, keepdim=True) + math.ulp(1.0) ** 2)
