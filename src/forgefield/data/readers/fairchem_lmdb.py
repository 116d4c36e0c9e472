"""fairchem (Open Catalyst) LMDB: one file, or a folder of shards, of pickled torch_geometric Data."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import lmdb
import numpy as np
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.label_names import AUTO
from forgefield.data.labelling import (
    USUAL_NAMES,
    Chosen,
    RawFrame,
    choose_keys,
    label_structure,
    other_names,
)
from forgefield.data.reader import Frames, Reader, ReaderSettings
from forgefield.data.restricted_pickle import MAX_BYTES, load_integer, load_record

MAGIC, MAGIC_AT = 0xBEEFC0DE, 16  # of an LMDB file, after the page header
EXTRA_NAMES = {"energy": ("y",)}
LOOKED_AT = 32  # records that decide which names hold the labels
NOT_LABELS = frozenset({"pos", "cell", "atomic_numbers", "natoms", "tags", "fixed", "pbc"})


class FairchemLmdbSettings(ReaderSettings):
    """LMDB of pickled torch_geometric Data, read by a restricted unpickler that runs nothing."""

    max_record_bytes: int = Field(default=MAX_BYTES, gt=0, description="Refuse records larger than this, bytes.")


class FairchemLmdbReader(Reader):
    """Reads records one by one, when they are asked for.

    Without a `pbc` field a frame is periodic in all directions if it has a cell, as in Open Catalyst data.
    """

    def __init__(self, settings: FairchemLmdbSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is an LMDB file, or a folder with one or more `*.lmdb` files."""
        if path.is_dir():
            return any(path.glob("*.lmdb")) or (path / "data.mdb").is_file()
        with path.open("rb") as stream:
            start = stream.read(MAGIC_AT + 4)
        return len(start) == MAGIC_AT + 4 and int.from_bytes(start[MAGIC_AT:], "little") == MAGIC

    def open(self, path: Path) -> LmdbFrames:
        """Return the records of the file, or of all shards in the order of their names.

        Raises:
            DataError: no shard, an empty or truncated file, gaps in the keys, or another kind of LMDB.
        """
        return LmdbFrames([_Shard(p) for p in _shard_paths(path)], path, self.settings)


def _shard_paths(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / "data.mdb").is_file():
        raise DataError(
            "is an LMDB folder, not a fairchem file", str(path), "other LMDB layouts are not supported in this version"
        )
    shards = sorted(path.glob("*.lmdb"))
    if not shards:
        raise DataError("the folder holds no *.lmdb file", str(path), "give the folder of the shards")
    return shards


class _Environment:
    """An LMDB file that is open. One process may open a file only once, so all who read it share this."""

    def __init__(self, path: Path) -> None:
        self.signature = _signature(path)
        size = path.stat().st_size
        if size == 0:
            raise DataError("is empty", str(path), "copy the file again")
        try:
            self.lmdb = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False, max_readers=64
            )
            needed = (self.lmdb.info()["last_pgno"] + 1) * self.lmdb.stat()["psize"]
        except lmdb.Error as error:
            raise DataError(f"cannot be opened as LMDB ({error})", str(path), "copy the file again") from None
        if size < needed:
            self.lmdb.close()
            raise DataError(f"is cut off: {size} of {needed} bytes are there", str(path), "copy or download it again")


_OPEN: WeakValueDictionary[tuple[int, str], _Environment] = WeakValueDictionary()
_OPEN_LOCK = threading.Lock()


