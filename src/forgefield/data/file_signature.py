"""Notice that a file changes while it is in use."""

from __future__ import annotations

from pathlib import Path

from forgefield.core.errors import DataError


class Signature:
    """Size, time and identity of a file or folder when it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._look()

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def check(self) -> None:
        """Refuse to read on from another file than was opened.

        Raises:
            DataError: it is gone or was written to since.
        """
        if self._look() != self._seen:
            raise DataError("was changed while it was in use", str(self._path), "start again")
