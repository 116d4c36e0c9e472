"""Delta-learning: structures whose labels are what a cheaper level of theory lacks of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.parts import View
from forgefield.data.reader import Frames
from forgefield.data.survey import Survey

BaseOf = Callable[[Structure], Mapping[str, np.ndarray]]
"""Values of a cheaper level by quantity name, as in `Structure.base`."""


class Differences(Frames):
    """A data set whose labels are replaced by label minus base; `Structure.base` holds what was subtracted.

    Args:
        dataset: the structures as they are labelled.
        base: gives the base labels of a structure.
        learned: quantities that are learned as differences; the others stay as they are labelled.
    """

    def __init__(self, dataset: Dataset, base: BaseOf, learned: Collection[str]) -> None:
        super().__init__(dataset.name, {})
        self.dataset, self._base, self._learned = dataset, base, frozenset(learned)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Structure:
        structure = self.dataset[index]
        base = {n: np.asarray(v) for n, v in self._base(structure).items() if n in self._learned}
        labels = dict(structure.labels)
        for name in self._learned & labels.keys():
            if name not in base:
                raise missing_base(structure, name)
            labels[name] = labels[name] - base[name]
        return dataclasses.replace(structure, labels=labels, base=base)

    def survey(self) -> Survey:
        """Return what is known of the structures: differences are labels of the same names."""
        return self.dataset.survey


def missing_base(structure: Structure, name: str) -> DataError:
    """Return the error of a structure without base label."""
    has = ", ".join(sorted(structure.base)) or "none"
    fix = f"name it: data.base: {{{name}: KEY}}; or leave the structure out"
    return DataError(f"has no base label {name} (its base labels: {has})", structure.origin, fix)


def as_labelled(dataset: Dataset) -> Dataset:
    """Return the structures of a data set with the labels that their sources gave them."""
    if not any(isinstance(part, (Differences, View)) for part in dataset.parts):
        return dataset
    if len(dataset.parts) == 1 and np.array_equal(dataset.indices, np.arange(len(dataset.parts[0]))):
        part = dataset.parts[0]
        inner = part.dataset if isinstance(part, (Differences, View)) else dataset
        return as_labelled(inner)
    return Dataset([_plain(part) for part in dataset.parts], dataset.indices)


def _plain(part: Frames) -> Frames:
    return View(as_labelled(part.dataset)) if isinstance(part, (Differences, View)) else part
