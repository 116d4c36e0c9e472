"""XequiNet data sets: data.lmdb with info.json (units) and split.json beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.data.label_units import LabelUnits
from forgefield.data.labelling import Chosen
from forgefield.data.lazy_frames import LazyFrames
from forgefield.data.lmdb_file import LmdbFile, lmdb_kind
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import Reader, ReaderSettings
from forgefield.data.record_frames import frame_of_record
from forgefield.data.restricted_pickle import MAX_BYTES, load_record
from forgefield.data.unit_expressions import declared_units, named_unit

FILE, INFO, SPLIT = "data.lmdb", "info.json", "split.json"
USUAL = {
    "charges": ("atomic_charges",),
    "dipole": ("dipole",),
    "polarizability": ("polar",),
    "charge": ("charge",),
    "multiplicity": ("spin",),
    "base energy": ("base_energy",),
    "base forces": ("base_forces",),
    "base dipole": ("base_dipole",),
}
LARGEST_JSON = 1 << 30  # bytes


class XequinetSettings(ReaderSettings):
    """XequiNet's LMDB of pickled records, read by a restricted unpickler that runs nothing."""

    max_record_bytes: int = Field(default=MAX_BYTES, gt=0, description="Refuse records larger than this, bytes.")


class XequinetReader(Reader):
    """Reads records one by one, when they are asked for.

    Units are those of info.json. The virial is -dE/dstrain, an energy; `spin` is the number of unpaired electrons.
    `select` takes a part of split.json (train, valid, test), or "name:part" of name.json.
    """

    usual = USUAL
    selects = True

    def __init__(self, settings: XequinetSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is an LMDB file whose keys are numbers of 8 bytes, or a folder with such a data.lmdb."""
        file = path / FILE if path.is_dir() else path
        return file.is_file() and lmdb_kind(file) == "xequinet"

    def open(self, path: Path) -> XequinetFrames:
        """Return the records of the file, or the part that `select` names.

        Raises:
            DataError: a damaged or truncated file, an unknown unit, or a part that is not there.
        """
        file = path / FILE if path.is_dir() else path
        if not file.is_file():
            raise DataError(f"the folder holds no {FILE}", str(path), "give XequiNet's data folder, or the file")
        return XequinetFrames(file, self.settings)


class XequinetFrames(LazyFrames):
    """Records, decoded when asked for.

    Args:
        file: data.lmdb.
        settings: of the reader.
    """

    def __init__(self, file: Path, settings: XequinetSettings) -> None:
        self._file, self._limit = LmdbFile(file), settings.max_record_bytes
        entries = int(self._file.environment.stat()["entries"])
        if entries == 0:
            raise DataError("holds no records", str(file), "copy the file again")
        for number in (0, entries - 1):
            if self._file.get(number.to_bytes(8, "little")) is None:
                fix = "the file is incomplete, or no XequiNet file"
                raise DataError(f"has {entries} entries but no record {number}", str(file), fix)
        notes: list[str] = []
        self._indices = _part(file.parent, settings.select or "", entries, notes)
        if not settings.select and (file.parent / SPLIT).is_file():
            self.own_split = _splits(file.parent / SPLIT, entries)
        self._declarations = _json(file.parent / INFO) if (file.parent / INFO).is_file() else None
        declare = lambda chosen, _: self._declared(chosen, notes)  # noqa: E731
        super().__init__(file, len(self._indices), settings, (), declare, USUAL)
        self.notes = (*self.notes, *notes)

    def raw(self, index: int) -> RawFrame:
        """Return one record as the file has it."""
        number = int(self._indices[index])
        origin = f"{self._file.path.name}: record {number}"
        stored = self._file.get(number.to_bytes(8, "little"))
        if stored is None:
            raise DataError("is missing", origin, "the file is incomplete: copy it again")
        return frame_of_record(load_record(stored, origin, self._limit), origin)

    def _declared(self, chosen: Chosen, notes: list[str]) -> LabelUnits:
        where = str(self._file.path.parent / INFO)
        units = {} if self._declarations is None else self._declarations.get("units") or {}
        if not isinstance(units, Mapping):
            raise DataError("its 'units' are no mapping", where, 'write {"units": {"energy": "eV", "pos": "Angstrom"}}')
        names = {"energy": "energy", "length": "pos", "forces": "forces", "dipole": "dipole"}
        found = {q: named_unit(q, str(units[name]), where) for q, name in names.items() if name in units}
        for quantity in ("energy", "forces", "dipole"):
            name = f"base_{quantity}"
            if name in units and named_unit(quantity, str(units[name]), where) != found.get(quantity):
                what = f"declares {units[name]!r} for {name}, another unit than for {quantity}"
                raise DataError(what, where, "write the base labels in the units of the labels")
        missing = [name for name in ("energy", "pos") if name not in units]
        if missing:
            defaults = {"energy": "eV", "pos": "Å"}
            assumed = ", ".join(f"{name} in {defaults[name]}" for name in missing)
            notes.append(f"{INFO} declares no unit of {', '.join(missing)}: read as {assumed}, unless data sets a unit")
        if chosen["stress"] == "stress":
            found["stress_sign"] = "vasp"  # virial / V
            if "stress" in units:
                found["stress"] = named_unit("stress", str(units["stress"]), where)
        elif chosen["stress"] == "virial" and units.get("virial", units.get("energy")) != units.get("energy"):
            notes.append(f"virials are read as energies in the unit of the energy; {INFO} says {units['virial']!r}")
        notes += [*declared_units(found), *self._settings.units.overruled(**found)]
        return self._settings.units.declared(spin="unpaired", **found)


def _part(folder: Path, select: str, entries: int, notes: list[str]) -> np.ndarray:
    """Numbers of the records that are read."""
    if not select:
        if (folder / SPLIT).is_file():
            known = _splits(folder / SPLIT, entries)
            sizes = ", ".join(f"{name} {len(numbers)}" for name, numbers in known.items())
            use = "training takes them; select: train reads one"
            notes.append(f"all {entries} records are read; {SPLIT} names parts ({sizes}): {use}")
        return np.arange(entries)
    name, _, part = select.rpartition(":")
    file = folder / (f"{name}.json" if name else SPLIT)
    if not file.is_file():
        raise DataError("does not exist", str(file), f"select {select!r} needs it")
    known = _splits(file, entries)
    if part not in known:
        raise DataError(f"has no part {part!r}", str(file), f"select one of {', '.join(known)}")
    if not len(known[part]):
        raise DataError(f"its part {part!r} is empty", str(file), "select another part")
    return known[part]


def _splits(file: Path, entries: int) -> dict[str, np.ndarray]:
    """Part -> numbers of records, checked."""
    known: dict[str, np.ndarray] = {}
    for name, numbers in _json(file).items():
        if not isinstance(numbers, list) or not all(type(n) is int for n in numbers):
            raise DataError(f"its part {name!r} is no list of numbers", str(file), 'write {"train": [0, 1], ...}')
        wrong = next((n for n in numbers if not 0 <= n < entries), None)
        if wrong is not None:
            raise DataError(
                f"its part {name!r} names record {str(wrong)[:25]} of {entries}", str(file), "is it another set's?"
            )
        known[name] = np.array(numbers, dtype=np.int64)
    return known


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise ValueError("too large")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read as JSON ({error})", str(file), "copy it again") from None
    if not isinstance(found, dict):
        raise DataError("holds no mapping", str(file), "copy it again")
    return found


ENTRY = Entry(XequinetSettings, XequinetReader, "XequiNet LMDB with info.json and split.json")
