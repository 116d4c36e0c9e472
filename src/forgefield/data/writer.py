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

    def take_up(self, job: str) -> dict[str, Any]:
        """Go on with what a killed conversion of the same job left, if the format can.

        Args:
            job: stands for the inputs and how they are read.

        Returns:
            What `keep` was given last before the last complete transaction; empty where it begins anew.
        """
        return {}

    def forget(self) -> None:  # noqa: B027 (most formats leave nothing)
        """Take away what a killed conversion left, so that all begins anew."""

    def keep(self, progress: dict[str, Any]) -> None:  # noqa: B027 (most formats cannot)
        """Remember how far the conversion is, together with the structures added so far."""

    def pause(self) -> bool:
        """Leave off so that `take_up` can go on; returns False where all that was written is gone."""
        self.abandon()
        return False
