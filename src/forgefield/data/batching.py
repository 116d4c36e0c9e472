"""How the structures of an epoch are divided into batches."""

from __future__ import annotations

import heapq
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple, final

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.bins import fewest_bins, roomy_bins, spread
from forgefield.data.dataset import Dataset

Oversize = Literal["refuse", "alone"]
LOOKED_AHEAD = 8  # epochs of varying contents that the number of batches is chosen for
_MARGIN = 1.02  # batches beyond what those need


class Limits(NamedTuple):
    """What no batch may exceed; None = no limit.

    Args:
        structures: number of them.
        atoms: of all structures together.
        edges: directed neighbour pairs within the cutoff, two for each pair.
        same_size: only structures of one number of atoms stand in a batch.
        same_fidelity: only structures of one fidelity (head) stand in a batch.
        oversize: a structure that exceeds a limit by itself is refused, or makes a batch of its own.
    """

    structures: int | None = None
    atoms: int | None = None
    edges: int | None = None
    same_size: bool = False
    oversize: Oversize = "refuse"
    same_fidelity: bool = False

    def describe(self) -> str:
        """Return the limits in words."""
        parts = [
            *([f"{self.structures} structures"] if self.structures is not None else []),
            *([f"at most {self.atoms} atoms"] if self.atoms is not None else []),
            *([f"at most {self.edges} edges"] if self.edges is not None else []),
            *(["one size"] if self.same_size else []),
            *(["one fidelity"] if self.same_fidelity else []),
        ]
        return " and ".join(parts)

    @property
    def plain(self) -> bool:
        """Whether the number of structures is all that is limited."""
        return self.atoms is None and self.edges is None and not (self.same_size or self.same_fidelity)


class Extents(NamedTuple):
    """Sizes of the structures of a data set, by place."""

    atoms: np.ndarray  # (n,)
    edges: np.ndarray | None  # (n,), directed; None where they are not limited
    levels: np.ndarray | None = None  # (n,), number of the fidelity; None where it does not matter


class Batching(ABC):
    """Divides an epoch; every epoch has the same number of batches, so that updates can be planned ahead."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Batches per epoch."""

    @abstractmethod
    def divide(self, order: np.ndarray, epoch: int) -> list[np.ndarray]:
        """Return the places in the data set of each batch.

        Args:
            order: places in the data set in the order of the epoch, (n,).
            epoch: its number; the same epoch is always divided alike.
        """


@final
class ByCount(Batching):
    """Batches of so many structures in the order of the epoch; the last one may be smaller.

    Args:
        n_drawn: structures of an epoch.
        size: structures of a batch.
        drop_last: leave out the last batch if it is not full.
    """

    def __init__(self, n_drawn: int, size: int, *, drop_last: bool = False) -> None:
        whole, rest = divmod(n_drawn, size)
        self.size, self._count = size, whole + (1 if rest and not drop_last else 0)

    @property
    def count(self) -> int:
        """Batches per epoch."""
        return self._count

    def divide(self, order: np.ndarray, epoch: int) -> list[np.ndarray]:
        """Return the places in the data set of each batch."""
        del epoch
        return [order[k * self.size : (k + 1) * self.size] for k in range(self._count)]


class _Measured:
    """Structures measured by the limits."""

    def __init__(self, limits: Limits, extents: Extents) -> None:
        self.limits, self.group = limits, _groups(limits, extents)
        columns = [np.ones(len(extents.atoms), dtype=np.int64)]
        capacity = [limits.structures or len(extents.atoms)]
        if limits.atoms is not None:
            columns.append(extents.atoms)
            capacity.append(limits.atoms)
        if limits.edges is not None:
            assert extents.edges is not None
            columns.append(extents.edges)
            capacity.append(limits.edges)
        self.sizes, self.capacity = np.stack(columns, axis=1), np.array(capacity, dtype=np.int64)
        self.alone: np.ndarray = np.any(self.sizes > self.capacity, axis=1)

    def groups(self, places: np.ndarray) -> list[np.ndarray]:
        """Return the places that may stand together, without those that stand alone."""
        rest = places[~self.alone[places]]
        groups = self.group[rest]
        return [rest[groups == n] for n in np.unique(groups).tolist()]


def _groups(limits: Limits, extents: Extents) -> np.ndarray:
    """Number of the group of each structure, (n,): only those of one group may meet in a batch."""
    found = extents.atoms if limits.same_size else np.zeros(len(extents.atoms), dtype=np.int64)
    if limits.same_fidelity:
        assert extents.levels is not None
        found = found * (1 + int(extents.levels.max(initial=0))) + extents.levels
    return found


