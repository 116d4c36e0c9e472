"""Questions to ask of a data set before training on it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from forgefield.core.elements import symbol
from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import is_isolated

SHOWN = 5


def check_labels(dataset: Dataset, needed: Collection[str]) -> None:
    """Refuse data in which a needed label is missing.

    Frames of one free atom need no forces and no stress: both vanish.

    Args:
        dataset: what is to be trained on or evaluated.
        needed: quantity names, for example {"energy", "forces"}.

    Raises:
        DataError: names the label, how many frames lack it and the first of them, and what the files have instead.
    """
    missing: dict[str, list[str]] = {name: [] for name in sorted(needed)}
    for structure in dataset:
        lacking = [name for name in missing if name not in structure.labels]
        if lacking and is_isolated(structure):
            lacking = [name for name in lacking if name == "energy"]
        for name in lacking:
            missing[name].append(structure.origin)
    for name, origins in missing.items():
        if not origins:
            continue
        if len(origins) == len(dataset):
            others = sorted({o for part in dataset.parts for o in part.others})
            seen = f"; the files have {', '.join(others)}" if others else ""
            fix = f"set data.{name}_key to the right name, or do not train {name} (its weight 0)"
            raise DataError(f"no frame has {name}{seen}", dataset.name, fix)
        listing = ", ".join(origins[:SHOWN]) + (", ..." if len(origins) > SHOWN else "")
        raise DataError(
            f"{len(origins)} of {len(dataset)} frames have no {name}: {listing}",
            dataset.name,
            f"remove these frames, label them, or do not train {name} (its weight 0)",
        )


def check_elements(dataset: Dataset, elements: Collection[int], owner: str = "the training data") -> None:
    """Refuse structures with elements that `owner` does not know.

    Raises:
        DataError: names the elements and the first frame.
    """
    known = np.array(sorted(elements))
    for structure in dataset:
        new = np.setdiff1d(structure.numbers, known)
        if len(new):
            names = ", ".join(symbol(int(z)) for z in new)
            raise DataError(
                f"has {names}, which {owner} does not have",
                structure.origin,
                f"known elements: {', '.join(symbol(int(z)) for z in known)}; remove the frame or train with {names}",
            )
