"""All that must survive a restart."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from forgefield.graph.graph import Graph
from forgefield.models.potential import Outputs, Potential
from forgefield.train.compiled import CompiledPotential
from forgefield.train.ema import WeightAverage
from forgefield.train.schedule import Schedule
from forgefield.train.team import ALONE, Team


@dataclass
class Running:
    """Sums over the updates of the current cycle, as plain floats."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    updates: int = 0
    structures: int = 0
    grad_norm: float = 0.0
    seconds: float = 0.0
    learning_rate: float = 0.0

    def means(self) -> dict[str, float | None]:
        """Return the loss terms as ratios of sums; None where nothing was labelled."""
        return {name: self.sums[name] / n if n else None for name, n in self.counts.items()}


@dataclass
class Best:
    """The best validation so far."""

    metric: float | None = None
    epoch: int = 0
    cycle: int = 0
    update: int = 0


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
        skipped: updates left out by gradient scaling.
        compiled: whether the model is being trained compiled; a fit that is continued then is so at once.
        best: the best validation so far.
        running: sums over the current cycle.
    """

    epoch: int = 0
    batch: int = 0
    update: int = 0
    cycle: int = 0
    cycle_updates: int = 0
    seconds: float = 0.0
    skipped: int = 0
    compiled: bool = False
    best: Best = field(default_factory=Best)
    running: Running = field(default_factory=Running)

    @property
    def epoch_now(self) -> int:
        """Number of the epoch in hand, from 1; the last one completed if none is begun."""
        return self.epoch + (1 if self.batch else 0)

    def improves(self, metric: float) -> bool:
        """Say whether a validation loss is the lowest so far."""
        return math.isfinite(metric) and (self.best.metric is None or metric < self.best.metric)

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and dicts."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Progress:
        """Make it from what `to_json` returned."""
        data = dict(data)
        return cls(best=Best(**data.pop("best")), running=Running(**data.pop("running")), **data)


@dataclass
class TrainState:
    """Everything that changes during a fit.

    Args:
        potential: raw weights, as the optimizer moves them.
        optimizer: its groups carry `names`, the names of their parameters.
        schedule: of the learning rate, or None.
        average: averaged weights, or None.
        scaler: gradient scaling for float16, or None.
        progress: counters, best and running sums.
        compiled: predicts in the potential's place while training, if it is compiled.
        team: the processes that train together.
    """

    potential: Potential
    optimizer: torch.optim.Optimizer
    schedule: Schedule | None
    average: WeightAverage | None
    scaler: torch.amp.GradScaler | None
    progress: Progress = field(default_factory=Progress)
    compiled: CompiledPotential | None = None
    team: Team = ALONE

    def predict(self, graph: Graph) -> Outputs:
        """Predict a training batch, compiled if that is on."""
        return self.potential(graph) if self.compiled is None else self.compiled(graph)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the potential holds the weights that are validated and handed out."""
        return self.average.in_place() if self.average else nullcontext()

    @property
    def learning_rate(self) -> float:
        """Rate of the first group; all groups share one schedule."""
        return float(self.optimizer.param_groups[0]["lr"])
