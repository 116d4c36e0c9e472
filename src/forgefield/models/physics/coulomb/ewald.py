"""Ewald's sum over reciprocal space, for a batch of cells, with written gradients."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by
from forgefield.models.physics.coulomb.lattice import Cell, Lattice

LARGEST = 2**24
"""Phases held at once where no gradients of weights are asked for."""


class Waves(NamedTuple):
    """Some waves of every structure."""

    triples: Tensor  # (K, 3), whole numbers as floats, the same for all structures
    vectors: Tensor  # (S, K, 3), 1/Å
    square: Tensor  # (S, K), 1/Å^2; 1 for waves that are not used
    factor: Tensor  # (S, K), 4 pi exp(-width^2 k^2 / 2) / (V k^2), twice where -k is not listed; 0 for waves not used


def reciprocal_sum(graph: Graph, charges: Tensor, cell: Cell, width: float, longest: float) -> Lattice:
    """Energy of Gaussian charges (N,) of a width (Å) in all cells, from waves up to `longest` (1/Å).

    Source:
        Ewald, Ann. Phys. 369 (1921) 253; stress as in Nosé, Klein, Mol. Phys. 50 (1983) 1055.
    """
    inverse = cell.inverse.to(graph.positions.dtype).index_select(0, graph.structure)
    fractions = torch.bmm(graph.positions.unsqueeze(1), inverse).squeeze(1)
    fractions = (fractions - torch.floor(fractions)).to(charges.dtype)
    triples = torch.ops.forgefield.ewald_triples(graph.cell, longest)
    whole = charges.requires_grad or torch.compiler.is_compiling()
    parts = [triples] if whole else triples.split(max(1, LARGEST // max(graph.n_atoms, 1)))
    sums = [_sum_waves(graph, charges, fractions, cell, _waves(p, cell, width, longest), width) for p in parts]
    return functools.reduce(Lattice.__add__, sums)


@torch.library.custom_op("forgefield::ewald_triples", mutates_args=(), schema="(Tensor cell, float longest) -> Tensor")
def _triples(cell: Tensor, longest: float) -> Tensor:
    """Multiples of the reciprocal vectors that cover all waves up to `longest` in every cell, (K, 3), first >= 0.

    An operator of its own, since its size follows from values; compilers are told that it can be any, 2 or more.
    """
    lengths = torch.linalg.vector_norm(cell, dim=2).amax(0)
    ends = torch.floor(lengths * (longest / (2.0 * math.pi))).long().clamp(min=1).tolist()
    axes = [torch.arange(-end if k else 0, end + 1, device=cell.device) for k, end in enumerate(ends)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).to(cell.dtype)


@_triples.register_fake
def _(cell: Tensor, longest: float) -> Tensor:
    return cell.new_empty(torch.library.get_ctx().new_dynamic_size(min=2), 3)


def _waves(triples: Tensor, cell: Cell, width: float, longest: float) -> Waves:
    vectors = 2.0 * math.pi * torch.matmul(triples, cell.inverse.transpose(1, 2))
    square = vectors.square().sum(2)
    used = (square > 0) & (square <= longest**2)
    square = torch.where(used, square, torch.ones_like(square))
    twice = 1.0 + (triples[:, 0] > 0).to(square.dtype)
    factor = 4.0 * math.pi * twice * torch.exp(-0.5 * width**2 * square) / (square * cell.volume.unsqueeze(1))
    return Waves(triples, vectors, square, torch.where(used, factor, torch.zeros_like(factor)))


def _sum_waves(graph: Graph, charges: Tensor, fractions: Tensor, cell: Cell, waves: Waves, width: float) -> Lattice:
    phase = 2.0 * math.pi * fractions @ waves.triples.T
    cosine, sine = torch.cos(phase), torch.sin(phase)
    q, structure, s = charges.unsqueeze(1), graph.structure, graph.n_structures
    real, imaginary = sum_by(q * cosine, structure, s), sum_by(q * sine, structure, s)
    of_real = (waves.factor * real).index_select(0, structure)
    of_imaginary = (waves.factor * imaginary).index_select(0, structure)
    slope = (of_real * cosine + of_imaginary * sine).sum(1)
    turn = 2.0 * math.pi * q * ((of_imaginary * cosine - of_real * sine) @ waves.triples)
    inverse = cell.inverse.index_select(0, structure)
    positions = torch.bmm(inverse, turn.unsqueeze(2)).squeeze(2)
    power = 0.5 * waves.factor * (real * real + imaginary * imaginary)
    stretched = (power * (2.0 / waves.square + width**2)).unsqueeze(2) * waves.vectors
    outer = torch.bmm(stretched.transpose(1, 2), waves.vectors)
    identity = torch.eye(3, dtype=charges.dtype, device=charges.device)
    strain = outer - power.sum(1).reshape(-1, 1, 1) * identity
    return Lattice(0.5 * charges * slope, positions, strain, slope)
