"""Errors of predictions: over everything, and by element, component, config_type and head."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from forgefield.core.elements import symbol
from forgefield.train.classes import of_classes
from forgefield.train.table import Table

Errors = dict[str, float | int | None]
Metrics = dict[str, Errors | dict[str, Errors]]

_AXES = ("x", "y", "z")
_STRESS_AXES = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}


def measure_errors(table: Table, groups: Mapping[str, np.ndarray] | None = None) -> Metrics:
    """Compute the errors of a table.

    Args:
        table: predictions and labels.
        groups: further divisions: a name such as `config_type` and the group of each structure, (S,) of str.

    Returns:
        `all`, `by_element`, `by_component` and one `by_<name>` for each of `groups`. Units: eV, eV per atom, eV/Å,
        eV/Å^3, further quantities in their own. A number for which there is no label is None.
    """
    everything = np.ones(len(table.index), dtype=bool)
    found: Metrics = {
        "all": _errors(table, everything),
        "by_element": _by_element(table),
        "by_component": _by_component(table),
    }
    for name, of_structure in (groups or {}).items():
        found[f"by_{name}"] = {str(g): _errors(table, of_structure == g) for g in sorted(set(of_structure.tolist()))}
    return found


def _errors(table: Table, chosen: np.ndarray) -> Errors:
    """All errors of the chosen structures, (S,) bool."""
    atoms = np.repeat(chosen, table.n_atoms)
    with_energy, with_stress = chosen & table.has_energy, chosen & table.has_stress
    with_forces = atoms & table.has_forces
    energy = (table.energy - table.energy_label)[with_energy]
    per_atom = energy / table.n_atoms[with_energy]
    force_errors = _force_errors(table, with_forces)
    stress = (table.stress - table.stress_label)[with_stress]
    return {
        "n_structures": int(chosen.sum()),
        "n_atoms": int(atoms.sum()),
        "n_energy": int(with_energy.sum()),
        "n_forces": int(with_forces.sum()),
        "n_stress": int(with_stress.sum()),
        "energy_mae": _mae(energy),
        "energy_rmse": _rms(energy),
        "energy_mae_per_atom": _mae(per_atom),
        "energy_rmse_per_atom": _rms(per_atom),
        **force_errors,
        "stress_mae": _mae(stress),
        "stress_rmse": _rms(stress),
        **_further_errors(table, chosen, atoms),
    }


def _further_errors(table: Table, structures: np.ndarray, atoms: np.ndarray) -> Errors:
    """Errors per component of the other quantities, of the chosen structures, (S,) bool, and their atoms, (N,) bool."""
    found: Errors = {}
    for name, (value, label, present, per, kind) in table.further.items():
        rows = present & (atoms if per == "atom" else structures)
        difference = (value - label)[rows]
        if kind == "class":
            found |= {f"{name}_{word}": number for word, number in of_classes(value[rows], label[rows]).items()}
        found |= {f"n_{name}": int(rows.sum()), f"{name}_mae": _mae(difference), f"{name}_rmse": _rms(difference)}
    return found


def _force_errors(table: Table, atoms: np.ndarray) -> Errors:
    """Force errors per component of the chosen atoms, (N,) bool, and the size of their labels."""
    difference = (table.forces - table.forces_label)[atoms]
    return {
        "forces_mae": _mae(difference),
        "forces_rmse": _rms(difference),
        "forces_max": float(np.abs(difference).max()) if difference.size else None,
        "forces_rms_label": _rms(table.forces_label[atoms]),
    }


def _by_element(table: Table) -> dict[str, Errors]:
    found: dict[str, Errors] = {}
    for number in np.unique(table.numbers).tolist():
        atoms = table.numbers == number
        errors = _force_errors(table, atoms & table.has_forces)
        none = np.zeros(len(table.index), dtype=bool)
        of_atoms = table._replace(further={n: part for n, part in table.further.items() if part.per == "atom"})
        found[symbol(number)] = {"n_atoms": int(atoms.sum()), **errors, **_further_errors(of_atoms, none, atoms)}
    return found


def _by_component(table: Table) -> dict[str, Errors]:
    difference = (table.forces - table.forces_label)[table.has_forces]
    labels = table.forces_label[table.has_forces]
    found: dict[str, Errors] = {
        axis: {
            "forces_mae": _mae(difference[:, k]),
            "forces_rmse": _rms(difference[:, k]),
            "forces_rms_label": _rms(labels[:, k]),
        }
        for k, axis in enumerate(_AXES)
    }
    stress = (table.stress - table.stress_label)[table.has_stress]
    if len(stress):
        for axis, (i, j) in _STRESS_AXES.items():
            found[axis] = {"stress_mae": _mae(stress[:, i, j]), "stress_rmse": _rms(stress[:, i, j])}
    return found


def _mae(values: np.ndarray) -> float | None:
    return float(np.abs(values).mean()) if values.size else None


def _rms(values: np.ndarray) -> float | None:
    return float(np.sqrt(np.square(values).mean())) if values.size else None
