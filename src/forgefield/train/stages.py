"""The two stages of a fit: when the second begins, and what it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forgefield.train.averaging import EqualAverage
from forgefield.train.loss import WeightedLoss, build_loss

if TYPE_CHECKING:
    from forgefield.train.settings import TrainSettings
    from forgefield.train.state import TrainState

FIRST_BEST = "best_stage_one"
NO_BETTER = ("early_stop", "early_stops", "min_lr", "low_lr")  # reasons for which the second stage begins early


class Stages:
    """Knows the stage a fit is in, and begins the second.

    What it decides follows from the settings and the saved counters alone, so that a fit that is continued from any
    checkpoint, before or after the change, is the same fit.

    Args:
        state: what moves.
        settings: the `train` block.
    """

    def __init__(self, state: TrainState, settings: TrainSettings) -> None:
        self.state, self.settings, self.second = state, settings, settings.stage_two
        self._losses = [build_loss(settings, state.potential, stage) for stage in (1, 2)]

    @property
    def losses(self) -> WeightedLoss:
        """The loss of the stage in hand."""
        return self._losses[self.state.progress.stage - 1]

    @property
    def epochs(self) -> int:
        """Epochs after which the fit ends: fewer than planned if early stopping has begun the second stage."""
        progress = self.state.progress
        if self.second is None or progress.stage == 1:
            return self.settings.epochs
        return progress.stage_epoch + self.settings.epochs - self.second.start

    @property
    def best_names(self) -> tuple[str, ...]:
        """Checkpoints that a new best is saved as; the first stage's stays when the second begins."""
        return ("best",) if self.second is None or self.state.progress.stage == 2 else ("best", FIRST_BEST)

    def due(self, reason: str | None) -> bool:
        """Say whether the second stage begins now, at an epoch's end or because the first stopped improving."""
        progress = self.state.progress
        if self.second is None or progress.stage == 2 or progress.epoch >= self.settings.epochs:
            return False
        return reason in NO_BETTER or (reason is None and progress.epoch >= self.second.start)

    def begin(self) -> str:
        """Begin the second stage: its learning rate, its average, a best of its own. Returns a sentence about it."""
        assert self.second is not None
        progress = self.state.progress
        progress.stage, progress.stage_epoch = 2, progress.epoch
        progress.best.cycle = progress.cycle
        progress.stops, progress.ranked = {}, []
        assert self.state.schedule is not None
        self.state.schedule.rest(self.second.lr / self.settings.lr)
        if self.second.average == "equal":
            self.state.equal = EqualAverage(self.state.potential)
        weights = ", ".join(f"{name} {weight:g}" for name, (weight, _) in self.losses.terms.items())
        average = "the equal average of the weights" if self.second.average == "equal" else "as before"
        return (
            f"train.stage_two: begins after epoch {progress.epoch} (of {self.epochs} now); weights {weights}; "
            f"learning rate {self.second.lr:g}; validated: {average}"
        )
