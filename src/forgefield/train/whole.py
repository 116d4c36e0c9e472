"""Delta-learning: predictions of a correction and its base, put together; and the base judged alone."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.quantities import QUANTITIES
from forgefield.train.metrics import Errors, measure_errors
from forgefield.train.table import Further, Table

if TYPE_CHECKING:
    from torch import Tensor

    from forgefield.core.structure import Structure
    from forgefield.models.potential import Potential

MOMENTS = ("dipole", "quadrupole")


def put_together(table: Table, structures: Sequence[Structure], potential: Potential) -> tuple[Table, Errors]:
    """Return predictions and labels of the whole, and the errors of the base alone.

    Raises:
        DataError: a structure has no base energy.
    """
    assert potential.baseline is not None
    learned = potential.baseline.learned
    if "charges" in learned:  # moments that follow from charges are differences too
        unknown = {n: _unknown(part) for n, part in table.further.items() if n in MOMENTS and n not in learned}
        table = table._replace(further=MappingProxyType({**table.further, **unknown}))
    alone = measure_errors(base_alone(table, structures, learned, potential))["all"]
    return with_base(table, structures, learned), cast("Errors", alone)


def lacks_base_forces(structures: Sequence[Structure]) -> bool:
    """Say whether forces of the whole cannot be told for some structures."""
    return any("forces" not in s.base for s in structures)


def with_base(table: Table, structures: Sequence[Structure], learned: Sequence[str]) -> Table:
    """Return predictions and labels of the whole: base + correction.

    Args:
        table: predictions and labels of the correction.
        structures: in the order of the table, with base labels; NaN where one is not known.
        learned: quantities that were learned as differences.

    Raises:
        DataError: a structure has no base energy.
    """
    for s in structures:
        if "energy" not in s.base:
            fix = "name it: data.base: {energy: KEY}; or ask for the correction alone: eval.correction_alone: true"
            raise DataError("has no base label energy, to which the model gives the correction", s.origin, fix)
    energy, forces, stress = (_base(structures, name) for name in ("energy", "forces", "stress"))
    return table._replace(
        energy=table.energy + energy,
        energy_label=_label(table.energy_label, energy, table.has_energy),
        forces=table.forces + forces,
        forces_label=_label(table.forces_label, forces, table.has_forces),
        stress=table.stress + stress,
        stress_label=_label(table.stress_label, stress, table.has_stress),
        further=_further(table, structures, learned),
    )


def base_alone(table: Table, structures: Sequence[Structure], learned: Sequence[str], potential: Potential) -> Table:
    """Return what the base says without the correction, beside the labels of the whole.

    Its energies get the reference energies and the shift of the model, without which levels of theory that count
    energies from different zeros could not be compared.
    """
    offsets = np.array([_reference(potential, s) for s in structures])
    known = {*learned, "virial"}
    zeros = {n: part._replace(value=0.0 * part.value) for n, part in table.further.items() if n in known}
    empty = table._replace(
        energy=offsets, forces=0.0 * table.forces, stress=0.0 * table.stress, further=MappingProxyType(zeros)
    )
    return with_base(empty, structures, learned)


def _further(table: Table, structures: Sequence[Structure], learned: Sequence[str]) -> MappingProxyType[str, Further]:
    found: dict[str, Further] = {}
    for name, part in table.further.items():
        if name == "virial":
            base = np.stack([-s.volume * _one(s, "stress").reshape(-1) for s in structures])
        elif name in learned:
            values = [_one(s, name) for s in structures]
            base = np.concatenate([v.reshape(len(v) if part.per == "atom" else 1, -1) for v in values])
        else:
            found[name] = part
            continue
        found[name] = part._replace(value=part.value + base, label=_label(part.label, base, part.present))
    return MappingProxyType(found)


def _base(structures: Sequence[Structure], name: str) -> np.ndarray:
    values = [_one(s, name) for s in structures]
    return np.concatenate(values) if QUANTITIES[name].per == "atom" else np.stack(values)


def _one(structure: Structure, name: str) -> np.ndarray:
    """A base label of one structure; NaN where it is not known, 0 for the stress of what has none."""
    if name in structure.base:
        return np.asarray(structure.base[name], dtype=np.float64)
    quantity = QUANTITIES[name]
    empty = 0.0 if name == "stress" and not structure.pbc.all() else np.nan
    rows = () if quantity.per == "structure" else (len(structure),)
    return np.full((*rows, *quantity.shape), empty)


def _label(label: np.ndarray, base: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Add the base where there is a label."""
    chosen = present.reshape(-1, *[1] * (label.ndim - 1))
    return np.where(chosen, label + base, label)


def _unknown(part: Further) -> Further:
    return part._replace(value=np.full_like(part.value, np.nan), present=np.zeros_like(part.present))


def _reference(potential: Potential, structure: Structure) -> float:
    """Reference energies and shifts of the atoms of a structure, eV."""
    head = potential.heads.index(structure.level) if structure.level in potential.heads else 0
    places = np.searchsorted(potential.elements, structure.numbers)
    energies, shift = cast("Tensor", potential.self_energies)[head], cast("Tensor", potential.shift)[head]
    return float(energies.cpu().numpy()[places].sum()) + len(structure) * float(shift)
