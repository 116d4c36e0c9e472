"""Writing a store: begun, continued after a kill, or appended to."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, final

from forgefield.core.disk import disk_errors
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import FINGERPRINT, add_contents
from forgefield.data.store.frames import SMALLEST, lock_folder, open_shards, shard_file
from forgefield.data.store.header import FILE, Header, read_header
from forgefield.data.store.shard import Shard
from forgefield.data.store.shard_writer import ShardWriter
from forgefield.data.survey import kind_of

SHARD_BYTES = 1024 * 2**20


@final
class StoreWriter:
    """Appends structures to a store, which is made if it is not there.

    What was committed (every 8 MiB, and by `commit`) survives a kill. Another writer of the same store is refused.

    Args:
        folder: the store.
        float32: round positions and forces to float32.
        job: what is converted; while it is not empty the store does not open for reading, until `finish`.
        shard_bytes: size at which the next shard is begun.

    Raises:
        DataError: another process writes it, it is damaged, or it was begun with other settings.
    """

    def __init__(
        self, folder: Path, *, float32: bool = False, job: dict[str, Any] | None = None, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder, self._shard_bytes = folder, shard_bytes
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(folder)
        try:
            self._begin(float32, job or {})
        except BaseException:
            os.close(self._lock)
            raise

    def _begin(self, float32: bool, job: dict[str, Any]) -> None:
        if not (self.folder / FILE).exists():
            Header(float32=float32, job=job).write(self.folder)
        self.header = read_header(self.folder)
        if self.header.float32 != float32:
            kept = "float32" if self.header.float32 else "float64"
            raise DataError(f"keeps positions and forces in {kept}", str(self.folder), "append with the same setting")
        if self.header.job.get("inputs", job.get("inputs")) != job.get("inputs"):
            what = "was begun from other inputs or with other settings"
            raise DataError(what, str(self.folder), "repeat that command, or remove the folder to start anew")
        self._digest = hashlib.sha256(FINGERPRINT)
        for shard in self._there():
            for record in range(len(shard)):
                add_contents(self._digest, shard.get(record, self.folder.name, 0))
        self._shard = ShardWriter(self.folder / shard_file(len(self.header.shards)))
        self.progress: dict[str, Any] = self._shard.progress or dict(self.header.job.get("progress", {}))

    def _there(self) -> list[Shard]:
        """What was written before: finished shards, and one that is not."""
        path = self.folder / shard_file(len(self.header.shards))
        begun = path.exists() and path.stat().st_size >= SMALLEST
        return [*open_shards(self.folder, self.header)[0], *([Shard(path, None)] if begun else [])]

    def __len__(self) -> int:
        return self.header.records + len(self._shard)

    def add(self, structure: Structure) -> None:
        """Append a structure.

        Raises:
            DataError: it is wrong, or holds what a store cannot keep.
        """
        structure.check()
        raw = self._shard.schemas.encode(structure, self.header.float32)
        full = self._shard.add(raw, len(structure), kind_of(structure))
        add_contents(self._digest, _rounded(structure) if self.header.float32 else structure)
        if full:
            self.commit()
        if self._shard.n_bytes >= self._shard_bytes:
            self._next_shard()

    def commit(self) -> None:
        """Put all that was added on the disk."""
        self._shard.progress = self.progress
        self._shard.commit()

    def _next_shard(self) -> None:
        self._seal()
        self._shard = ShardWriter(self.folder / shard_file(len(self.header.shards)))

    def _seal(self) -> None:
        self._shard.progress = self.progress
        entry, atoms = self._shard.seal(), self._shard.atoms
        if not entry.records:
            self._shard.path.unlink(missing_ok=True)
            return
        job = {**self.header.job, "progress": self.progress} if self.header.job else {}
        self.header = dataclasses.replace(
            self.header,
            records=self.header.records + entry.records,
            atoms=self.header.atoms + atoms,
            shards=(*self.header.shards, entry),
            fingerprint=self._digest.hexdigest(),
            job=job,
        )
        self.header.write(self.folder)

    def finish(self) -> Header:
        """Complete the store and let go of it."""
        self._seal()
        self.header = dataclasses.replace(self.header, job={}, fingerprint=self._digest.hexdigest())
        self.header.write(self.folder)
        self._let_go()
        return self.header

    def stop(self) -> None:
        """Commit and let go of it, to be continued."""
        self.commit()
        self._shard.close()
        self._let_go()

    def leave(self) -> None:
        """Let go of it as the last commit left it: an interrupt may have come between a structure and its progress."""
        self._shard.close()
        self._let_go()

    def _let_go(self) -> None:
        os.close(self._lock)


def _rounded(structure: Structure) -> Structure:
    """The structure as it will be read again from float32."""

    def narrow(table: Any) -> dict[str, Any]:
        return {k: v.astype("<f4").astype("<f8") if k == "forces" else v for k, v in table.items()}

    positions = structure.positions.astype("<f4").astype("<f8")
    labels, base = narrow(structure.labels), narrow(structure.base)
    return dataclasses.replace(structure, positions=positions, labels=labels, base=base)
