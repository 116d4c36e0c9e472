"""Which updates of a training are carried out to learn what all of them cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from forgefield.data.loader import Loader
from forgefield.data.sizes import Planned, Sizes, plan_batches, total
from forgefield.train.plan import batches_per_update
from forgefield.train.settings import TrainSettings

MOST_STEPS = 20  # batches that go forward and backward
MOST_PER_UPDATE = 3  # batches of an update that are carried out, where updates have more
_FIRST, _PROBES, _FEW = 2, 2, 8
Kind = Literal["first", "largest", "typical", "probe"]


@dataclass(frozen=True, eq=False)
class Trial:
    """An update to carry out.

    Args:
        kind: first (pays for what happens once), largest, typical, or probe (of another batch size).
        places: of the structures of each of its batches.
    """

    kind: Kind
    places: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Plan:
    """What training will meet, and what is tried of it.

    Args:
        epochs: updates of each epoch looked at, each a list of batches.
        per_update: batches of an update that are carried out.
        trials: in the order in which they are carried out: memory grows only when a trial needs more than all before.
        probes: updates of other batch sizes, the smaller size first.
    """

    epochs: list[list[list[Planned]]]
    per_update: int
    trials: list[Trial]
    probes: list[Trial]

    @property
    def batches(self) -> list[Planned]:
        """All batches looked at."""
        return [batch for epoch in self.epochs for update in epoch for batch in update]


def make_plan(loader: Loader, sizes: Sizes, settings: TrainSettings, epochs: int) -> Plan:
    """Choose updates for at most `MOST_STEPS` batches."""
    planned = [_updates(batches, settings) for batches in plan_batches(loader, sizes, epochs)]
    everything = [update for epoch in planned for update in epoch]
    per_update = min(batches_per_update(len(loader), settings), MOST_PER_UPDATE)
    budget = MOST_STEPS // per_update
    n_probes = 0 if not loader.limits.plain else _PROBES if budget >= 2 * _FEW else 1 if budget >= _FEW else 0
    by_edges = sorted(everything, key=lambda update: total([b.size for b in update]).edges)
    first = [_trial("first", by_edges[k], per_update) for k in (0, len(by_edges) // 2)]
    largest = [Trial("largest", _around(update, batch, per_update)) for update, batch in _largest(everything)]
    left = budget - len(first) - len(largest) - 2 * n_probes
    typical = [_trial("typical", by_edges[k], per_update) for k in _spread(len(by_edges), left)]
    probes = _probes(by_edges[len(by_edges) // 2][0].places, loader, n_probes)
    return Plan(planned, per_update, [*first, *largest, *typical], [p for p in probes for _ in range(2)])


def _updates(batches: list[Planned], settings: TrainSettings) -> list[list[Planned]]:
    """Group the batches of an epoch as the fit does; with `drop_last` an update that is not full is left out."""
    size = batches_per_update(len(batches), settings)
    found = [batches[k : k + size] for k in range(0, len(batches), size)]
    return [update for update in found if len(update) == size] if settings.drop_last else found


def _trial(kind: Kind, update: Sequence[Planned], per_update: int) -> Trial:
    return Trial(kind, [batch.places for batch in update[:per_update]])


def _largest(updates: list[list[Planned]]) -> list[tuple[list[Planned], Planned]]:
    """Return the batch of most edges and that of the largest neighbour table, with their updates; often one."""
    pairs = [(update, batch) for update in updates for batch in update]
    by_edges = max(pairs, key=lambda pair: pair[1].size.edges)
    by_slots = max(pairs, key=lambda pair: pair[1].size.slots)
    return [by_edges] if by_edges[1] is by_slots[1] else [by_edges, by_slots]


def _around(update: list[Planned], batch: Planned, count: int) -> list[np.ndarray]:
    """Return so many batches of an update, one of them the given one."""
    others = [other for other in update if other is not batch]
    return [batch.places, *(other.places for other in others[: count - 1])]


def _spread(n: int, count: int) -> list[int]:
    """Return evenly spread ranks of n, out of order so that a slow moment does not fall on one end."""
    ranks = ((np.arange(count) + 0.5) / max(count, 1) * n).astype(int)
    return ranks[np.argsort(np.arange(count) * 7 % max(count, 1), kind="stable")].tolist()


def _probes(typical: np.ndarray, loader: Loader, count: int) -> list[Trial]:
    """Return single batches of about half and twice (else twice and four times) the size of a typical one."""
    size = loader.limits.structures or len(typical)
    wanted = [size // 2, 2 * size] if size > 1 else [2, 4]
    n = len(loader.dataset)
    others = np.setdiff1d(np.arange(n), typical)
    pool = np.concatenate([typical, np.random.default_rng(0).permutation(others)])
    found = [Trial("probe", [pool[:k]]) for k in wanted if 0 < k <= n and k != size]
    return found[-count:] if count else []
