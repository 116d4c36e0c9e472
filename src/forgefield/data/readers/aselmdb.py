"""ASE databases in LMDB (.aselmdb): one file, or a folder of shards, of compressed JSON."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.io.jsonio import decode
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.data.foreign_errors import reason
from forgefield.data.lmdb_file import LmdbFile, first_kind, lmdb_kind
from forgefield.data.passed_over import open_each
from forgefield.data.reader import Reader, ReaderSettings
from forgefield.data.readers.ase_db.frames import DatabaseFrames, Table
from forgefield.data.restricted_pickle import MAX_BYTES

SUFFIX = ".aselmdb"
ID_BITS = 40  # of a row's number in `ids`; the shard's number stands above them


class AselmdbSettings(ReaderSettings):
    """ASE database in LMDB, as fairchem's data sets and ase-db-backends have it."""

    max_record_bytes: int = Field(
        default=MAX_BYTES, gt=0, description="Refuse rows that are larger than this when decompressed, bytes."
    )


class AselmdbReader(Reader):
    """Reads rows one by one, when they are asked for; JSON only, nothing is run."""

    def __init__(self, settings: AselmdbSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is an LMDB file with a key `nextid`, or a folder of such files."""
        if path.is_file():
            return lmdb_kind(path) == "aselmdb"
        return path.is_dir() and first_kind(_shards(path)) == "aselmdb"

    def open(self, path: Path) -> DatabaseFrames:
        """Return the rows of the file, or of all shards in the order of their names.

        Raises:
            DataError: no shard, a damaged or truncated file, or another kind of LMDB.
        """
        shards = [path] if path.is_file() else _shards(path)
        if not shards:
            raise DataError(f"the folder holds no *{SUFFIX} file", str(path), "give the folder of the shards")
        most, skip = self.settings.max_record_bytes, self.settings.on_error == "skip"
        opened, notes = open_each(shards, lambda shard: _shard(shard, most), "shards", skip=skip)
        found = DatabaseFrames(path, LmdbTable(path, opened, most), self.settings)
        found.notes = (*notes, *found.notes)
        return found


def _shards(folder: Path) -> list[Path]:
    """The `*.aselmdb` files of a folder; without any, its `*.lmdb` files."""
    named = sorted(p for p in folder.glob(f"*{SUFFIX}") if p.is_file())
    return named or sorted(p for p in folder.glob("*.lmdb") if p.is_file())


class LmdbTable(Table):
    """Rows of one or more files.

    Args:
        path: the file or folder, for messages.
        shards: the files, and the numbers of their rows.
        max_bytes: refuse larger rows.
    """

    def __init__(self, path: Path, shards: list[tuple[LmdbFile, np.ndarray]], max_bytes: int) -> None:
        self.name, self._max_bytes = path.name, max_bytes
        self._files = [file for file, _ in shards]
        self.ids = np.concatenate([ids + (k << ID_BITS) for k, (_, ids) in enumerate(shards)])
        if not len(self.ids):
            raise DataError("holds no rows", str(path), "give a database with at least one")
        stored = self._files[0].get(b"metadata")
        metadata = None if stored is None else _json(stored, f"{path.name}: metadata", max_bytes)
        self.metadata = metadata if isinstance(metadata, dict) else {}

    def row(self, row_id: int) -> Mapping[str, Any]:
        """Return one row, decoded.

        Raises:
            DataError: it is gone or damaged.
        """
        file, key = self._files[row_id >> ID_BITS], row_id & ((1 << ID_BITS) - 1)
        origin = self.origin(row_id)
        stored = file.get(b"%d" % key)
        if stored is None:
            raise DataError("is missing", origin, "the file is incomplete: copy it again")
        found = _json(stored, origin, self._max_bytes)
        if not isinstance(found, dict):
            raise DataError("is no row of an ASE database", origin, "check the file's origin")
        return found

    def origin(self, row_id: int) -> str:
        """Return file and number of a row, for messages."""
        return f"{self._files[row_id >> ID_BITS].path.name}: row {row_id & ((1 << ID_BITS) - 1)}"


def _shard(path: Path, max_bytes: int) -> tuple[LmdbFile, np.ndarray]:
    file = LmdbFile(path)
    return file, _ids(file, max_bytes)


def _ids(file: LmdbFile, max_bytes: int) -> np.ndarray:
    """Numbers of the rows of one file: 1 to nextid - 1, without those deleted."""
    where = str(file.path)
    stored = file.get(b"nextid")
    if stored is None:
        raise DataError("has no key 'nextid'", where, "is this an ASE database in LMDB?")
    following = _json(stored, f"{where}: nextid", max_bytes)
    gone = file.get(b"deleted_ids")
    deleted = [] if gone is None else _json(gone, f"{where}: deleted_ids", max_bytes)
    entries = file.environment.stat()["entries"]
    if isinstance(following, bool) or not isinstance(following, int) or not 1 <= following < 1 << ID_BITS:
        raise DataError(f"its key 'nextid' is {str(following)[:40]}", where, "copy the file again")
    if not isinstance(deleted, list) or not all(isinstance(i, int) for i in deleted):
        raise DataError("its key 'deleted_ids' is no list of numbers", where, "copy the file again")
    if following - 1 - len(set(deleted)) > entries:
        raise DataError(f"says it has {following - 1} rows but has {entries} keys", where, "copy the file again")
    return np.setdiff1d(np.arange(1, following, dtype=np.int64), np.array(deleted, dtype=np.int64))


def _json(stored: bytes, origin: str, max_bytes: int) -> Any:
    """Decompress and decode one value, without ever holding more than allowed."""
    try:
        machine = zlib.decompressobj()
        text = machine.decompress(stored, max_bytes)
        if machine.unconsumed_tail:
            raise DataError(f"is larger than {max_bytes} bytes", origin, "is this an atomistic data set?")
        if not machine.eof:
            raise DataError("is cut off", origin, "copy the file again")
        plain = text.decode("utf-8")
        return decode(plain) if "__" in plain else json.loads(plain)
    except DataError:
        raise
    except Exception as error:  # damaged JSON ends in many kinds of exceptions of the library
        raise DataError(f"is damaged ({reason(error)})", origin, "copy the file again") from None


ENTRY = Entry(AselmdbSettings, AselmdbReader, "ASE database in LMDB (.aselmdb): a file or a folder of shards")
