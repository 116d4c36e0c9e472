"""From ASE's rows and atoms to raw frames: one place for databases, LMDB rows and trajectories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian

from forgefield.core.errors import DataError
from forgefield.data.raw_frame import RawFrame

RESULTS = ("energy", "free_energy", "stress", "dipole", "magmom")
ATOM_RESULTS = ("forces", "charges", "magmoms", "initial_charges", "initial_magmoms")
BOTH = ((3, 3), (6,), (9,))  # shapes that a tensor and a column of 3, 6 or 9 atoms share
REPAIR = "repair or remove this structure"


def frame_of_row(row: Mapping[str, Any], origin: str) -> RawFrame:
    """Return a row of an ASE database, decoded, as a raw frame.

    Args:
        row: numbers, positions, cell, pbc, tags, constraints, results by ASE's names, key_value_pairs, data.
        origin: file and row, for messages.

    Raises:
        DataError: a field has the wrong shape or kind.
    """
    numbers = field(row, "numbers", (-1,), origin, whole=True)
    positions = field(row, "positions", (-1, 3), origin)
    if numbers is None or positions is None:
        raise DataError("has no atomic numbers or no positions", origin, REPAIR)
    n = len(numbers)
    values, arrays = tables(row, n, origin)
    for part in ("key_value_pairs", "data"):
        _merge(values, arrays, row.get(part) or {}, part, n, origin)
    cell = field(row, "cell", (3, 3), origin)
    pbc = field(row, "pbc", (3,), origin)
    tags = field(row, "tags", (-1,), origin, whole=True)
    return RawFrame(
        numbers=numbers,
        positions=positions,
        cell=np.zeros((3, 3)) if cell is None else cell,
        pbc=np.zeros(3, dtype=bool) if pbc is None else pbc.astype(bool),
        values=values,
        arrays=arrays,
        origin=origin,
        fixed=fixed_of_json(row.get("constraints"), n, origin),
        tags=tags,
    )


def frame_of_atoms(atoms: Atoms, origin: str) -> RawFrame:
    """Return atoms that ASE read, with the results of their calculator, as a raw frame.

    Raises:
        DataError: a result has the wrong shape.
    """
    n = len(atoms)
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    values, arrays = tables(results, n, origin)
    info = {str(k): v for k, v in atoms.info.items()}
    _merge(values, arrays, info, "info", n, origin)
    columns = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions", "tags", "momenta", "masses")}
    _merge(values, arrays, columns, "arrays", n, origin)
    return RawFrame(
        numbers=atoms.numbers,
        positions=np.asarray(atoms.positions, dtype=np.float64),
        cell=np.asarray(atoms.cell, dtype=np.float64),
        pbc=np.asarray(atoms.pbc),
        values=values,
        arrays=arrays,
        origin=origin,
        fixed=fixed_of_atoms(atoms),
        tags=atoms.get_tags() if atoms.has("tags") else None,
    )


def tables(results: Mapping[str, Any], n: int, origin: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Sort ASE's results into values of the structure and arrays of its atoms.

    Raises:
        DataError: a result per atom does not have one row per atom.
    """
    values: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name in RESULTS:
        if results.get(name) is not None:
            values[name] = _plain(results[name])
    for name in ATOM_RESULTS:
        if results.get(name) is None:
            continue
        array = _numbers(results[name])
        if array is None or array.shape[:1] != (n,):
            shape = np.shape(results[name]) if array is None else array.shape
            raise DataError(f"{name} has shape {shape} for {n} atoms", origin, REPAIR)
        arrays[name] = array
    return values, arrays


def without_free_energy(raw: RawFrame) -> RawFrame:
    """Leave out ASE's free energy where the energy is there too: two energies would contradict each other."""
    if "free_energy" not in raw.values or "energy" not in raw.values:
        return raw
    return raw._replace(values={k: v for k, v in raw.values.items() if k != "free_energy"})


