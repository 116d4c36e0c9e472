"""What every export format can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from forgefield.core.errors import ModelError
from forgefield.core.quantities import QUANTITIES
from forgefield.core.structure import Structure
from forgefield.export.prediction import Candidate, Prediction
from forgefield.graph.pairs import find_far_pairs
from forgefield.models.potential import Potential

METADATA = "forgefield.json"
"""Name under which `describe` is stored inside an exported file."""

BatchedCandidate = Callable[[Sequence[Structure]], list[Prediction]]
"""Predicts several structures in one call."""


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

    def takes(self, structure: Structure) -> bool:
        """Whether the file is meant for a structure; those alone are compared."""
        del structure
        return True

    def companions(self, potential: Potential) -> dict[str, str]:
        """Return the texts of further files that stand beside it, by name."""
        del potential
        return {}

    @abstractmethod
    def read(self, path: Path) -> Candidate:
        """Load the file and return a function that predicts a structure with it, for verification."""

    def read_batched(self, path: Path) -> BatchedCandidate | None:
        """Load the file and return a function that predicts several structures at once; None if it takes one only."""
        return None


def describe(potential: Potential) -> dict[str, object]:
    """Return what a program needs to know to use an exported file, as JSON values."""
    return {
        "elements": potential.elements,
        "heads": potential.heads,
        "cutoff": potential.cutoff,
        "dtype": str(potential.dtype).removeprefix("torch."),
        "units": {"length": "Å", **{q.name: q.unit for q in QUANTITIES.values()}},
        "torch": torch.__version__,
        **gives(potential),
    }


def check_files(potential: Potential, targets: Sequence[str]) -> None:
    """Refuse a model that no file can hold.

    Args:
        potential: the model.
        targets: names of the formats asked for.

    Raises:
        ModelError: one is asked for, and the model has a term or neighbours that no file is given.
    """
    file, fix = f"a file of {', '.join(targets)}", "set it to []: the weights alone serve Python and ASE"
    if targets and potential.unexportable:
        raise ModelError(f"the physics term {potential.unexportable[0]} cannot be in {file}", "export.targets", fix)
    if targets and not potential.needs.within_cutoff:
        what = f"{file} is given all neighbours within the cutoff, not those this model asks for"
        raise ModelError(what, "export.targets", fix)


def gives(potential: Potential) -> dict[str, str]:
    """Return what the numbers of a file are, where they are not energies and forces of the whole."""
    return (
        {} if potential.baseline is None else {"gives": f"the correction to {potential.baseline.name}, not the whole"}
    )


def directed_edges(structure: Structure, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Return both directions of all pairs: indices (2, E) [sender, receiver] and Cartesian shifts (E, 3), Å."""
    pairs = find_far_pairs(structure, cutoff)
    shift = pairs.shift @ structure.cell
    sender, receiver = (np.concatenate(p) for p in ((pairs.first, pairs.second), (pairs.second, pairs.first)))
    return np.stack([sender, receiver]).astype(np.int64), np.concatenate([shift, -shift])


def lattice(structure: Structure) -> np.ndarray:
    """Return the cell as exported files expect it, (3, 3), Å: zeros where nothing is periodic."""
    return structure.cell if structure.pbc.any() else np.zeros((3, 3))
