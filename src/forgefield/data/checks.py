"""Questions to ask of a data set before training on it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from forgefield.core.elements import symbol
from forgefield.core.errors import DataError
from forgefield.core.quantities import ALWAYS, QUANTITIES
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import are_isolated

SHOWN = 5


def check_labels(dataset: Dataset, needed: Collection[str], *, some: bool = False) -> None:
    """Refuse data in which a needed label is missing.

    Frames of one free atom need no forces and no stress: both vanish.

    Args:
        dataset: what is to be trained on or evaluated.
        needed: quantity names, for example {"energy", "forces"}.
        some: be content with some frames that have the label.

    Raises:
        DataError: names the label, how many frames lack it and the first of them, and what the files have instead.
    """
    survey = dataset.survey
    seen = {name for kind in survey.present() for name in kind.labels}
    free = are_isolated(dataset)
    for name in sorted(needed):
        lacking = survey.where(name not in kind.labels for kind in survey.kinds)
        places = np.flatnonzero(lacking if name == "energy" else lacking & ~free)
        if not len(places):
            continue
        if name not in seen:
            others = sorted({o for part in dataset.parts for o in part.others})
            instead = f"; the files have {', '.join(others)}" if others else ""
            key = f"set data.{name}_key to the right name" if name in QUANTITIES else f"declare data.targets.{name}"
            fix = f"{key}, or do not train {name} (its weight 0)"
            own = sorted(seen - set(QUANTITIES))
            if own and not seen & {*ALWAYS}:
                weights = "train.energy_weight 0, train.force_weight 0"
                fix += f", or learn {own[0]} alone: {weights}, train.targets {{{own[0]}: {{weight: 1}}}}"
            raise DataError(f"no frame has {name}{instead}", dataset.name, fix)
        if some:
            continue
        origins = [dataset[int(place)].origin for place in places[:SHOWN]]
        listing = ", ".join(origins) + (", ..." if len(places) > SHOWN else "")
        raise DataError(
            f"{len(places)} of {len(dataset)} frames have no {name}: {listing}",
            dataset.name,
            f"remove these frames, label them, do not train {name} (its weight 0), or set train.missing_labels: mask",
        )


def check_fixed(dataset: Dataset) -> None:
    """Refuse to leave out fixed atoms of data without any.

    Raises:
        DataError: no atom is held fixed.
    """
    if not any(kind.fixed for kind in dataset.survey.present()):
        fix = "remove train.train_on_free_atoms, or give the constraints (move_mask in extxyz, `fixed` in LMDB)"
        raise DataError("no atom is held fixed", dataset.name, fix)


def check_tags(dataset: Dataset, named: Collection[int]) -> None:
    """Refuse to weigh atoms by tags that none of them has; an atom without tag has tag 0.

    Raises:
        DataError: names the tags that no atom has.
    """
    found: set[int] = set()
    for s in dataset:
        found |= {0} if s.tags is None else set(np.unique(s.tags).tolist())
    lacking = sorted(set(named) - found)
    if lacking:
        raise DataError(
            f"no atom has tag {', '.join(map(str, lacking))}",
            dataset.name,
            f"train.tag_weights may name {', '.join(map(str, sorted(found)))}",
        )


def check_elements(
    dataset: Dataset, elements: Collection[int], owner: str = "the training data", *, drawn: bool = False
) -> None:
    """Refuse structures with elements that `owner` does not know.

    Args:
        dataset: the structures.
        elements: atomic numbers that are known.
        owner: of them.
        drawn: whether the structures are a part of the same source, so that other parts could be drawn.

    Raises:
        DataError: names the elements and the first frame.
    """
    known, survey = sorted(elements), dataset.survey
    strange = survey.where(not set(kind.elements) <= set(known) for kind in survey.kinds)
    for place in np.flatnonzero(strange)[:1]:
        structure = dataset[int(place)]
        names = ", ".join(symbol(int(z)) for z in np.setdiff1d(structure.numbers, known))
        raise DataError(
            f"has {names}, which {owner} does not have",
            structure.origin,
            f"known elements: {', '.join(symbol(z) for z in known)}; remove the frame or train with {names}"
            + (" (data.split draws other parts)" if drawn else ""),
        )
