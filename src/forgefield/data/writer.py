"""What every format that can be written offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from forgefield.core.settings import Settings
from forgefield.core.structure import Structure

WRITERS = "forgefield.data.writers"


class WriterSettings(Settings):
    """Settings of a format that is written; each format adds its own."""


class Writer(ABC):
    """One file or folder that is being written. Nothing stands at its path before `finish`.

    Args:
        path: where it will stand.
        settings: of the format.
    """

    def __init__(self, path: Path, settings: Any) -> None:
        self.path, self.settings = path, settings

    @abstractmethod
    def add(self, structure: Structure) -> None:
        """Append a structure.

        Raises:
            DataError: the format cannot hold it; says what and why.
        """

    @abstractmethod
    def finish(self) -> tuple[str, ...]:
        """Complete the file and put it at its path; returns notes on what the format could not keep."""

    @abstractmethod
    def abandon(self) -> None:
        """Take away what was written beside."""
