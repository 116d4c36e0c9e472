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
from forgefield.data.lmdb_file import LmdbFile, first_kind, lmdb_kind
from forgefield.data.passed_over import open_each, told
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
            return first_kind(sorted(p for p in path.glob("*.lmdb") if p.is_file())) in OURS
        return lmdb_kind(path) in OURS

    def open(self, path: Path) -> LmdbFrames:
        """Return the records of the file, or of all shards in the order of their names.

        Raises:
            DataError: no shard, an empty or truncated file, gaps in the keys, or another kind of LMDB.
        """
        skip = self.settings.on_error == "skip"
        shards, notes = open_each(_shard_paths(path), lambda p: _Shard(p, skip=skip), "shards", skip=skip)
        found = LmdbFrames(shards, path, self.settings)
        found.notes, found.n_left_out = (*notes, *found.notes), sum(shard.n_left_out for shard in shards)
        return found


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
    """One LMDB file; opened again in each process that reads it.

    Args:
        path: the file.
        skip: read what is there although records are missing.
    """

    def __init__(self, path: Path, *, skip: bool = False) -> None:
        self.path, self._skip = path, skip
        self._file = LmdbFile(path)
        self.notes: list[str] = []
        self.n_left_out = 0
        self.numbers = self._find_records()

    def __len__(self) -> int:
        return len(self.numbers)

    def get(self, key: int) -> bytes:
        """Return the pickle stored under a number."""
        value = self._file.get(b"%d" % key)
        if value is None:
            raise DataError(f"record {key} is gone", str(self.path), "was the file changed while it was read?")
        return value

    def _find_records(self) -> np.ndarray:
        """Keys of the records, (n,); they must be 0, 1, ... without a gap, unless what is missing is left out."""
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
        promised = len(numbers) if length is None else load_integer(length, f"{where}: key 'length'")
        if self._skip and (len(gaps) or promised > len(numbers)):
            return self._what_is_there(numbers, promised)
        if len(gaps):
            raise DataError(f"record {gaps[0]} is missing", where, "the file is incomplete: copy it again")
        if promised > len(numbers):
            raise DataError(
                f"says it has {promised} records but has {len(numbers)}", where, "the file is incomplete: copy it again"
            )
        if promised < len(numbers):  # seen in the wild: some writers store the last index
            self.notes.append(
                f"{self.path.name}: key 'length' says {promised}, but {len(numbers)} records are there; all are read"
            )
        return numbers

    def _what_is_there(self, numbers: np.ndarray, promised: int) -> np.ndarray:
        """The records that are there, and a note on those that are missing."""
        missing = max(int(numbers[-1]) + 1, promised) - len(numbers)
        self.n_left_out = missing
        first = int(np.setdiff1d(np.arange(len(numbers) + 1), numbers)[0])
        what = f"{missing} {'record is' if missing == 1 else 'records are'} missing and"
        self.notes.append(told(what, [f"{self.path.name}: the first is record {first}"]))
        return numbers


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
        key = int(shard.numbers[index - (int(self._ends[shard_index - 1]) if shard_index else 0)])
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
