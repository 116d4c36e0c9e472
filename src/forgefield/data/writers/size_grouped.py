"""AIMNet2's HDF5 file: structures in groups by their number of atoms, all groups with the same keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.disk import disk_errors
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.left_out import LeftOut
from forgefield.data.readers.size_grouped import QUADRUPOLE
from forgefield.data.writer import Writer, WriterSettings

LABELS = ("energy", "forces", "stress", "charges", "spin_charges", "dipole", "quadrupole")
KEPT = (*LABELS, "charge", "multiplicity")
ROWS = 256  # of a group that are written at once
EXACT = ("energy", "cell", "stress")


class SizeGroupedSettings(WriterSettings):
    """How AIMNet2's file is written."""

    precision: Literal["float32", "float64"] = Field(
        default="float32",
        description="Numbers other than energies, cells, stresses; AIMNet2 trains on float32, float64 loses nothing.",
    )
    different: Literal["refuse", "split"] = Field(
        default="refuse",
        description="What happens to structures with other labels than the first: AIMNet2 wants the same in all "
        "groups. split: one more file for each set of labels.",
    )


class SizeGroupedWriter(Writer):
    """Writes as structures come; memory stays small."""

    def __init__(self, path: Path, settings: SizeGroupedSettings) -> None:
        super().__init__(path, settings)
        self._files: dict[frozenset[str], _File] = {}
        self._left = LeftOut("AIMNet2's layout", KEPT)
        self._count = 0

    def add(self, structure: Structure) -> None:
        """Append a structure.

        Raises:
            DataError: it has other labels than the structures before, and `different` is refuse.
        """
        rows = _rows(structure, self._count, np.dtype(self.settings.precision))
        keys = frozenset(rows)
        if keys not in self._files:
            self._new_file(keys, structure)
        self._left.look(structure)
        with disk_errors(self.path):
            self._files[keys].add(len(structure), rows)
        self._count += 1

    def finish(self) -> tuple[str, ...]:
        """Complete the file or files."""
        if not self._files:
            raise DataError("no structures to write", str(self.path), "give at least one")
        notes = list(self._left.notes())
        with disk_errors(self.path):
            for file in self._files.values():
                file.close()
            for file in self._files.values():
                os.replace(file.beside, file.path)
        if self.settings.precision == "float32":
            notes.append("positions and labels other than energies, cells and stresses are rounded to float32")
        if len(self._files) > 1:
            listing = "; ".join(f"{f.path.name}: {', '.join(sorted(k))}" for k, f in self._files.items())
            notes.append(f"one file for each set of labels: {listing}")
        return tuple(notes)

    def abandon(self) -> None:
        """Take away what was written beside."""
        for file in self._files.values():
            file.drop()

    def _new_file(self, keys: frozenset[str], structure: Structure) -> None:
        if self._files and self.settings.different == "refuse":
            first = next(iter(self._files))
            lacks, more = sorted(first - keys), sorted(keys - first)
            parts = [f"{verb} {', '.join(names)}" for verb, names in (("lacks", lacks), ("also has", more)) if names]
            what = " and ".join(parts)
            fix = "write `different: split`, or leave out the labels that only some structures have"
            raise DataError(
                f"{what}, unlike the structures before; AIMNet2 wants the same in all", structure.origin, fix
            )
        number = len(self._files) + 1
        path = self.path if number == 1 else self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")
        with disk_errors(path):
            self._files[keys] = _File(path)


class _Group(NamedTuple):
    """Rows of one group that are not written yet."""

    place: h5py.Group
    waiting: list[dict[str, np.ndarray]]


class _File:
    """One HDF5 file that is written beside its path."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.beside = path, path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file = h5py.File(self.beside, "w")
        self._groups: dict[int, _Group] = {}

    def add(self, size: int, rows: dict[str, np.ndarray]) -> None:
        if size not in self._groups:
            self._groups[size] = _Group(self._file.create_group(f"{size:03d}"), [])
        group = self._groups[size]
        group.waiting.append(rows)
        if len(group.waiting) >= ROWS:
            _write(group)

    def close(self) -> None:
        for group in self._groups.values():
            _write(group)
        self._file.close()
        with self.beside.open("rb+") as stream:
            os.fsync(stream.fileno())

    def drop(self) -> None:
        self._file.close()
        self.beside.unlink(missing_ok=True)


def _write(group: _Group) -> None:
    """Append the waiting rows to the arrays of a group."""
    if not group.waiting:
        return
    for name in group.waiting[0]:
        values = np.stack([rows[name] for rows in group.waiting])
        if name not in group.place:
            shape = values.shape[1:]
            group.place.create_dataset(name, data=values, maxshape=(None, *shape), chunks=(_piece(values), *shape))
            continue
        found: Any = group.place[name]
        start = found.shape[0]
        found.resize(start + len(values), axis=0)
        found[start:] = values
    group.waiting.clear()


def _piece(values: np.ndarray) -> int:
    """Rows in one stored piece: about 64 KiB."""
    return max(1, min(ROWS, 2**16 // max(values[0].nbytes, 1)))


def _rows(s: Structure, index: int, precision: np.dtype) -> dict[str, np.ndarray]:
    """What is written of a structure, by the names of the format."""
    rows: dict[str, Any] = {"coord": s.positions, "numbers": s.numbers.astype(np.int32)}
    rows |= {name: s.labels[name] for name in LABELS if name in s.labels}
    if "quadrupole" in rows:
        rows["quadrupole"] = np.array([rows["quadrupole"][i, j] for i, j in QUADRUPOLE])
    if s.charge is not None:
        rows["charge"] = s.charge
    if s.multiplicity is not None:
        rows["mult"] = np.int32(s.multiplicity)
    if s.cell.any() or s.pbc.any():
        rows |= {"cell": s.cell, "pbc": s.pbc}
    rows["_index"] = np.int64(index)
    return {
        name: np.asarray(value, dtype=precision)
        if np.asarray(value).dtype.kind == "f" and name not in EXACT
        else np.asarray(value)
        for name, value in rows.items()
    }


ENTRY = Entry(SizeGroupedSettings, SizeGroupedWriter, "size-grouped HDF5 file (AIMNet2)")