def field(
    row: Mapping[str, Any], name: str, shape: tuple[int, ...], origin: str, *, whole: bool = False
) -> np.ndarray | None:
    """Return a field as an array of numbers of this shape (-1: any count); None where there is none.

    Raises:
        DataError: it has another shape, or is not made of (whole) numbers.
    """
    value = row.get(name)
    if value is None:
        return None
    array = _numbers(value)
    if array is None:
        raise DataError(f"{name} is not made of numbers", origin, REPAIR)
    count = int(np.prod([k for k in shape if k > 0]))
    if array.size % count or (-1 not in shape and array.size != count):
        raise DataError(f"{name} has shape {array.shape}, expected {shape}".replace("-1", "N"), origin, REPAIR)
    if whole and not np.array_equal(array, np.round(array)):
        raise DataError(f"{name} are not whole numbers", origin, REPAIR)
    return array.astype(np.int64 if whole else np.float64).reshape(shape)


def fixed_of_json(constraints: Any, n: int, origin: str) -> np.ndarray | None:
    """Atoms that constraints in ASE's JSON hold fixed in all directions, (N,); None without constraints.

    Raises:
        DataError: they are damaged, or name an atom that is not there.
    """
    if isinstance(constraints, str):
        try:
            constraints = json.loads(constraints)
        except (ValueError, RecursionError):
            raise DataError("the constraints are damaged", origin, REPAIR) from None
    if not constraints:
        return None
    fixed = np.zeros(n, dtype=bool)
    try:
        for entry in constraints:
            held = _held(entry)
            fixed[held] = True
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise DataError("the constraints are damaged, or name an atom that is not there", origin, REPAIR) from None
    return fixed


def _held(entry: Mapping[str, Any]) -> np.ndarray:
    """Indices of atoms that one constraint holds fixed in all directions."""
    keywords = entry["kwargs"]
    if entry["name"] == "FixAtoms":
        return np.asarray(_list(keywords["indices"]), dtype=np.int64).reshape(-1)
    if entry["name"] == "FixCartesian" and np.all(_list(keywords["mask"])):
        return np.asarray(_list(keywords["a"]), dtype=np.int64).reshape(-1)
    return np.zeros(0, dtype=np.int64)


def _list(value: Any) -> Any:
    """Plain numbers of a list, or of an array in ASE's JSON."""
    return value["__ndarray__"][2] if isinstance(value, dict) else value


def fixed_of_atoms(atoms: Atoms) -> np.ndarray | None:
    """Atoms held fixed in all three directions, (N,); None without constraints."""
    if not atoms.constraints:
        return None
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms) or (isinstance(constraint, FixCartesian) and np.all(constraint.mask)):
            fixed[constraint.index] = True
    return fixed


def _merge(
    values: dict[str, Any],
    arrays: dict[str, np.ndarray],
    found: Any,
    part: str,
    n: int,
    origin: str,
) -> None:
    """Add names of the user's own; one that a result has already, with another value, is kept as `part.name`."""
    if not isinstance(found, Mapping):
        raise DataError(f"{part} is no mapping", origin, REPAIR)
    for name, value in found.items():
        plain = _plain(value)
        if plain is None:
            continue
        array = np.asarray(plain)
        per_atom = array.shape[:1] == (n,) and (array.ndim > 1 or n > 1)
        held = arrays.get(name) if name in arrays else values.get(name)
        if held is not None:
            if np.array_equal(np.asarray(held), array):
                continue
            name = f"{part}.{name}"
        if per_atom:
            arrays[name] = array
        if not per_atom or array.shape in BOTH:
            values[name] = plain


def _plain(value: Any) -> Any:
    """A number, text or array of numbers; None for all else."""
    if isinstance(value, (bool, int, float, str)):
        return value
    array = _numbers(value)
    if array is None:
        return None
    return array.reshape(()).item() if array.size == 1 and array.ndim < 2 else array


def _numbers(value: Any) -> np.ndarray | None:
    """An array of numbers or truth values; None if it is anything else."""
    if isinstance(value, (str, bytes, dict)):
        return None
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return array if array.dtype.kind in "biuf" else None
