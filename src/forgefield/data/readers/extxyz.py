"""Extended XYZ: text files, plain or compressed with xz or gzip."""

from __future__ import annotations

import gzip
import lzma
import zlib
from pathlib import Path

from forgefield.core.catalog import Entry
from forgefield.data.extxyz.frames import ExtxyzFrames
from forgefield.data.extxyz.text import GZIP, XZ, open_text, start_of
from forgefield.data.reader import Reader, ReaderSettings


class ExtxyzSettings(ReaderSettings):
    """Extended XYZ as ASE, MACE, QUIP and many others write it."""


class ExtxyzReader(Reader):
    """Reads the file once to find its frames, and each frame when it is asked for."""

    def __init__(self, settings: ExtxyzSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether the first line that is not empty is a count of atoms."""
        if not path.is_file():
            return False
        try:
            with open_text(path) as stream:
                line = next((x for x in iter(lambda: stream.readline(4096), b"") if x.strip()), b"").decode()
        except (OSError, EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile):
            return start_of(path).startswith((XZ, GZIP))  # damaged: `open` says so
        except UnicodeDecodeError:
            return False
        return line.strip().isdigit()

    def open(self, path: Path) -> ExtxyzFrames:
        """Return the frames of the file.

        Raises:
            DataError: the file is empty or cut off, its counts of atoms are wrong, or its labels cannot be told apart.
        """
        skip = self.settings.on_error == "skip"
        return ExtxyzFrames(path, self.settings.keys, self.settings.units, skip=skip)


ENTRY = Entry(ExtxyzSettings, ExtxyzReader, "extended XYZ, plain, .xz or .gz")
