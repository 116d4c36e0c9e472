"""Ewald's sum over reciprocal space, for a batch of cells, with written gradients.

The number of waves follows from the cell. So `wave_sums`, and what it calls, is compiled by `torch.jit.script` where a
model is recorded for TorchScript: plain tensor operations, typed.
"""

# `from __future__ import annotations` is left out: TorchScript reads the annotations themselves.
import functools
import math
from typing import Any

import torch
from torch import Tensor

from forgefield.graph.graph import Graph
from forgefield.models.physics.coulomb.lattice import Cell, Lattice

LARGEST = 2**24
"""Phases held at once where no gradients of weights are asked for."""


def reciprocal_sum(graph: Graph, charges: Tensor, cell: Cell, width: float, longest: float) -> Lattice:
    """Energy of Gaussian charges (N,) of a width (Å) in all cells, from waves up to `longest` (1/Å).

    Source:
        Ewald, Ann. Phys. 369 (1921) 253; stress as in Nosé, Klein, Mol. Phys. 50 (1983) 1055.
    """
    inverse = cell.inverse.to(graph.positions.dtype).index_select(0, graph.structure)
    fractions = torch.bmm(graph.positions.unsqueeze(1), inverse).squeeze(1)
    fractions = (fractions - torch.floor(fractions)).to(charges.dtype)
    given = (fractions, charges, graph.structure, cell.inverse, cell.volume)
    if torch.jit.is_tracing():
        found = _scripted()(*given, graph.cell, width, longest, LARGEST)
    else:
        waves = (*given, _all_triples(graph.cell, longest), width, longest)
        recorded = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        found = of_waves(*waves) if recorded or charges.requires_grad else in_parts(*waves, LARGEST)
    slope, positions, strain = found
    return Lattice(0.5 * charges * slope, positions, strain, slope)


@functools.cache
def _scripted() -> Any:
    return torch.jit.script(wave_sums)


def wave_sums(
    fractions: Tensor, charges: Tensor, structure: Tensor, inverse: Tensor, volume: Tensor, cell: Tensor,
    width: float, longest: float, largest: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """All waves of all cells; see `of_waves` and `triples_of`."""
    return in_parts(fractions, charges, structure, inverse, volume, triples_of(cell, longest), width, longest, largest)


def in_parts(
    fractions: Tensor, charges: Tensor, structure: Tensor, inverse: Tensor, volume: Tensor, triples: Tensor,
    width: float, longest: float, largest: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Some waves after the others, so that at most `largest` phases are held at once; see `of_waves`."""
    step = max(1, largest // max(charges.size(0), 1))
    slope, positions = torch.zeros_like(charges), torch.zeros_like(fractions)
    strain = torch.zeros_like(inverse)
    for begin in range(0, triples.size(0), step):
        part = triples[begin : begin + step]
        a, b, c = of_waves(fractions, charges, structure, inverse, volume, part, width, longest)
        slope, positions, strain = slope + a, positions + b, strain + c
    return slope, positions, strain


def of_waves(
    fractions: Tensor, charges: Tensor, structure: Tensor, inverse: Tensor, volume: Tensor, triples: Tensor,
    width: float, longest: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What some waves give.

    Args:
        fractions: positions in units of the lattice vectors, (N, 3).
        charges: (N,), e.
        structure: index of each atom's cell, (N,).
        inverse: of the cells, (S, 3, 3), 1/Å.
        volume: (S,), Å^3.
        triples: the waves, as multiples of the reciprocal vectors, (K, 3), the same for all cells.
        width: of the Gaussian charges, Å.
        longest: of the waves that count, 1/Å.

    Returns:
        Derivatives of the energy by charges (N,), positions (N, 3) and a strain (S, 3, 3), over the Coulomb constant.
    """
    circle = 2.0 * math.pi
    vectors = circle * torch.matmul(triples, inverse.transpose(1, 2))
    square = vectors.square().sum(2)
    used = (square > 0) & (square <= longest * longest)
    square = torch.where(used, square, torch.ones_like(square))
    twice = 1.0 + (triples[:, 0] > 0).to(square.dtype)  # where -k is not listed
    factor = 2.0 * circle * twice * torch.exp(-0.5 * width * width * square) / (square * volume.unsqueeze(1))
    factor = torch.where(used, factor, torch.zeros_like(factor))
    phase = circle * fractions @ triples.t()
    cosine, sine = torch.cos(phase), torch.sin(phase)
    q, empty = charges.unsqueeze(1), torch.zeros_like(factor)
    real, imaginary = empty.index_add(0, structure, q * cosine), empty.index_add(0, structure, q * sine)
    of_real = (factor * real).index_select(0, structure)
    of_imaginary = (factor * imaginary).index_select(0, structure)
    slope = (of_real * cosine + of_imaginary * sine).sum(1)
    turn = circle * q * ((of_imaginary * cosine - of_real * sine) @ triples)
    positions = torch.bmm(inverse.index_select(0, structure), turn.unsqueeze(2)).squeeze(2)
    power = 0.5 * factor * (real * real + imaginary * imaginary)
    stretched = (power * (2.0 / square + width * width)).unsqueeze(2) * vectors
    pressure = torch.diag_embed(power.sum(1, keepdim=True).expand(-1, 3))
    strain = torch.bmm(stretched.transpose(1, 2), vectors) - pressure
    return slope, positions, strain


def triples_of(cell: Tensor, longest: float) -> Tensor:
    """Multiples of the reciprocal vectors that cover all waves up to `longest` in every cell, (K, 3), first >= 0."""
    lengths = torch.linalg.vector_norm(cell, dim=2).amax(0)
    ends: list[int] = torch.floor(lengths * (longest / (2.0 * math.pi))).to(torch.long).clamp(min=1).tolist()
    a, b, c = ends[0], ends[1], ends[2]
    if not torch.jit.is_scripting():  # what `torch.export` is to know of numbers that follow from values
        for end in (a, b, c):
            torch._check(end >= 1)
    place = cell.device
    axes = [
        torch.arange(a + 1, device=place),
        torch.arange(2 * b + 1, device=place) - b,
        torch.arange(2 * c + 1, device=place) - c,
    ]
    return torch.stack(torch.meshgrid(axes, indexing="ij"), -1).reshape(-1, 3).to(cell.dtype)


def _all_triples(cell: Tensor, longest: float) -> Tensor:
    if torch.compiler.is_exporting():  # a file holds PyTorch's own operations alone
        return triples_of(cell, longest)
    return torch.ops.forgefield.ewald_triples(cell, longest)


@torch.library.custom_op("forgefield::ewald_triples", mutates_args=(), schema="(Tensor cell, float longest) -> Tensor")
def _triples(cell: Tensor, longest: float) -> Tensor:
    """`triples_of` as an operator: its size follows from values; compilers are told that it can be any."""
    return triples_of(cell, longest)


@_triples.register_fake
def _(cell: Tensor, longest: float) -> Tensor:
    return cell.new_empty(torch.library.get_ctx().new_dynamic_size(min=2), 3)
