"""What every export format can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from forgefield.core.structure import Structure
from forgefield.export.prediction import Candidate
from forgefield.models.potential import Potential


class Target(ABC):
    """A file format a potential can be handed out in.

    Subclasses say what the file is called (`filename`, inside the artifact folder), what it is (`format`), and which
    code runs its hot sums (`kernels`, for the certificate).
    """

    filename: str
    format: str
    kernels: str = "plain PyTorch"

    @abstractmethod
    def write(self, potential: Potential, path: Path, sample: Structure) -> None:
        """Write the potential to `path`; `sample` is a structure with at least one pair, to run it on."""

    @abstractmethod
    def read(self, path: Path) -> Candidate:
        """Load the file and return a function that predicts a structure with it, for verification."""
