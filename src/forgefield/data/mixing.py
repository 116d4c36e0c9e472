"""Old and new structures in one training set, in shares that are counted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.drawing import deal, weave
from forgefield.data.reader import Frames


class OldFrames(Frames):
    """Old structures, with their head filled in and their weights times a factor.

    Args:
        dataset: the structures.
        head: of those that name none; None leaves them to the first head of the model.
        weight: factor on the weights.
    """

    def __init__(self, dataset: Dataset, head: str | None, weight: float) -> None:
        others = sorted({name for part in dataset.parts for name in part.others})
        super().__init__(dataset.name, dataset.parts[0].chosen if dataset.parts else {}, others, dataset.notes)
        self._dataset, self._head, self._weight = dataset, head, weight

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Structure:
        found = self._dataset[index]
        return dataclasses.replace(found, head=found.level or self._head, weight=found.weight * self._weight)


@dataclass(frozen=True)
class Mixture:
    """How new and old structures are drawn: places below `n_new` are new, the others old.

    Args:
        n_new: new structures; each epoch has all of them.
        n_old: old structures there are.
        n_drawn: old structures in an epoch, others in each.
        seed: of the draws.
    """

    n_new: int
    n_old: int
    n_drawn: int
    seed: int

    @property
    def share(self) -> float:
        """Share of old structures in an epoch."""
        return self.n_drawn / (self.n_new + self.n_drawn)

    def order(self, epoch: int) -> np.ndarray:
        """Places in the order of an epoch, (n_new + n_drawn,): old ones are spread evenly between the new.

        Old structures are dealt from a shuffled deck that goes on from epoch to epoch, so that all are seen equally
        often. Any run of n places holds its share of old ones to within one or two.
        """
        random = np.random.default_rng([self.seed, epoch])
        new, old = random.permutation(self.n_new), self.n_new + self._dealt(epoch)
        order = weave((self.n_new, self.n_drawn), random)
        return np.concatenate([new, random.permutation(old)])[order]

    def _dealt(self, epoch: int) -> np.ndarray:
        """Old structures of an epoch, counted from 0, (n_drawn,)."""
        return deal(self.n_old, epoch * self.n_drawn, self.n_drawn, lambda number: [self.seed, number, 1])


def drawn_of(n_new: int, n_old: int, fraction: float | None) -> int:
    """Return how many old structures make up `fraction` beside `n_new` new ones; None takes all of them.

    Raises:
        DataError: there are not so many, or the share would be none.
    """
    if fraction is None:
        return n_old
    n = round(n_new * fraction / (1.0 - fraction))
    if n < 1:
        raise DataError(
            f"{fraction:g} of an epoch beside {n_new} new structures is not one old structure",
            "finetune.replay.fraction",
            "raise it",
        )
    if n > n_old:
        most = n_old / (n_new + n_old)
        what = f"{fraction:g} needs {n} old structures beside {n_new} new ones, there are {n_old}"
        raise DataError(what, "finetune.replay.fraction", f"lower it to {most:.3f} or less, or give more old data")
    return n


def spread(n: int, chosen: int) -> np.ndarray:
    """Return `chosen` of n places, spread evenly, (chosen,)."""
    return np.floor(np.arange(chosen) * n / chosen).astype(np.int64)
