"""fairchem (Open Catalyst) LMDB: one file, or a folder of shards, of pickled torch_geometric Data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.data.label_units import LabelUnits
from forgefield.data.labelling import (
    Chosen,
    RawFrame,
)
from forgefield.data.lazy_frames import LazyFrames
from forgefield.data.lmdb_file import LmdbFile, lmdb_kind
from forgefield.data.reader import Reader, ReaderSettings
from forgefield.data.record_frames import frame_of_record
from forgefield.data.restricted_pickle import MAX_BYTES, load_integer, load_record

OURS = ("fairchem", "damaged")  # of the layouts of LMDB files; damaged ones: `open` says so
EXTRA_NAMES = {"energy": ("y",)}


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
            first = next(iter(sorted(path.glob("*.lmdb"))), None)
            return first is not None and first.is_file() and lmdb_kind(first) in OURS
        return lmdb_kind(path) in OURS

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
            "is an LMDB folder, not a fairchem file", str(path), "set data.format to auto or to alignn_cache"
        )
    shards = sorted(path.glob("*.lmdb"))
    if not shards:
        raise DataError("the folder holds no *.lmdb file", str(path), "give the folder of the shards")
    return shards


class _Shard:
    """One LMDB file; opened again in each process that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = LmdbFile(path)
        self.notes: list[str] = []
        self._count = self._count_records()

    def __len__(self) -> int:
        return self._count

    def get(self, key: int) -> bytes:
        """Return the pickle stored under a number."""
        value = self._file.get(b"%d" % key)
        if value is None:
            raise DataError(f"record {key} is gone", str(self.path), "was the file changed while it was read?")
        return value

    def _count_records(self) -> int:
        """Number of records; their keys must be 0, 1, ... without a gap."""
        names, length = self._file.keys(), self._file.get(b"length")
        where = str(self.path)
        if not names:
            raise DataError("holds no records", where, "copy the file again")
        if b"nextid" in names:
            raise DataError("is an ASE database in LMDB", where, "set data.format to aselmdb")
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


class LmdbFrames(LazyFrames):
    """Records of one or more shards, decoded when asked for."""

    def __init__(self, shards: list[_Shard], path: Path, settings: FairchemLmdbSettings) -> None:
        self._shards, self._most = shards, settings.max_record_bytes
        self._ends = np.cumsum([len(s) for s in shards])
        notes = [note for shard in shards for note in shard.notes]

        def declare(chosen: Chosen, sample: Sequence[RawFrame]) -> LabelUnits:
            notes.extend(_notes(sample, chosen))
            return settings.units

        super().__init__(path, int(self._ends[-1]), settings, (), declare, EXTRA_NAMES)
        self.notes = tuple(notes)

    def raw(self, index: int) -> RawFrame:
        """Return one record as the file has it."""
        shard_index = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._shards[shard_index]
        key = index - (int(self._ends[shard_index - 1]) if shard_index else 0)
        origin = f"{shard.path.name}: record {key}"
        return frame_of_record(load_record(shard.get(key), origin, self._most), origin)


def _notes(sample: Sequence[RawFrame], chosen: Chosen) -> list[str]:
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
