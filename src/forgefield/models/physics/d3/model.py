"""D3(BJ): C6 coefficients from coordination numbers, damped pair energies, all gradients written."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from forgefield.core.units import BOHR, HARTREE
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import Geometry, PhysicsContext, PhysicsTerm, Share
from forgefield.models.blocks.pairwise import along, fade, halves, head_of_atoms
from forgefield.models.physics.d3.settings import D3Settings, damping_by_head
from forgefield.models.physics.d3.tables import references

COUNTING, GAUSSIAN = 16.0, 4.0  # k1 and k3 of the D3 paper


class Far(NamedTuple):
    """Far pairs in Bohr."""

    first: Tensor  # (F,)
    second: Tensor  # (F,)
    r: Tensor  # (F,)


class Weights(NamedTuple):
    """How much each atom is like each of its element's reference systems."""

    value: Tensor  # (N, R), adds up to 1
    slope: Tensor  # (N, R), by the coordination number


class D3(PhysicsTerm):
    """Dispersion energy of pairs with rational damping, without three-body term.

    Args:
        settings: functional or parameters, cutoffs.
        context: elements, heads and their factors.

    Source:
        Grimme, Antony, Ehrlich, Krieg, J. Chem. Phys. 132 (2010) 154104; Grimme, Ehrlich, Goerigk, J. Comput.
        Chem. 32 (2011) 1456.
    """

    def __init__(self, settings: D3Settings, context: PhysicsContext) -> None:
        super().__init__()
        self.settings = settings
        self.far_cutoff = max(settings.cutoff, settings.cn_cutoff)
        table = references(context.elements)
        damping = torch.tensor(damping_by_head(settings, context.heads), dtype=torch.float64)
        buffers = {
            "elements": torch.tensor(context.elements),
            "radii": table.radii,
            "r4r2": table.r4r2,
            "reference_numbers": table.numbers,
            "absent": ~table.there,
            "c6": table.c6,
            "damping": damping,
            "scale": torch.tensor(context.scale, dtype=torch.float64),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, geometry: Geometry, charges: Tensor | None = None) -> Share:
        """Half of each pair's energy at either atom, eV; gradients by the far pair vectors (F, 3), eV/Å."""
        graph, n = geometry.graph, geometry.graph.n_atoms
        far = Far(graph.far_first, graph.far_second, torch.linalg.vector_norm(geometry.far, dim=1) / BOHR)
        kind = torch.searchsorted(self.elements, graph.numbers)
        count, d_count = self._count(far, kind)
        numbers = sum_by(count, far.first, n) + sum_by(count, far.second, n)
        c6, d_first, d_second = self._c6(far, kind, self._weights(numbers, kind))
        head = head_of_atoms(graph).index_select(0, far.first)
        per_c6, slope = self._damped(far, kind, head)
        by_number = sum_by(per_c6 * d_first, far.first, n) + sum_by(per_c6 * d_second, far.second, n)
        chain = by_number.index_select(0, far.first) + by_number.index_select(0, far.second)
        slope = c6 * slope + chain * d_count
        atoms = halves(c6 * per_c6, far.first, far.second, n)
        return Share(HARTREE * atoms, far=along(HARTREE / BOHR * slope, BOHR * far.r, geometry.far))

    def _count(self, far: Far, kind: Tensor) -> tuple[Tensor, Tensor]:
        """What a pair adds to the coordination number of either atom, and its derivative by the distance, (F,)."""
        radii = self.radii.index_select(0, kind)
        bond = radii.index_select(0, far.first) + radii.index_select(0, far.second)
        count = torch.sigmoid(COUNTING * (bond / far.r - 1.0))
        slope = -COUNTING * bond / far.r**2 * count * (1.0 - count)
        step, d_step = fade(far.r, self.settings.cn_cutoff / BOHR, self.settings.cn_cutoff_width / BOHR)
        return count * step, slope * step + count * d_step

    def _weights(self, numbers: Tensor, kind: Tensor) -> Weights:
        """Gaussians of the distance to the references' coordination numbers, normalised."""
        away = numbers.unsqueeze(1) - self.reference_numbers.index_select(0, kind)
        exponent = (-GAUSSIAN * away * away).masked_fill(self.absent.index_select(0, kind), -torch.inf)
        value = torch.softmax(exponent, dim=1)
        pull = -2.0 * GAUSSIAN * away
        return Weights(value, value * (pull - (value * pull).sum(1, keepdim=True)))

    def _c6(self, far: Far, kind: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
        """C6 of each pair and its derivatives by both coordination numbers, each (F,)."""
        n_kinds, n_references = self.c6.shape[0], self.c6.shape[2]
        table = self.c6.transpose(1, 2).reshape(n_kinds, n_references, -1)
        met = d_met = self.c6.new_zeros(())  # (N, Z R), what an atom is to each reference system of each element
        for k in range(n_references):
            rows = table[:, k].index_select(0, kind)
            met, d_met = met + weights.value[:, k, None] * rows, d_met + weights.slope[:, k, None] * rows
        met, d_met = met.reshape(-1, n_references), d_met.reshape(-1, n_references)
        row = far.first * n_kinds + kind.index_select(0, far.second)
        met, d_met = met.index_select(0, row), d_met.index_select(0, row)
        value, slope = weights.value.index_select(0, far.second), weights.slope.index_select(0, far.second)
        return (met * value).sum(1), (d_met * value).sum(1), (met * slope).sum(1)

    def _damped(self, far: Far, kind: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
        """Energy of each pair over its C6, times the factor of its head, and its derivative by the distance, (F,)."""
        s6, s8, a1, a2 = self.damping.index_select(0, head).unbind(1)
        r4r2 = self.r4r2.index_select(0, kind)
        ratio = 3.0 * r4r2.index_select(0, far.first) * r4r2.index_select(0, far.second)
        radius = a1 * torch.sqrt(ratio) + a2
        r2, b2 = far.r * far.r, radius * radius
        t6 = 1.0 / (r2**3 + b2**3)
        t8 = 1.0 / (r2**4 + b2**4)
        value = -(s6 * t6 + s8 * ratio * t8)
        slope = far.r**5 * (6.0 * s6 * t6 * t6 + 8.0 * s8 * ratio * r2 * t8 * t8)
        step, d_step = fade(far.r, self.settings.cutoff / BOHR, self.settings.cutoff_width / BOHR)
        scale = self.scale.index_select(0, head)
        return scale * value * step, scale * (slope * step + value * d_step)
