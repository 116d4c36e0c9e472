"""Which batch size uses the machine well: fast enough, and within memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forgefield.app.forecast.cost import fit_cost, work_of
from forgefield.app.forecast.trial import Step
from forgefield.data.sizes import BatchSize

SHARE = 0.7  # of the memory that a proposal may fill
ENOUGH, KEPT = 0.9, 0.8  # of the best speed: good enough to propose, good enough to keep
_BEYOND = 2.0  # times the largest size measured: further the fit is not trusted
_ROUND = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024)


@dataclass(frozen=True)
class Candidate:
    """A batch size.

    Args:
        structures: per batch; the unit of `train.batch_size`.
        atoms: per batch on average.
        structures_per_second: in training, at one batch per update.
        peak: memory, bytes.
        measured: whether a batch of this size was carried out.
        fits: whether it stays within `SHARE` of the memory.
    """

    structures: int
    atoms: float
    structures_per_second: float
    peak: float
    measured: bool
    fits: bool


@dataclass(frozen=True)
class Proposal:
    """The batch size to use, the one in use, why, and all that were compared."""

    batch_size: int
    atoms: float
    now: int
    why: str
    candidates: tuple[Candidate, ...]

    @property
    def changes(self) -> bool:
        """Say whether it differs from the one in use."""
        return self.batch_size != self.now


def propose(
    steps: Sequence[Step],
    now: int,
    mean: tuple[float, float],
    memory: Callable[[float], float],
    limit: int | None,
    most: int,
) -> Proposal:
    """Choose the smallest batch that is almost as fast as the fastest that fits; keep the one in use if it is.

    Args:
        steps: carried out at different batch sizes.
        now: structures per batch in the settings.
        mean: atoms and edges of a structure, on average.
        memory: atoms in a batch -> peak memory, bytes.
        limit: memory that there is, bytes; None if unknown.
        most: structures in the data set.
    """
    typical = [_middle(group) for group in _by_size(steps)]
    cost = fit_cost([work_of(step.sizes) for step in typical], [step.seconds for step in typical])
    done = {step.sizes[0].structures for step in typical}
    found = []
    for size in sorted({now, *done, *_ROUND}):
        if size > most or (size > _BEYOND * max(done) and size != now):
            continue
        atoms, edges = size * mean[0], size * mean[1]
        speed = size / float(cost.parts @ (1.0, atoms, edges))
        peak = memory(atoms)
        found.append(Candidate(size, atoms, speed, peak, size in done, limit is None or peak <= SHARE * limit))
    return _chosen(found, now)


def kept(sizes: Sequence[BatchSize], limits: str) -> Proposal:
    """Return that batches which are limited otherwise than by their number of structures stay as they are."""
    structures = round(sum(size.structures for size in sizes) / len(sizes))
    atoms = sum(size.atoms for size in sizes) / len(sizes)
    return Proposal(structures, atoms, structures, f"batches of {limits} are what was asked for", ())


def _by_size(steps: Sequence[Step]) -> list[list[Step]]:
    key = lambda step: step.sizes[0].structures  # noqa: E731
    return [list(group) for _, group in itertools.groupby(sorted(steps, key=key), key=key)]


def _middle(group: list[Step]) -> Step:
    """Return the step of median speed; the first one of a probe allocates and does not count."""
    later = group[1:] if group[0].kind == "probe" and len(group) > 1 else group
    return sorted(later, key=lambda step: step.seconds / work_of(step.sizes)[1])[len(later) // 2]


def _chosen(found: list[Candidate], now: int) -> Proposal:
    fitting = [c for c in found if c.fits] or found[:1]
    best = max(c.structures_per_second for c in fitting)
    enough = next(c for c in fitting if c.structures_per_second >= ENOUGH * best)
    own = next(c for c in found if c.structures == now)
    if not own.fits:
        why = f"batches of {now} fill more than {100 * SHARE:.0f} % of the memory"
    elif own.structures_per_second >= KEPT * best:
        enough, why = own, f"no size that fits is more than {100 * (1 / KEPT - 1):.0f} % faster"
    else:
        gain = enough.structures_per_second / own.structures_per_second
        why = f"{gain:.1f} times as many structures per second as batches of {now}; larger ones gain little"
    return Proposal(enough.structures, enough.atoms, now, why, tuple(found))
