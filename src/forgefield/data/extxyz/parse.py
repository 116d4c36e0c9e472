"""The text of one frame, parsed by ASE; plain tables are parsed here, with the same result."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.calculators.calculator import all_properties
from ase.data import atomic_numbers
from ase.io.extxyz import REV_PROPERTY_NAME_MAP, key_val_str_to_dict, read_xyz

from forgefield.core.errors import DataError
from forgefield.data.ase_frames import fixed_of_atoms
from forgefield.data.raw_frame import RawFrame

_USED = ("Lattice", "Properties", "pbc")
_BEGIN = "species:S:1:pos:R:3"
_LEFT_TO_ASE = {
    *REV_PROPERTY_NAME_MAP, *REV_PROPERTY_NAME_MAP.values(), *all_properties, "move_mask", "tags", "id", "energy",
} - {"forces", "force"}  # fmt: skip
"""Columns with a meaning of their own."""


def parse_frame(lines: Sequence[str], count: int, origin: str) -> RawFrame:
    """Return a frame as its text has it.

    Args:
        lines: count, comment, atoms, and VEC lines where there are any.
        count: atoms.
        origin: file and frame, for messages.

    Raises:
        DataError: it cannot be read.
    """
    if len(lines) == count + 2:
        plain = parse_plain(lines, origin)
        if plain is not None:
            return plain
    return parse_by_ase(lines, origin)


def parse_plain(lines: Sequence[str], origin: str) -> RawFrame | None:
    """Return a frame of symbols, positions and columns of real numbers; None leaves it to ASE, with all messages."""
    try:
        values: dict[str, Any] = key_val_str_to_dict(lines[1].strip())
        columns = _real_columns(values.get("Properties"), values)
        if columns is None or not _plain_cell(values):
            return None
        width = 4 + sum(n for _, n in columns)
        words = " ".join(lines[2:]).split()
        symbols = words[::width]
        del words[::width]
        numbers = np.array([atomic_numbers[s.capitalize()] for s in symbols])
        table = np.array([float(w) for w in words]).reshape(len(numbers), width - 1)
    except (KeyError, ValueError, TypeError, IndexError):
        return None
    arrays: dict[str, np.ndarray] = {}
    at = 3
    for name, n in columns:
        arrays[name] = table[:, at : at + n].copy() if n > 1 else table[:, at].copy()
        at += n
    cell = values["Lattice"].T if "Lattice" in values else np.zeros((3, 3))
    pbc = values.get("pbc", ["Lattice" in values] * 3)
    for used in _USED:
        values.pop(used, None)
    return RawFrame(
        numbers, table[:, :3].copy(), np.array(cell, dtype=float), np.array(pbc, dtype=bool), values, arrays, origin
    )


def _real_columns(properties: Any, values: dict[str, Any]) -> list[tuple[str, int]] | None:
    if not isinstance(properties, str) or not properties.startswith(_BEGIN):
        return None
    words = properties[len(_BEGIN) :].split(":")[1:]
    names, kinds, widths = words[::3], words[1::3], words[2::3]
    if len(words) % 3 or any(kind != "R" for kind in kinds) or len(set(names)) < len(names):
        return None
    if any(name in _LEFT_TO_ASE or name in values for name in names):
        return None
    columns = [(name, int(n)) for name, n in zip(names, widths, strict=True)]
    return None if any(n < 1 for _, n in columns) else columns


def _plain_cell(values: dict[str, Any]) -> bool:
    pbc = values.get("pbc", [True] * 3)
    lattice = values.get("Lattice", np.zeros((3, 3)))
    return np.shape(lattice) == (3, 3) and isinstance(pbc, list) and len(pbc) == 3


def parse_by_ase(lines: Sequence[str], origin: str) -> RawFrame:
    """Return any frame.

    Raises:
        DataError: it cannot be read.
    """
    values: dict[str, Any] = {}

    def remember(comment: str) -> dict[str, Any]:
        parsed = key_val_str_to_dict(comment)
        values.update(parsed)
        return parsed

    try:
        text = io.StringIO("\n".join(lines) + "\n")
        atoms = next(iter(read_xyz(text, 0, properties_parser=remember)))
    except KeyError as error:
        raise DataError(f"{error} is no element", origin, "repair the symbols of this frame") from None
    except (OSError, ValueError, TypeError, IndexError, AssertionError, AttributeError) as error:
        raise DataError(f"cannot be read ({error})", origin, "repair or remove this frame") from None
    for used in _USED:
        values.pop(used, None)
    results = atoms.calc.results if atoms.calc is not None else {}
    columns = {k: np.asarray(v) for k, v in results.items() if np.shape(v)[:1] == (len(atoms),) and k not in values}
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions", "tags")}
    return RawFrame(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=np.asarray(atoms.cell),
        pbc=np.asarray(atoms.pbc),
        values=values | {k: v for k, v in columns.items() if k == "energy"},
        arrays=arrays | columns,
        origin=origin,
        fixed=fixed_of_atoms(atoms),
        tags=atoms.get_tags() if atoms.has("tags") else None,
    )