@final
class Packed(Batching):
    """Batches within limits, filled evenly; which structures meet is drawn anew for each epoch.

    Args:
        limits: of each batch.
        extents: of the structures of the data set.
        epochs: places of the structures of the first epochs; a single one where all epochs hold the same structures.
        seed: of the draws.
        kept: structures that every epoch has and that must find room, by place, (n,) bool; others are spread evenly.
    """

    def __init__(
        self,
        limits: Limits,
        extents: Extents,
        epochs: Sequence[np.ndarray],
        seed: int,
        kept: np.ndarray | None = None,
    ) -> None:
        self._measured, self._seed, self._kept = _Measured(limits, extents), seed, kept
        self._same = len(epochs) == 1
        self._rooms: dict[int, int] = {}
        if self._same:
            groups = self._measured.groups(epochs[0])
            self._rooms = {self._key(group): self._roomy(group) for group in groups}
            self._count = sum(self._rooms.values()) + int(self._measured.alone[epochs[0]].sum())
        else:
            needed = max(self._needed(places) for places in epochs)
            self._count = min(int(np.ceil(_MARGIN * needed)), *(len(places) for places in epochs))
            if kept is not None:
                self._count = max(self._count, self._needed(np.flatnonzero(kept)))

    @property
    def count(self) -> int:
        """Batches per epoch."""
        return self._count

    def divide(self, order: np.ndarray, epoch: int) -> list[np.ndarray]:
        """Return the places in the data set of each batch; the largest structure of each first.

        Where the contents of epochs vary (weighted draws) an epoch holds what fits into its batches: at most a few
        draws less than planned.
        """
        random = np.random.default_rng([self._seed, epoch, 7])
        found = self._packed(order, random)
        if self._kept is not None and not self._has_kept(found[: self._count]):
            first = self._kept[order]
            found = self._packed(order[first], random, fewest=True) + self._packed(order[~first], random, fewest=True)
        found = _split_up(found, self._count)
        return [found[k] for k in random.permutation(len(found))]

    def _packed(self, order: np.ndarray, random: np.random.Generator, *, fewest: bool = False) -> list[np.ndarray]:
        """Return batches of all that find room in so many as there are, or else as are needed."""
        found = [order[k : k + 1] for k in np.flatnonzero(self._measured.alone[order])]
        groups = self._measured.groups(order)
        bins = [self._fewest(g) for g in groups] if fewest else self._bins(groups, self._count - len(found))
        for group, n_bins in zip(groups, bins, strict=True):
            found += self._spread(group, n_bins, random)
        return found

    def _has_kept(self, batches: list[np.ndarray]) -> bool:
        assert self._kept is not None
        found = np.concatenate([*batches, np.zeros(0, dtype=np.int64)])
        return int(self._kept[found].sum()) == int(self._kept.sum())

    def _key(self, group: np.ndarray) -> int:
        return int(self._measured.group[group[0]])

    def _roomy(self, group: np.ndarray) -> int:
        return roomy_bins(self._measured.sizes[group], self._measured.capacity)

    def _fewest(self, group: np.ndarray) -> int:
        return fewest_bins(self._measured.sizes[group], self._measured.capacity)

    def _needed(self, places: np.ndarray) -> int:
        alone = int(self._measured.alone[places].sum())
        return alone + sum(self._fewest(group) for group in self._measured.groups(places))

    def _bins(self, groups: list[np.ndarray], count: int) -> list[int]:
        """Return the batches of each group."""
        if self._same:
            return [self._rooms[self._key(group)] for group in groups]
        return [self._fewest(group) for group in groups] if len(groups) > 1 else [max(count, 0)] * len(groups)

    def _spread(self, group: np.ndarray, n_bins: int, random: np.random.Generator) -> list[np.ndarray]:
        """Return the places of each batch, large structures first: those who take every n-th get about equal parts."""
        sizes = self._measured.sizes[group]
        later = None if self._kept is None else self._kept[group]
        bins = spread(sizes, self._measured.capacity, n_bins, random, later)
        order = np.lexsort((-(sizes / self._measured.capacity).max(axis=1), bins))
        order = order[bins[order] >= 0]
        starts = np.searchsorted(bins[order], np.arange(n_bins + 1))
        return [group[order[a:b]] for a, b in itertools.pairwise(starts) if b > a]


def _split_up(batches: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Return so many batches: the first ones, or the largest ones halved until there are enough."""
    found = [(-len(batch), k, batch) for k, batch in enumerate(batches[:count])]
    heapq.heapify(found)
    following = itertools.count(count)
    while len(found) < count and found[0][0] < -1:
        _, _, batch = heapq.heappop(found)
        for half in (batch[0::2], batch[1::2]):
            heapq.heappush(found, (-len(half), next(following), half))
    return [batch for _, _, batch in sorted(found, key=lambda item: item[1])]


@final
class Consecutive(Batching):
    """Batches within limits that keep the order of the data: each is filled until the next structure has no room.

    Args:
        limits: of each batch.
        extents: of the structures of the data set.
    """

    def __init__(self, limits: Limits, extents: Extents) -> None:
        self._measured = _Measured(limits, extents)
        self._count = len(self.divide(np.arange(len(extents.atoms)), 0))

    @property
    def count(self) -> int:
        """Batches per epoch."""
        return self._count

    def divide(self, order: np.ndarray, epoch: int) -> list[np.ndarray]:
        """Return the places in the data set of each batch."""
        del epoch
        measured, cuts = self._measured, []
        load, last = np.zeros_like(measured.capacity), -1
        for k, place in enumerate(order.tolist()):
            load = load + measured.sizes[place]
            changes = measured.group[place] != last
            if k and (changes or (load > measured.capacity).any()):
                cuts.append(k)
                load = measured.sizes[place].copy()
            last = measured.group[place]
        return [part for part in np.split(order, cuts) if len(part)]


def check_extents(dataset: Dataset, limits: Limits, extents: Extents) -> None:
    """Refuse structures that exceed a limit by themselves, unless they may stand alone.

    Raises:
        DataError: the first of them, with its index.
    """
    if limits.oversize == "alone":
        return
    measures = (("atoms", limits.atoms, extents.atoms), ("edges", limits.edges, extents.edges))
    for name, limit, sizes in measures:
        if limit is None or sizes is None or int(sizes.max(initial=0)) <= limit:
            continue
        over = np.flatnonzero(sizes > limit)
        first = int(over[0])
        others = f"; {len(over)} of {len(sizes)} structures are too large" if len(over) > 1 else ""
        what = f"structure {first} has {int(sizes[first])} {name}, more than max_{name} ({limit}) allows in a batch"
        raise DataError(
            what + others,
            dataset[first].origin,
            f"set train.max_{name} to {int(sizes.max())} or more, or train.oversize: alone to give each its own batch",
        )
