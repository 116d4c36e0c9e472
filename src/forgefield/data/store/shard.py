"""One shard of a store, open for reading."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any, final

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.store.header import AGAIN, ShardEntry
from forgefield.data.store.pages import page_checksum
from forgefield.data.store.record import HEAD, Schema
from forgefield.data.store.shard_file import RecordFile, tables
from forgefield.data.survey import Kind

STATE = struct.Struct("<4Q")  # records, blocks, chunks of the index, atoms
STATE_KEY, PROGRESS_KEY = b"state", b"progress"
COLUMNS = 6  # of the index: block, place in it, bytes, atoms, kind, CRC-32
ATOMS, KIND = 3, 4


def block_key(number: int) -> bytes:
    """Return the key of a block of records."""
    return b"b%010d" % number


def chunk_key(kind: bytes, number: int) -> bytes:
    """Return the key of a part of the index (i), of a schema (s) or of a kind (k)."""
    return kind + b"%010d" % number


@final
class Shard:
    """One LMDB file that nobody writes.

    Args:
        path: the file.
        entry: what the header says of it; None = it was not finished, and is taken as its last transaction left it.

    Raises:
        DataError: it is not what the header says.
    """

    def __init__(self, path: Path, entry: ShardEntry | None) -> None:
        self.path, self.entry = path, entry
        if entry is not None:
            _check_file(path, entry)
        try:
            with tables(path) as file:
                self._read_tables(file)
            self._file = RecordFile(path)
        except (ValueError, TypeError, KeyError, IndexError, struct.error) as error:
            raise DataError(f"is damaged ({error})", str(path), AGAIN) from None
        if entry is not None and (len(self.index) != entry.records or zlib.crc32(self.index.tobytes()) != entry.index):
            raise DataError("is damaged: its table of records has a wrong checksum", str(path), AGAIN)

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "entry": self.entry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def get(self, record: int, name: str, first: int) -> Structure:
        """Return a structure.

        Args:
            record: its place in the shard.
            name: of the store, for messages.
            first: number of the shard's first record in the store.

        Raises:
            DataError: its bytes are not those that were written.
        """
        block, place, size, n, _, crc = self.index[record].tolist()
        raw = self._file.read(block, place, size)
        if len(raw) != size or zlib.crc32(raw) != crc:
            where = f"{self.path.parent.name}/{self.path.name}: record {first + record}"
            raise DataError("is damaged: its checksum is wrong", where, AGAIN)
        schema, _, n_text, n_origin = HEAD.unpack_from(raw)
        return self.schemas[schema].decode(raw, n, n_text, n_origin, f"{name}: record {first + record}")

    def _read_tables(self, file: Any) -> None:
        state = file.get(STATE_KEY)
        self.state = (0, 0, 0, 0) if state is None else STATE.unpack(state)
        self.progress: dict[str, Any] = json.loads(file.get(PROGRESS_KEY) or b"{}")
        chunks = [file.get(chunk_key(b"i", k)) or b"" for k in range(self.state[2])]
        self.index = np.frombuffer(b"".join(chunks), dtype="<u4").reshape(-1, COLUMNS)
        self.schemas: list[Schema] = [Schema.from_json(v) for v in _all(file, b"s")]
        self.kinds = [_kind(json.loads(v)) for v in _all(file, b"k")]
        if len(self.index) != self.state[0]:
            raise ValueError(f"{self.state[0]} records but {len(self.index)} in the table")


def _all(file: Any, kind: bytes) -> list[bytes]:
    found: list[bytes] = []
    while (value := file.get(chunk_key(kind, len(found)))) is not None:
        found.append(value)
    return found


def _kind(row: list[Any]) -> Kind:
    return Kind(tuple(row[0]), tuple(row[1]), *row[2:])


def _check_file(path: Path, entry: ShardEntry) -> None:
    """Refuse a file that is not what the header says, before LMDB sees it."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"is gone ({error.strerror})", str(path), "was the store moved?") from None
    if size != entry.bytes:
        word = "cut off" if size < entry.bytes else "too long"
        raise DataError(f"is {word}: {size} of {entry.bytes} bytes are there", str(path), AGAIN)
    try:
        found = page_checksum(path)
    except (ValueError, OSError) as error:
        raise DataError(f"is damaged ({error})", str(path), AGAIN) from None
    if found != entry.pages:
        raise DataError("is damaged: the checksum of its tables is wrong", str(path), AGAIN)
