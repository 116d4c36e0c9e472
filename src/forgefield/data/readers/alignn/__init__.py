"""ALIGNN's data: id_prop.json, plain or zipped, and id_prop.csv with a file for each structure."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.data.json_list import ZIP, json_member
from forgefield.data.lazy_frames import LazyFrames
from forgefield.data.reader import Reader, ReaderSettings
from forgefield.data.readers.alignn.records import RecordFrames
from forgefield.data.readers.alignn.table import TableFrames, is_table

NAMES = ("id_prop.json.zip", "id_prop.json", "id_prop.csv")
PEEKED = 1 << 22  # bytes; long arrays may stand before the atoms


class AlignnSettings(ReaderSettings):
    """ALIGNN's id_prop files. Energies of id_prop.json are per atom unless they are seen to be totals."""


class AlignnReader(Reader):
    """Reads structures one by one, when they are asked for."""

    def __init__(self, settings: AlignnSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is a JSON list of records with `lattice_mat`, a table of files, or a folder with one."""
        if path.is_dir():
            return _inside(path) is not None
        if not path.is_file():
            return False
        return _is_records(path) or is_table(path)

    def open(self, path: Path) -> LazyFrames:
        """Return the structures in the order of the file.

        Raises:
            DataError: no id_prop file, or it is damaged.
        """
        file = _inside(path) if path.is_dir() else path
        if file is None:
            raise DataError(f"the folder holds none of {', '.join(NAMES)}", str(path), "give ALIGNN's data folder")
        if _is_records(file) or file.suffix != ".csv":
            return RecordFrames(file, self.settings)
        return TableFrames(file, self.settings)


def _inside(folder: Path) -> Path | None:
    """The id_prop file of a folder, or of its only subfolder that has one; ALIGNN looks for them in this order."""
    own = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if own is not None:
        return own
    below = [file for sub in sorted(p for p in folder.iterdir() if p.is_dir()) for file in _named(sub)]
    return below[0] if len(below) == 1 else None


def _named(folder: Path) -> Iterator[Path]:
    found = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if found is not None:
        yield found


def _is_records(path: Path) -> bool:
    """Whether a file, or the one JSON file in an archive, starts as a list of records with atoms of JARVIS."""
    try:
        with path.open("rb") as stream:
            start = stream.read(PEEKED)
        if start.startswith(ZIP):
            with zipfile.ZipFile(path) as archive:
                member = json_member(archive)
                if member is None:
                    return False
                with archive.open(member) as stream:
                    start = stream.read(PEEKED)
    except Exception:  # damaged archives end in many kinds of exceptions
        return False
    plain = start.lstrip()
    return plain[:1] == b"[" and plain[1:].lstrip()[:1] == b"{" and b'"lattice_mat"' in start


ENTRY = Entry(AlignnSettings, AlignnReader, "ALIGNN: id_prop.json(.zip), or id_prop.csv with structure files")
