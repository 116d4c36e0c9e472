"""ASE database in LMDB (.aselmdb), as ase-db-backends and fairchem read it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import lmdb
from ase.io.jsonio import encode
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.disk import disk_errors
from forgefield.core.structure import Structure
from forgefield.data.structure_rows import Names
from forgefield.data.writer import Writer, WriterSettings

SUFFIX = ".aselmdb"
FIRST_SIZE = 1 << 26  # bytes of the map; doubled when full


class AselmdbWriterSettings(WriterSettings):
    """ASE database in LMDB; fairchem recognises it by the ending .aselmdb."""

    rows_per_commit: int = Field(default=1000, gt=0, description="Rows that are held before they go to disk.")


class AselmdbWriter(Writer):
    """Rows under the keys "1", "2", ..., each as compressed JSON; `nextid` counts them.

    Args:
        path: where the file will stand.
        settings: how often it goes to disk.
    """

    def __init__(self, path: Path, settings: Any) -> None:
        super().__init__(path, settings)
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._names, self._count = Names(), 0
        self._waiting: list[tuple[bytes, bytes]] = []
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._beside.unlink(missing_ok=True)
            self._environment: lmdb.Environment | None = lmdb.open(
                str(self._beside), subdir=False, map_size=FIRST_SIZE, lock=False, meminit=False
            )

    def add(self, structure: Structure) -> None:
        """Append a row; `spin` in its data is the multiplicity, as fairchem has it."""
        row = self._names.row(structure)
        if structure.multiplicity is not None:
            row["data"]["spin"] = structure.multiplicity
        self._count += 1
        self._waiting.append((b"%d" % self._count, _packed(row)))
        if len(self._waiting) >= self.settings.rows_per_commit:
            self._commit()

    def finish(self) -> tuple[str, ...]:
        """Write what is waiting and the counts, and put the file at its path."""
        counts = {"nextid": self._count + 1, "deleted_ids": [], "metadata": self._names.metadata()}
        self._waiting += [(name.encode(), _packed(value)) for name, value in counts.items()]
        self._commit()
        environment, self._environment = self._environment, None
        if environment is not None:
            with disk_errors(self.path):
                environment.sync(True)
                environment.close()
                os.replace(self._beside, self.path)
        notes = sorted(self._names.notes)
        if self.path.suffix != SUFFIX:
            notes.append(
                f"fairchem recognises this format by the ending {SUFFIX}, which {self.path.name} does not have"
            )
        return tuple(notes)

    def abandon(self) -> None:
        """Take away what was written."""
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.close()
        self._beside.unlink(missing_ok=True)

    def _commit(self) -> None:
        """Write all waiting rows in one transaction; where the map is too small, double it and write them again."""
        environment = self._environment
        if environment is None:
            raise ValueError("the writer is finished")
        with disk_errors(self.path):
            while True:
                try:
                    with environment.begin(write=True) as transaction:
                        transaction.cursor().putmulti(self._waiting)
                    break
                except lmdb.MapFullError:
                    environment.set_mapsize(2 * environment.info()["map_size"])
        self._waiting.clear()


def _packed(value: Any) -> bytes:
    return zlib.compress(encode(value).encode("utf-8"))


ENTRY = Entry(AselmdbWriterSettings, AselmdbWriter, "ASE database in LMDB (.aselmdb)")
