"""One shard of a store, open for writing: whole transactions only, so that what was committed stays."""

from __future__ import annotations

import json
import os
import zlib
from array import array
from pathlib import Path
from typing import Any, final

import lmdb

from forgefield.core.disk import disk_errors
from forgefield.data.store.frames import SMALLEST
from forgefield.data.store.header import ShardEntry
from forgefield.data.store.pages import page_checksum
from forgefield.data.store.record import Schemas
from forgefield.data.store.shard import COLUMNS, PROGRESS_KEY, STATE, STATE_KEY, Shard, block_key, chunk_key
from forgefield.data.survey import Kind

BLOCK_BYTES = 64 * 2**10
PENDING_BYTES = 8 * 2**20  # records waiting for one transaction
ROOM = 64 * 2**20  # free part of the map, beyond what a transaction needs
LONGEST_PROGRESS = 1500  # bytes; a longer value would lie in pages of its own


@final
class ShardWriter:
    """Continues the shard where its last transaction ended, or begins it.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schemas, self.kinds = Schemas(), dict[Kind, int]()
        self.progress: dict[str, Any] = {}
        self._index = array("I")
        self._records = self._blocks = self._chunks = self.atoms = 0
        if path.exists() and path.stat().st_size < SMALLEST:  # killed while LMDB began it
            path.unlink()
        if path.exists():
            self._recover()
        self._written = len(self._index), len(self.schemas.all), len(self.kinds)
        self._block, self._pending, self._waiting = bytearray(), list[bytes](), 0
        with disk_errors(path):
            self._size = path.stat().st_size if path.exists() else 0
            self._lmdb = lmdb.open(str(path), subdir=False, lock=False, map_size=self._needed(PENDING_BYTES))

    def __len__(self) -> int:
        return self._records

    def _recover(self) -> None:
        shard = Shard(self.path, None)
        self._records, self._blocks, self._chunks, self.atoms = shard.state
        self._index = array("I", shard.index.tobytes())
        self.progress = shard.progress
        for schema in shard.schemas:
            self.schemas.append(schema)
        self.kinds = {kind: k for k, kind in enumerate(shard.kinds)}

    def _needed(self, more: int) -> int:
        return (self._size + 2 * more + ROOM) // 2**20 * 2**20

    @property
    def n_bytes(self) -> int:
        """Bytes of the file once all is committed, nearly."""
        return self._size + self._waiting + len(self._block)

    def add(self, raw: bytes, n_atoms: int, kind: Kind) -> bool:
        """Append a record; returns whether it is time to commit."""
        number = self.kinds.setdefault(kind, len(self.kinds))
        row = (self._blocks + len(self._pending), len(self._block), len(raw), n_atoms, number, zlib.crc32(raw))
        self._index.extend(row)
        self._block += raw
        self._records += 1
        self.atoms += n_atoms
        if len(self._block) >= BLOCK_BYTES:
            self._close_block()
        return self._waiting >= PENDING_BYTES

    def _close_block(self) -> None:
        if self._block:
            self._pending.append(bytes(self._block))
            self._waiting += len(self._block)
            self._block = bytearray()

    def commit(self) -> None:
        """Put all that was added on the disk, in one transaction."""
        self._close_block()
        if len(self._index) == self._written[0]:
            return
        with disk_errors(self.path):
            needed = self._needed(self._waiting)
            if needed > self._lmdb.info()["map_size"]:
                self._lmdb.set_mapsize(needed)
            with self._lmdb.begin(write=True) as transaction:
                self._put(transaction)
            self._size = self.path.stat().st_size
        self._written = len(self._index), len(self.schemas.all), len(self.kinds)
        self._blocks += len(self._pending)
        self._chunks += 1
        self._pending, self._waiting = [], 0

    def _put(self, transaction: Any) -> None:
        index, schemas, kinds = self._written
        for k, block in enumerate(self._pending):
            transaction.put(block_key(self._blocks + k), block, append=False)
        transaction.put(chunk_key(b"i", self._chunks), self._index[index:].tobytes())
        for k in range(schemas, len(self.schemas.all)):
            transaction.put(chunk_key(b"s", k), self.schemas.all[k].to_json().encode())
        for k, kind in list(enumerate(self.kinds))[kinds:]:
            transaction.put(chunk_key(b"k", k), json.dumps(kind).encode())
        blocks = self._blocks + len(self._pending)
        transaction.put(STATE_KEY, STATE.pack(self._records, blocks, self._chunks + 1, self.atoms))
        progress = json.dumps(self.progress).encode()
        if len(progress) > LONGEST_PROGRESS:
            progress = json.dumps({k: v for k, v in self.progress.items() if isinstance(v, int)}).encode()
        transaction.put(PROGRESS_KEY, progress)

    def close(self) -> None:
        """Let go of the file; what was not committed is lost."""
        self._lmdb.close()

    def seal(self) -> ShardEntry:
        """Commit, close, and return what the header shall say of the shard."""
        self.commit()
        self._lmdb.sync(True)
        self.close()
        if len(self._index) != COLUMNS * self._records:
            raise AssertionError("the table of records does not fit")
        with self.path.open("rb") as stream:
            os.fsync(stream.fileno())
        size = self.path.stat().st_size
        return ShardEntry(
            self.path.name, self._records, size, zlib.crc32(self._index.tobytes()), page_checksum(self.path)
        )
