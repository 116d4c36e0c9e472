"""Does a model obey the laws that every conservative potential must?"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.export.prediction import predict, predict_graph, self_energies
from forgefield.export.probes import inputs_among
from forgefield.graph.build import build_graph
from forgefield.graph.graph import Graph
from forgefield.models.potential import Potential

STEPS = (1e-3, 1e-4, 1e-5)  # Å, of the finite differences; shorter ones where a model is too curved for longer
STENCIL = ((-2.0, 1.0 / 12.0), (-1.0, -2.0 / 3.0), (1.0, 2.0 / 3.0), (2.0, -1.0 / 12.0))
MANY_ATOMS = 4000  # structures of a finite-difference batch hold at most so many atoms together


class _Move(NamedTuple):
    """Displacement of the atoms, (N, 3), Å, and the deformation that follows, (3, 3)."""

    shift: np.ndarray
    stretch: np.ndarray


@dataclass(frozen=True)
class PhysicsReport:
    """How well the model obeys what every conservative potential must, in float64.

    Args:
        n_structures: structures tried.
        forces_finite_difference: largest |F + dE/dx| of the components tried, over max(1 eV/Å, largest force).
        stress_finite_difference: |stress - dE/dstrain / V| over max(0.01 eV/Å^3, largest stress); None if no structure
            is periodic.
        rotation_energy: largest change of the energy per atom on rotation, over max(1 eV, largest atom energy
            without the self-atomic part).
        rotation_forces: largest deviation from the rotated forces, over max(1 eV/Å, largest force).
        tolerance: largest value allowed for each of these.
        rotation_further: largest deviation of other predictions from the rotated ones, over max(1, largest); None
            without others.
    """

    n_structures: int
    forces_finite_difference: float
    stress_finite_difference: float | None
    rotation_energy: float
    rotation_forces: float
    tolerance: float
    rotation_further: float | None = None

    def to_json(self) -> dict[str, object]:
        """Return plain numbers."""
        return asdict(self)


def check_physics(
    potential: Potential, structures: Sequence[Structure], *, tolerance: float = 1e-5, seed: int = 0
) -> PhysicsReport:
    """Check forces and stress against finite differences, and rotation, on a few structures in float64.

    Args:
        potential: the model; one in lower precision is copied and widened first.
        structures: a few small ones.
        tolerance: largest value allowed for each number of the report.
        seed: of the components and the rotation that are tried.

    Raises:
        ModelError: the model breaks one of the laws.
    """
    if not structures:
        raise ModelError("no structure to check the physics on", fix="give at least one sample structure")
    wide = potential if potential.dtype == torch.float64 else copy.deepcopy(potential).double()
    random = np.random.default_rng(seed)
    worst: dict[str, float] = {}
    for structure in structures:
        for law, error in _law_errors(wide, structure, random, tolerance).items():
            if not error <= tolerance:
                raise ModelError(
                    f"{law.replace('_', ' ')} is off by {error:.3g}, {tolerance:.3g} is allowed",
                    structure.origin,
                    "do not use this model; please report its settings",
                )
            worst[law] = max(worst.get(law, 0.0), float(error))
    stress, further = (worst.pop(name, None) for name in ("stress_finite_difference", "rotation_further"))
    optional = {"stress_finite_difference": stress, "rotation_further": further}
    return PhysicsReport(len(structures), tolerance=tolerance, **worst, **optional)


def _law_errors(
    potential: Potential, structure: Structure, random: np.random.Generator, tolerance: float
) -> dict[str, float]:
    """The numbers of the report for one structure."""
    (here,) = predict(potential, [structure])
    scale = max(1.0, float(np.abs(here.forces).max()))
    energy_scale = max(1.0, float(np.abs(here.atom_energies - self_energies(potential, structure)).max()))
    energy_change, forces_change, further = _rotation_errors(potential, structure, random)
    found = {
        "forces_finite_difference": 0.0,
        "rotation_energy": energy_change / energy_scale,
        "rotation_forces": forces_change / scale,
        **({} if further is None else {"rotation_further": further}),
    }
    if not potential.context.energy:
        return found
    for component in {int(np.abs(here.forces).argmax()), *random.integers(here.forces.size, size=3).tolist()}:
        direction = np.zeros_like(here.forces)
        direction.flat[component] = 1.0
        error = _slope_error(potential, structure, -here.forces.flat[component], scale * tolerance, shift=direction)
        found["forces_finite_difference"] = max(found["forces_finite_difference"], error / scale)
    if structure.pbc.all():
        stress_scale = max(0.01, float(np.abs(here.stress).max())) * structure.volume
        any_strain = random.normal(size=(3, 3))
        found["stress_finite_difference"] = 0.0
        for strain in (here.stress, any_strain + any_strain.T):  # along the stress itself, and any other
            strain = strain / max(float(np.linalg.norm(strain)), 1e-12)
            expected = float((here.stress * strain).sum()) * structure.volume
            error = _slope_error(potential, structure, expected, stress_scale * tolerance, strain=strain)
            found["stress_finite_difference"] = max(found["stress_finite_difference"], error / stress_scale)
    return found


def _slope_error(
    potential: Potential,
    structure: Structure,
    expected: float,
    enough: float,
    *,
    shift: np.ndarray | None = None,
    strain: np.ndarray | None = None,
) -> float:
    """Deviation of an expected slope of the energy from finite differences, at the step that suits best.

    Args:
        potential: the model.
        structure: where the slope is taken.
        expected: slope, eV per unit of the displacement.
        enough: deviation at which no shorter step is tried.
        shift: displacement of the atoms, (N, 3), Å.
        strain: symmetric strain of atoms and cell, (3, 3).
    """
    errors: list[float] = []
    shift = np.zeros_like(structure.positions) if shift is None else shift
    strain = np.zeros((3, 3)) if strain is None else strain
    for step in STEPS:
        moves = [_Move(step * k * shift, np.eye(3) + step * k * strain) for k, _ in STENCIL]
        errors.append(abs(_difference(_energies(potential, structure, moves)) / step - expected))
        if errors[-1] <= enough:
            break
    return min(errors)


def _energies(potential: Potential, structure: Structure, moves: Sequence[_Move]) -> list[float]:
    """Energies of a structure after each move, eV.

    Where they jump as neighbours come and go, the neighbours stay those of the structure: in a crystal many are equally
    far, so that any strain would change which are the nearest. Forces and stress are the slopes between the jumps.
    """
    if potential.needs.smooth:
        moved = [
            _copy(structure, (structure.positions + m.shift) @ m.stretch, structure.cell @ m.stretch) for m in moves
        ]
        together = sum(len(s) for s in moved) <= MANY_ATOMS
        batches = [list(moved)] if together else [[s] for s in moved]
        return [p.energy for batch in batches for p in predict(potential, batch)]
    weight = next(potential.parameters())
    graph = build_graph([structure], potential.needs, heads=potential.heads, dtype=weight.dtype, device=weight.device)
    return [predict_graph(potential, _moved(graph, move), [structure])[0].energy for move in moves]


def _moved(graph: Graph, move: _Move) -> Graph:
    """The same neighbours at other places."""
    shift, stretch = (torch.from_numpy(array).to(graph.positions) for array in move)
    return graph._replace(
        positions=(graph.positions + shift.index_select(0, graph.order)) @ stretch,
        pair_shift=graph.pair_shift @ stretch,
        far_shift=graph.far_shift @ stretch,
        cell=(graph.cell.double() @ stretch).to(graph.cell.dtype),
    )


def _difference(energies: Sequence[float]) -> float:
    """First derivative of the energy times the step, from its values on the stencil (fourth order)."""
    middle = float(np.mean(energies))
    return sum(c * (e - middle) for (_, c), e in zip(STENCIL, energies, strict=True))


def _rotation_errors(
    potential: Potential, structure: Structure, random: np.random.Generator
) -> tuple[float, float, float | None]:
    """Change of energy per atom, of the forces and of other predictions, turned back, under a random rotation."""
    q, _ = np.linalg.qr(random.normal(size=(3, 3)))
    q *= np.sign(np.linalg.det(q))
    turned = _copy(structure, structure.positions @ q.T, structure.cell @ q.T)
    here, there = (predict(potential, [s])[0] for s in (structure, turned))
    energy = abs(here.energy - there.energy) / len(structure)
    further = None
    for name, quantity in potential.targets.quantities.items():
        value, turn = here.extra[name], {"not": 0, "vector": 1, "tensor": 2}[quantity.rotates]
        expected = value if turn == 0 else value @ q.T if turn == 1 else q @ value @ q.T
        error = np.abs(expected - there.extra[name]).max() / max(1.0, np.abs(value).max())
        further = max(further or 0.0, float(error))
    return energy, float(np.abs(here.forces @ q.T - there.forces).max()), further


def _copy(structure: Structure, positions: np.ndarray, cell: np.ndarray | None = None) -> Structure:
    cell = structure.cell if cell is None else cell
    labels = inputs_among(structure.labels)
    return dataclasses.replace(structure, positions=positions, cell=cell, labels=labels, base={})
