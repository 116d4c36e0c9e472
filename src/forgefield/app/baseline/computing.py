"""Computing the base labels of whole data sets, and looking whether those of the data are what they are said to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from forgefield.app.baseline.cache import Failure
from forgefield.app.baseline.labels import BaseLabels, unsolved
from forgefield.core.errors import DataError
from forgefield.core.quantities import QUANTITIES
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.differences import missing_base
from forgefield.models.baseline.xtb import NAMES

SAMPLE = 5  # structures whose own base labels are computed again
TOLERANCES = {"energy": 1e-4, "forces": 2e-3, "stress": 1e-4, "charges": 1e-3, "dipole": 5e-3}
"""Largest difference between base labels of the data and of the program; energies per atom; eV, Å, e."""
SHOWN = 5


@dataclass
class Counts:
    """Where base labels came from, structures counted once per data set that holds them."""

    stated: int = 0
    kept: int = 0
    computed: int = 0
    failures: list[DataError] = field(default_factory=list)

    def to_json(self) -> dict[str, int]:
        """Return plain values for the record."""
        return {"from_data": self.stated, "kept": self.kept, "computed": self.computed, "failed": len(self.failures)}


def complete(labels: BaseLabels, datasets: Sequence[Dataset], console: Console) -> tuple[Counts, list[np.ndarray]]:
    """Find or compute the base labels of every structure, with a progress bar on a terminal.

    Returns:
        Where they came from, and the places in each data set of the structures that have none.

    Raises:
        DataError: with method labels, the data lack one that is needed.
        ModelError: something has to be computed and the program is not installed.
    """
    counts, lacking = Counts(), []
    columns = (TextColumn(labels.settings.name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(map(len, datasets)))
        for dataset in datasets:
            places = []
            for place, structure in enumerate(dataset):
                if not _find(labels, structure, counts):
                    places.append(place)
                bar.advance(task)
            lacking.append(np.array(places, dtype=np.int64))
    labels.cache.commit()
    return counts, lacking


def _find(labels: BaseLabels, structure: Structure, counts: Counts) -> bool:
    """Find or compute the base labels of one structure; False if there are none."""
    settings = labels.settings
    if not settings.computed:
        missing = [n for n in settings.learned if n in structure.labels and n not in structure.base]
        if missing:
            raise missing_base(structure, missing[0])
    if "charges" in settings.targets and structure.charge:
        what = f"has a total charge of {structure.charge:g}: a model's charges add up to it, their differences to 0"
        raise DataError(
            what, structure.origin, "remove charges from model.baseline.targets: they are learned as a whole"
        )
    if not settings.computed or labels.stated(structure):
        counts.stated += 1
        return True
    known = labels.known(structure)
    found = labels.result(structure)
    if isinstance(found, Failure):
        counts.failures.append(unsolved(structure, found))
        return False
    counts.kept, counts.computed = counts.kept + known, counts.computed + (not known)
    return True


def refuse(failures: Sequence[DataError]) -> DataError:
    """Return the error of structures that have no base labels."""
    if len(failures) == 1:
        return failures[0]
    listing = "; ".join(f"{f.where}: {f.what}" for f in failures[:SHOWN]) + ("; ..." if len(failures) > SHOWN else "")
    what = f"{len(failures)} structures have no base labels: {listing}"
    return DataError(what, "model.baseline", "repair them or take them out; or data.on_error: skip leaves them out")


def verify(labels: BaseLabels, datasets: Sequence[Dataset]) -> int:
    """Compute a few structures whose base labels the data bring, and compare.

    Returns:
        How many were compared.

    Raises:
        DataError: they are not of the level that they are said to be of.
    """
    if not labels.settings.computed:
        return 0
    stated = [s for dataset in datasets for s in _spread(dataset)]
    for structure in stated:
        found = labels.result(structure)
        if isinstance(found, Failure):
            continue
        for name, tolerance in TOLERANCES.items():
            if name not in structure.base or name not in found or name not in labels.settings.learned:
                continue
            size = len(structure) if name == "energy" else 1
            off = float(np.abs(structure.base[name] - found[name]).max())
            if off > tolerance * size:
                raise _disagreement(structure, name, off, labels)
    return len(stated)


def _spread(dataset: Dataset) -> list[Structure]:
    """A few structures that bring base labels, spread over the data set."""
    chosen: list[Structure] = []
    for place in np.unique(np.linspace(0, len(dataset) - 1, 4 * SAMPLE).astype(int)) if len(dataset) else ():
        structure = dataset[int(place)]
        chosen += [structure] if structure.base else []
    return chosen[:: max(1, len(chosen) // SAMPLE)][:SAMPLE]


def _disagreement(structure: Structure, name: str, off: float, labels: BaseLabels) -> DataError:
    method = NAMES[labels.settings.method]
    charge, spin = structure.charge or 0, structure.multiplicity or "the lowest"
    what = (
        f"its base label {name} differs by up to {off:.3g} {QUANTITIES[name].unit} from {method} as tblite computes it "
        f"(charge {charge:g}, multiplicity {spin})"
    )
    fix = (
        "check units, charge and multiplicity of the data; name the method that they are of in model.baseline; "
        "or remove data.base, then they are computed"
    )
    return DataError(what, structure.origin, fix)
