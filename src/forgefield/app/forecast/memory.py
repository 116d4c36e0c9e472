"""Peak memory of a whole run, from that of its rehearsal."""

from __future__ import annotations

import math
from dataclasses import dataclass

from forgefield.app.forecast.checking import Checking, Saving
from forgefield.app.forecast.choice import Plan
from forgefield.app.forecast.trial import Rehearsal
from forgefield.app.run import RunConfig
from forgefield.data.sizes import Sizes

_HELD_PER_ATOM = 800  # while predictions of a set are written
_FURTHER = 10.0  # times as many repetitions as were seen: growth beyond is not counted


@dataclass(frozen=True)
class Sets:
    """Sizes of the structures to train on, to validate on and to test on."""

    train: Sizes
    val: Sizes
    test: Sizes | None


@dataclass(frozen=True)
class Observed:
    """What the rehearsal showed beside its steps.

    Args:
        setup: seconds until the first step.
        epochs_done: by the run that is continued.
        peak: most memory used, bytes.
        checking: of validation.
        saving: of a checkpoint.
        export: seconds.
        crowded: whether other programs used the cores too.
    """

    setup: float
    epochs_done: int
    peak: int
    checking: Checking
    saving: Saving
    export: float
    crowded: bool


@dataclass(frozen=True)
class Memory:
    """Bytes: at most, at most in training steps, before training, that there are; and the device they are of."""

    peak: int
    training: int
    before: int
    limit: int | None
    device: str

    @property
    def share(self) -> float | None:
        """Part of the limit that is used at most."""
        return self.peak / self.limit if self.limit else None


def peak_of(config: RunConfig, plan: Plan, rehearsal: Rehearsal, sets: Sets, seen: Observed) -> Memory:
    """Return the peak: as seen, with what the allocator will still lose, or more where a large set is evaluated."""
    device, judged = rehearsal.gauge.device, 0
    if device.type != "cuda":
        atoms = max(int(s.atoms.sum()) for s in (sets.val, sets.test) if s is not None)
        judged = rehearsal.before + _HELD_PER_ATOM * atoms
    epochs, steps = config.train.epochs, [step for step in rehearsal.steps if step.kind != "probe"]
    early = [step for step in steps if step.kind != "typical"]
    training = grown(early[-1].peak, len(early), steps[-1].peak, len(steps), epochs * sum(map(len, plan.epochs[:1])))
    per_pass = -(-len(sets.val.atoms) // config.data.unmeasured_batch)
    checking = seen.checking
    evaluating = grown(checking.first_peak, 1, seen.peak, checking.batches, round(per_pass * epochs))
    peak = max(training, evaluating, judged)
    return Memory(peak, training, rehearsal.before, rehearsal.gauge.limit(), str(device))


def grown(early: int, few: int, late: int, many: int, whole: int) -> int:
    """Return the peak memory after a whole run of work that repeats, bytes.

    Allocators lose room between blocks of varied sizes, less and less as it goes on: the peak is taken to grow with
    the logarithm of the number of repetitions, up to `_FURTHER` times as many as were seen.

    Args:
        early: peak after a few repetitions.
        few: so many.
        late: peak after all that were carried out.
        many: so many.
        whole: repetitions in the whole run.
    """
    if many <= few or whole <= many:
        return late
    return round(late + (late - early) / math.log(many / few) * math.log(min(whole / many, _FURTHER)))
