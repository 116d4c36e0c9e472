"""`store.json`: what a store is, and its shards. It is replaced as a whole, never edited in place."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from forgefield.core.disk import write_atomic
from forgefield.core.errors import DataError

FILE = "store.json"
FORMAT, VERSION = "forgefield-store", 1
AGAIN = "copy the store again, or convert the data again"


@dataclass(frozen=True)
class ShardEntry:
    """One finished shard.

    Args:
        file: its name in the folder of the store.
        records: structures in it.
        bytes: size of the file.
        index: CRC-32 of its table of records, which holds a CRC-32 of every record.
        pages: CRC-32 of the pages that are neither: those by which LMDB finds its way.
    """

    file: str
    records: int
    bytes: int
    index: int
    pages: int


@dataclass(frozen=True)
class Header:
    """What `store.json` says.

    Args:
        records: structures in all finished shards.
        atoms: atoms in them.
        fingerprint: `Dataset.fingerprint` of these structures.
        shards: in their order.
        float32: whether positions and forces were rounded to float32.
        job: what a conversion that was not finished works on; empty once it is.
    """

    records: int = 0
    atoms: int = 0
    fingerprint: str = ""
    shards: tuple[ShardEntry, ...] = ()
    float32: bool = False
    job: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Put this in place of what the store said before."""
        block = {"format": FORMAT, "version": VERSION, "units": {"energy": "eV", "length": "Ang"}, **asdict(self)}
        body = json.dumps(block, indent=1)
        write_atomic(folder / FILE, json.dumps({**block, "crc32": zlib.crc32(body.encode())}, indent=1) + "\n")


def read_header(folder: Path) -> Header:
    """Read what a store says of itself.

    Raises:
        DataError: there is no header, it was changed, or another version wrote it.
    """
    path = folder / FILE
    try:
        block = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"has no {FILE}", str(folder), "is it a store? " + AGAIN) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error})", str(path), AGAIN) from None
    if not isinstance(block, dict) or block.get("format") != FORMAT:
        raise DataError(f"is not the header of a {FORMAT}", str(path), AGAIN)
    if block.get("version") != VERSION:
        what = f"is of version {block.get('version')}, this ForgeField reads version {VERSION}"
        raise DataError(what, str(path), "use the ForgeField that wrote it, or convert the data again")
    crc = block.pop("crc32", None)
    if crc != zlib.crc32(json.dumps(block, indent=1).encode()):
        raise DataError("was changed or damaged: its checksum is wrong", str(path), AGAIN)
    for name in ("format", "version", "units"):
        block.pop(name)
    shards = tuple(ShardEntry(**entry) for entry in block.pop("shards"))
    return Header(shards=shards, **block)
