"""Predictions beside energy, forces and stress, as they are written down: charges, dipoles, a model's own targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from forgefield.core.quantities import DERIVED, QUANTITIES
from forgefield.core.structure import Structure
from forgefield.models.potential import Potential
from forgefield.train.evaluate import Prediction

STANDARD = ("energy", "forces", "stress")
OF_ASE = ("charges", "dipole")  # results that ASE knows by the same names


def units_of(potential: Potential) -> dict[str, str]:
    """Return the unit of each quantity that a model predicts beside energy, forces and stress, and of the virial."""
    return {name: q.unit for name, q in {**DERIVED, **potential.architecture.extra_quantities()}.items()}


def names_in(errors: Mapping[str, Any]) -> list[str]:
    """Return the further quantities that a block of errors has numbers of."""
    ends = [
        name.removesuffix("_rmse") for name, value in errors.items() if name.endswith("_rmse") and value is not None
    ]
    return [name for name in ends if name not in STANDARD]


def unit_of(name: str, units: Mapping[str, str] | None = None) -> str:
    """Return the unit of a quantity: as written beside the errors, or that of the table; empty if it is not known."""
    known = {**QUANTITIES, **DERIVED}
    return (units or {}).get(name) or (known[name].unit if name in known else "")


def cells_of(p: Prediction, s: Structure) -> dict[str, float]:
    """Return the columns of one structure: its own values, and errors of those of its atoms where they are labelled."""
    found: dict[str, float] = {}
    for name, value in p.further.items():
        label = s.labels.get(name)
        if value.ndim == 1:  # of the structure
            found |= _components(name, value)
            found |= {} if label is None else _components(f"{name}_label", label.reshape(-1))
        elif label is not None:
            found[f"{name}_rmse"] = float(np.sqrt(np.square(value - label.reshape(value.shape)).mean()))
    return found


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the columns that any row has, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _components(name: str, values: np.ndarray) -> dict[str, float]:
    if len(values) == 1:
        return {name: float(values[0])}
    ends = "xyz" if len(values) == 3 else range(len(values))
    return {f"{name}_{end}": float(value) for end, value in zip(ends, values, strict=True)}


def of_atoms(p: Prediction) -> tuple[list[str], np.ndarray]:
    """Return the columns of a table of atoms: names and values, (n, C)."""
    parts = {name: value for name, value in p.further.items() if value.ndim == 2}
    names = [column for name, value in parts.items() for column in _components(name, value[0])]
    values: Sequence[np.ndarray] = [value for value in parts.values()]
    return names, np.concatenate(values, 1) if values else np.zeros((0, 0))


def in_ase(p: Prediction, s: Structure) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return results, entries of `info` and `arrays` of a frame; labels bear `ref_` before their names."""
    results: dict[str, Any] = {}
    info: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for name, value in p.further.items():
        place = info if value.ndim == 1 else arrays
        plain = value[..., 0] if value.shape[-1] == 1 else value
        (results if name in OF_ASE else place)[name] = plain
        if name in s.labels:
            place[f"ref_{name}"] = s.labels[name].reshape(plain.shape)
    return results, info, arrays
