"""All that must survive a restart."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from forgefield.models.potential import Outputs, Potential
from forgefield.models.precision import autocast
from forgefield.train.averaging import EqualAverage
from forgefield.train.compiled import CompiledPotential
from forgefield.train.constant_terms import ConstantTerms
from forgefield.train.ema import WeightAverage
from forgefield.train.rates import LearningRates
from forgefield.train.team import ALONE, Team

if TYPE_CHECKING:
    from forgefield.data.loader import Batch


@dataclass
class Running:
    """Sums over the updates since the last validation, as plain floats; `errors` as `tally.Tally` adds them."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    updates: int = 0
    structures: int = 0
    grad_norm: float = 0.0
    seconds: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)
    errors: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Best:
    """The best validation so far, of the stage that it belongs to."""

    metric: float | None = None
    epoch: int = 0
    cycle: int = 0
    update: int = 0
    stage: int = 1


@dataclass
class Watch:
    """What an early stop remembers: the lowest value, validations without improvement, whether it is met now."""

    lowest: float | None = None
    without: int = 0
    met: bool = False


@dataclass
class Progress:
    """Where the fit stands.

    Args:
        epoch: epochs completed.
        batch: batches used in the current epoch.
        update: optimizer updates in all.
        cycle: cycles completed.
        cycle_updates: updates in the current cycle.
        seconds: time spent in all, over all restarts, s.
        cpu_seconds: computing time spent in all, over all restarts, s; see `cpu_time.CpuClock`.
        skipped: updates left out by gradient scaling.
        compiled: whether the model is being trained compiled; a fit that is continued then is so at once.
        stage: 1, or 2 after the change to `stage_two`.
        stage_epoch: epochs completed when the second stage began.
        best: the best validation so far.
        running: sums since the last validation.
        stops: what the early stops remember, by metric.
        ranked: the best validations of which checkpoints are kept, the best first.
    """

    epoch: int = 0
    batch: int = 0
    update: int = 0
    cycle: int = 0
    cycle_updates: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    skipped: int = 0
    compiled: bool = False
    stage: int = 1
    stage_epoch: int = 0
    best: Best = field(default_factory=Best)
    running: Running = field(default_factory=Running)
    stops: dict[str, Watch] = field(default_factory=dict)
    ranked: list[Best] = field(default_factory=list)

    @property
    def epoch_now(self) -> int:
        """Number of the epoch in hand, from 1; the last one completed if none is begun."""
        return self.epoch + (1 if self.batch else 0)

    def improves(self, metric: float) -> bool:
        """Say whether a validation loss is the lowest so far; the losses of two stages are not comparable."""
        lowest = None if self.best.stage != self.stage else self.best.metric
        return math.isfinite(metric) and (lowest is None or metric < lowest)

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and dicts."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Progress:
        """Make it from what `to_json` returned."""
        data = dict(data)
        stops = {name: Watch(**watch) for name, watch in data.pop("stops", {}).items()}
        ranked = [Best(**entry) for entry in data.pop("ranked", [])]
        best, running = Best(**data.pop("best")), Running(**data.pop("running"))
        return cls(best=best, running=running, stops=stops, ranked=ranked, **data)


@dataclass
class TrainState:
    """Everything that changes during a fit.

    Args:
        potential: raw weights, as the optimizer moves them.
        optimizer: its groups carry `names`, the names of their parameters.
        schedule: sets the learning rates, or None.
        average: averaged weights, or None.
        scaler: gradient scaling for float16, or None.
        progress: counters, best and running sums.
        compiled: predicts in the potential's place while training, if it is compiled.
        trained: what is trained, row by row, see `trained.describe_groups`.
        equal: equal average of the weights in the second stage, or None.
        amp: type of mixed precision, or None.
        team: the processes that train together.
        constant: what physics terms that are left out of the potential add to training structures, or None.
    """

    potential: Potential
    optimizer: torch.optim.Optimizer
    schedule: LearningRates | None
    average: WeightAverage | None
    scaler: torch.amp.GradScaler | None
    progress: Progress = field(default_factory=Progress)
    compiled: CompiledPotential | None = None
    trained: list[dict[str, Any]] = field(default_factory=list)
    equal: EqualAverage | None = None
    amp: torch.dtype | None = None
    team: Team = ALONE
    constant: ConstantTerms | None = None

    def predict(self, batch: Batch) -> Outputs:
        """Predict a training batch, compiled if that is on."""
        with autocast(batch.graph.positions.device, self.amp):
            outputs = self.potential(batch.graph) if self.compiled is None else self.compiled(batch.graph)
        return outputs if self.constant is None else self.constant.add(outputs, batch)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the potential holds the weights that are validated and handed out."""
        average = self.equal or self.average
        return average.in_place() if average else nullcontext()

    def take_averages(self) -> None:
        """Take the weights after an update into their averages."""
        for average in (self.average, self.equal):
            if average is not None:
                average.update()

    @property
    def learning_rates(self) -> dict[str, float]:
        """Rate of each parameter group, by its name."""
        groups = self.optimizer.param_groups
        return {str(group.get("name", k)): float(group["lr"]) for k, group in enumerate(groups)}