def _signature(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _open_shared(path: Path) -> _Environment:
    """Return the open file of this process, or open it."""
    key = (os.getpid(), str(path.resolve()))
    with _OPEN_LOCK:
        environment = _OPEN.get(key)
        if environment is None:
            environment = _OPEN[key] = _Environment(path)
    if environment.signature != _signature(path):
        raise DataError("was changed while it was in use", str(path), "start again")
    return environment


class _Shard:
    """One LMDB file; opened again in each process that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, _Environment] | None = None
        self.notes: list[str] = []
        self._count = self._count_records()

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "notes": self.notes, "_count": self._count, "_open": None}

    def get(self, key: int) -> bytes:
        """Return the pickle stored under a number."""
        with self._environment().begin() as transaction:
            value = transaction.get(b"%d" % key)
        if value is None:
            raise DataError(f"record {key} is gone", str(self.path), "was the file changed while it was read?")
        return value

    def _environment(self) -> lmdb.Environment:
        held = self._open
        if held is None or held[0] != os.getpid():
            held = self._open = (os.getpid(), _open_shared(self.path))
        return held[1].lmdb

    def _count_records(self) -> int:
        """Number of records; their keys must be 0, 1, ... without a gap."""
        with self._environment().begin() as transaction:
            names = [bytes(k) for k in transaction.cursor().iternext(values=False)]
            length = transaction.get(b"length")
        where = str(self.path)
        if not names:
            raise DataError("holds no records", where, "copy the file again")
        if b"nextid" in names:
            raise DataError("is an ASE database in LMDB", where, "not supported in this version: convert to extxyz")
        numbers = np.array(sorted(int(n) for n in names if n.isdigit()), dtype=np.int64)
        if len(numbers) == 0:
            raise DataError(
                f"has no record '0'; its first key is {names[0][:20]!r}", where, "is this a fairchem LMDB file?"
            )
        gaps = np.flatnonzero(numbers != np.arange(len(numbers)))
        if len(gaps):
            raise DataError(f"record {gaps[0]} is missing", where, "the file is incomplete: copy it again")
        promised = len(numbers) if length is None else load_integer(length, f"{where}: key 'length'")
        if promised > len(numbers):
            raise DataError(
                f"says it has {promised} records but has {len(numbers)}", where, "the file is incomplete: copy it again"
            )
        if promised < len(numbers):  # seen in the wild: some writers store the last index
            self.notes.append(
                f"{self.path.name}: key 'length' says {promised}, but {len(numbers)} records are there; all are read"
            )
        return len(numbers)


class LmdbFrames(Frames):
    """Records of one or more shards, decoded when asked for."""

    def __init__(self, shards: list[_Shard], path: Path, settings: FairchemLmdbSettings) -> None:
        self._shards, self._settings = shards, settings
        self._ends = np.cumsum([len(s) for s in shards])
        count = int(self._ends[-1])
        sample = [self._raw(int(i)) for i in np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int))]
        chosen = choose_keys(sample, settings.keys, settings.units, str(path), EXTRA_NAMES)
        notes = [note for shard in shards for note in shard.notes] + _notes(sample, chosen)
        super().__init__(str(path), chosen, other_names(sample, chosen), notes)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Structure:
        raw = self._raw(index)
        self._check_names(raw)
        return label_structure(raw, self.chosen, self._settings.keys, self._settings.units)

    def _raw(self, index: int) -> RawFrame:
        shard_index = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._shards[shard_index]
        key = index - (int(self._ends[shard_index - 1]) if shard_index else 0)
        origin = f"{shard.path.name}: record {key}"
        return _raw_frame(load_record(shard.get(key), origin, self._settings.max_record_bytes), origin)

    def _check_names(self, raw: RawFrame) -> None:
        """Refuse a record whose labels have another name than those looked at when the file was opened."""
        for quantity in USUAL_NAMES:
            name = self.chosen[quantity]
            table = raw.arrays if quantity == "forces" else raw.values
            if getattr(self._settings.keys, quantity) != AUTO or (name is not None and name in table):
                continue
            usual = (*USUAL_NAMES[quantity], *EXTRA_NAMES.get(quantity, ()))
            other = next((n for n in table if n.lower() in usual), None)
            if other is not None:
                raise DataError(
                    f"has {quantity} under {other!r}, other records under {name!r}",
                    raw.origin,
                    f"set data.{quantity}_key, or repair the records",
                )


def _raw_frame(record: Mapping[str, Any], origin: str) -> RawFrame:
    numbers = _numbers(record, origin)
    n = len(numbers)
    arrays, values = {}, {}
    for name, value in record.items():
        if name in NOT_LABELS or value is None:
            continue
        if np.ndim(value) >= 2 and len(value) == n and np.shape(value) != (1, 3, 3):
            arrays[name] = np.asarray(value)
        elif isinstance(value, np.ndarray):
            values[name] = value.item() if value.size == 1 else value
        else:
            values[name] = value
    cell = _field(record, "cell", (3, 3), origin)
    cell = np.zeros((3, 3)) if cell is None else cell
    pbc = _field(record, "pbc", (3,), origin)
    fixed, tags = _field(record, "fixed", (n,), origin), _field(record, "tags", (n,), origin)
    positions = _field(record, "pos", (n, 3), origin)
    if positions is None:
        raise DataError("has no field 'pos'", origin, "is this a fairchem structure record?")
    return RawFrame(
        numbers=numbers,
        positions=positions,
        cell=cell,
        pbc=np.full(3, bool(np.any(cell))) if pbc is None else pbc.astype(bool),
        values=values,
        arrays=arrays,
        origin=origin,
        fixed=None if fixed is None else fixed.astype(bool),
        tags=None if tags is None else tags.astype(np.int64),
    )


def _numbers(record: Mapping[str, Any], origin: str) -> np.ndarray:
    value = record.get("atomic_numbers")
    if value is None or np.asarray(value).dtype.kind not in "iuf":
        raise DataError("has no field 'atomic_numbers'", origin, "is this a fairchem structure record?")
    numbers = np.asarray(value).reshape(-1)
    if not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
        raise DataError("atomic_numbers are not whole numbers", origin, "repair this record")
    count = record.get("natoms")
    if count is not None and np.size(count) == 1 and int(np.asarray(count).reshape(-1)[0]) != len(numbers):
        raise DataError(
            f"natoms is {np.asarray(count).item()} but there are {len(numbers)} atoms", origin, "repair this record"
        )
    return numbers.astype(np.int64)


def _field(record: Mapping[str, Any], name: str, shape: tuple[int, ...], origin: str) -> np.ndarray | None:
    """A field of known shape; leading axes of length one are dropped."""
    value = record.get(name)
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iufb" or array.size != int(np.prod(shape)):
        raise DataError(f"field {name!r} has shape {array.shape}, expected {shape}", origin, "repair this record")
    return array.reshape(shape)


def _notes(sample: list[RawFrame], chosen: Chosen) -> list[str]:
    """Say so if the total energies were rounded to float32 when the file was written."""
    name = chosen["energy"] or ""
    energies = np.array([float(f.values[name]) for f in sample if name in f.values and np.size(f.values[name]) == 1])
    if len(energies) == 0 or (energies != energies.astype(np.float32)).any():
        return []
    spacing = float(np.spacing(np.abs(energies).max().astype(np.float32)))
    if spacing < 1e-5:
        return []
    return [f"energies are stored in float32: rounded by up to {spacing / 2:.1e} (in the file's unit)"]


ENTRY = Entry(FairchemLmdbSettings, FairchemLmdbReader, "fairchem (Open Catalyst) LMDB file or folder of shards")
