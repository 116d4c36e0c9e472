"""What a new model shall predict, and from which inputs: as the settings ask, and as the data are."""

from __future__ import annotations

import numpy as np

from forgefield.app.run import RunConfig
from forgefield.core.catalog import Catalog
from forgefield.core.errors import DataError
from forgefield.core.quantities import ALWAYS, DERIVED, QUANTITIES, Quantity
from forgefield.data.dataset import Dataset
from forgefield.data.parts import TrainingData, open_part
from forgefield.data.statistics import Statistics
from forgefield.models.targets import Aims, Spread, is_scaled


def aims_of(config: RunConfig, train: Dataset) -> Aims:
    """Return what a new model is made for; the spreads of its targets are measured later.

    A model whose loss knows neither energy nor forces nor stress has no energy at all, so that none is shown.

    Raises:
        DataError: a target is nowhere in the training data, or a feature is no row of numbers per structure.
    """
    targets = [_quantity(name, train) for name in config.train.targets if name not in DERIVED]
    return Aims(tuple(targets), bool(config.train.trained_labels() & {*ALWAYS}), _features(train))


def with_spreads(aims: Aims, statistics: Statistics) -> Aims:
    """Return the aims with what was measured of their targets."""
    scaled = {q.name for q in aims.targets if is_scaled(q)}
    found = {name: Spread(tuple(m["mean"]), tuple(m["std"])) for name, m in statistics.targets.items()}
    return aims._replace(spreads={name: spread for name, spread in found.items() if name in scaled})


def _quantity(name: str, train: Dataset) -> Quantity:
    if name in QUANTITIES:
        return QUANTITIES[name]
    survey = train.survey
    for place in np.flatnonzero(survey.where(name in kind.labels for kind in survey.kinds))[:1]:
        return train[int(place)].declared[name]
    others = sorted({o for part in train.parts for o in part.others})
    instead = f"; the files have {', '.join(others)}" if others else ""
    fix = f"declare it: data.targets: {{{name}: {{key: NAME_IN_THE_FILE, per: structure}}}}"
    raise DataError(f"no frame has the target {name}{instead}", train.name, fix)


def _features(train: Dataset) -> tuple[tuple[str, int], ...]:
    first = train[0]
    found: list[tuple[str, int]] = []
    for name, value in sorted(first.features.items()):
        if value.ndim != 1:
            fix = "give numbers of the structure, (k,), or take it out of data.features"
            raise DataError(f"the feature {name} has one row per atom, which no architecture uses", first.origin, fix)
        found.append((name, len(value)))
    return tuple(found)


def judges_unseen(config: RunConfig) -> bool:
    """Whether a new model may be asked of elements that no structure trained.

    Models of properties may, if they describe elements by what is known of them; energies would have no reference.
    """
    if config.train.trained_labels() & {*ALWAYS} or config.task not in ("train", "resume"):
        return False
    if config.task == "resume":  # the model that is taken up knows its elements
        return True
    build = Catalog("forgefield.models.architectures").entry(str(config.backend)).build
    return bool(getattr(build, "describes_elements", False))


def unseen_elements(config: RunConfig, data: TrainingData) -> list[int]:
    """Return elements of the validation and test structures that no training structure has, where that is allowed."""
    if not judges_unseen(config):
        return []
    others = [data.val, data.test, open_part(config.data, "test") if config.data.test else None]
    found = {z for part in others if part is not None for z in part.elements()}
    return sorted(found - set(data.train.elements()))
