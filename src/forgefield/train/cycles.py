"""The cycles of a fit: updates, validation, best, schedule, record, checkpoint, in that order."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from forgefield.core.errors import ConfigError, DataError, ForgeError
from forgefield.train.checkpoint import save_checkpoint
from forgefield.train.compilation import Compilation
from forgefield.train.continuation import Stamp
from forgefield.train.evaluate import validate
from forgefield.train.loss import QUANTITY_KEYS, LossReport, WeightedLoss, build_loss
from forgefield.train.metrics import Metrics
from forgefield.train.recorder import Recorder, Row, peak_memory, validation_columns
from forgefield.train.settings import TrainSettings
from forgefield.train.signals import WATCHED, StopRequest, name_of
from forgefield.train.state import Best, Running, TrainState
from forgefield.train.step import NotFiniteError, UpdateReport, take_update

if TYPE_CHECKING:
    from forgefield.data.loader import Batch, Loader

_TIME_OVER = 1000  # beyond every signal's number


class Cycles:
    """Counts updates; a cycle is `cycle_steps` of them or an epoch.

    A cycle ends with: validation of the averaged weights, best, schedule, record, checkpoint. A cycle cut short by the
    end of training is validated, recorded and saved too, but the schedule does not step and the count goes on, so that
    continuing is the same as never having stopped.

    Args:
        state: what moves.
        train_loader: training batches.
        val_loader: validation batches.
        settings: the `train` block.
        stamp: identity of the run, for checkpoints.
        checkpoints: their folder.
        device: where it runs.
    """

    def __init__(
        self,
        state: TrainState,
        train_loader: Loader,
        val_loader: Loader,
        settings: TrainSettings,
        stamp: Stamp,
        checkpoints: Path,
        device: torch.device,
    ) -> None:
        self.state, self.settings, self.stamp = state, settings, stamp
        self.train_loader, self.val_loader = train_loader, val_loader
        self.losses: WeightedLoss = build_loss(settings)
        self.checkpoints, self.device = checkpoints, device
        self.usable = _usable_batches(len(train_loader), settings)
        if len(val_loader) == 0:
            raise DataError("there are no validation structures", fix="set data.val or a larger data.val_fraction")
        self.updates_per_epoch = math.ceil(self.usable / settings.accum_steps)
        self.started = self.tick = time.monotonic()
        self.seconds_before = state.progress.seconds
        self.updates_here = 0
        self.saved_update = state.progress.update
        self.request = StopRequest()

    def run(self, recorder: Recorder, request: StopRequest | None = None) -> str:
        """Train until there is a reason to stop; returns it.

        A signal, noted in `request`, is one: then `last` is saved after the update in hand, and no cycle is ended.
        """
        self.request = request or self.request
        if self.settings.amp and self.state.scaler is None:
            recorder.note(f"train.amp is off: float16 autocast is for CUDA devices only, this is {self.device.type}")
        updates = self.settings.epochs * self.updates_per_epoch
        self.compilation = Compilation(self.state, self.settings, self.train_loader, updates, recorder.event)
        self.compilation.start()
        self.tick = time.monotonic()
        while (reason := self._stop_reason()) is None:
            with closing(self._updates()) as updates:
                for batches in updates:
                    self._update(batches, recorder)
                    if self._cycle_is_over():
                        self._end_cycle(recorder, partial=False)
                    if self._stop_reason() is not None:
                        break
        if reason in WATCHED:
            self._save("last")
            recorder.event(f"stopped by {reason} after update {self.state.progress.update}, saved in checkpoints/last")
        elif self.state.progress.cycle_updates and self.updates_here:
            self._end_cycle(recorder, partial=True)
        elif self.saved_update != self.state.progress.update:
            self._save("last")
        return reason

    def _updates(self) -> Generator[list[Batch | None]]:
        """Yield the batches of each update of the current epoch, from where it stands.

        They are this process's shares of the batches; None where it has none.
        """
        progress = self.state.progress
        batches: list[Batch | None] = []
        position = progress.batch
        for batch in self.state.team.batches(self.train_loader, progress.epoch, position):
            batches.append(batch)
            position += 1
            if len(batches) == self.settings.accum_steps or position == self.usable:
                yield batches
                batches = []
            if position == self.usable:
                return

    def _update(self, shares: list[Batch | None], recorder: Recorder) -> None:
        progress, batches = self.state.progress, [batch for batch in shares if batch is not None]
        rate, epoch = self.state.learning_rate, progress.epoch + 1
        try:
            report = take_update(self.state, batches, self.losses, max_grad_norm=self.settings.max_grad_norm)
        except NotFiniteError as error:
            raise self._explained(error, f"epoch {epoch}, update {progress.update + 1}") from error
        progress.update += 1
        progress.cycle_updates += 1
        progress.batch += len(shares)
        self.updates_here += 1
        self._count(report, rate)
        if progress.batch >= self.usable:
            progress.epoch, progress.batch = progress.epoch + 1, 0
            self._step_schedule("epoch")
        recorder.update(progress.update, epoch, report, rate)
        self.compilation.look()

    def _explained(self, error: NotFiniteError, where: str) -> ForgeError:
        """Add to the complaint where the structures stand and what is left of the run."""
        origin = self.train_loader.dataset[error.structures[0]].origin
        saved = any((self.checkpoints / name).exists() for name in ("last", "best"))
        kept = f"the last good checkpoint is kept in {self.checkpoints}" if saved else "nothing was saved yet"
        return ForgeError(f"{error.what}, the first is {origin!r}; {kept}", where, error.fix)

    def _count(self, report: UpdateReport, rate: float) -> None:
        """Add one update to the sums of the cycle."""
        running, now = self.state.progress.running, time.monotonic()
        for name in report.sums:
            running.sums[name] = running.sums.get(name, 0.0) + report.sums[name]
            running.counts[name] = running.counts.get(name, 0.0) + report.counts[name]
        running.updates += 1
        running.structures += report.n_structures
        running.grad_norm += report.grad_norm
        running.learning_rate = rate
        running.seconds += now - self.tick
        self.tick = now
        self.state.progress.skipped += report.skipped

    def _cycle_is_over(self) -> bool:
        progress, length = self.state.progress, self.settings.cycle_steps
        return progress.cycle_updates >= length if length else progress.batch == 0

    def _end_cycle(self, recorder: Recorder, *, partial: bool) -> None:
        """Validate, judge, schedule, record and save, in this order."""
        progress = self.state.progress
        self._check_labels(recorder)
        with self.state.averaged():
            loss, metrics = validate(
                self.state.potential,
                self.val_loader,
                self.losses,
                amp=self.state.scaler is not None,
                team=self.state.team,
            )
        value = float(loss.total)
        if not math.isfinite(value):
            raise ForgeError(
                "the validation loss is not finite", f"epoch {progress.epoch_now}", "lower train.lr, check the data"
            )
        progress.cycle += not partial
        improved = progress.improves(value)
        if improved:
            progress.best = Best(value, progress.epoch_now, progress.cycle, progress.update)
        progress.seconds = self.seconds_before + time.monotonic() - self.started
        row = self._row(loss, metrics, best=improved, partial=partial)
        if not partial:
            self._step_schedule("validation", value)
            self._step_schedule("cycle")
            progress.running, progress.cycle_updates = Running(), 0
        recorder.cycle(row)
        if improved:
            self._save("best")
        if partial or progress.cycle % self.settings.save_every == 0:
            self._save("last")
        self.tick = time.monotonic()

    def _check_labels(self, recorder: Recorder) -> None:
        """Refuse to train on a quantity that nothing is labelled with."""
        for name, count in self.state.progress.running.counts.items():
            if count:
                continue
            key = f"train.{QUANTITY_KEYS[name]}_weight"
            what = f"no training structure has {name} labels, but their loss has weight"
            if not self.settings.cycle_steps and self.state.progress.batch == 0:
                raise DataError(what, key, f"set {key}: 0, or give the labels (data.{name}_key)")
            recorder.note(f"{key}: no structure of this cycle has {name} labels")

    def _step_schedule(self, moment: str, metric: float = 0.0) -> None:
        schedule = self.state.schedule
        if schedule is None:
            return
        when = "validation" if schedule.needs_metric else self.settings.scheduler_step_unit
        if moment == when:
            schedule.step(metric)

    def _stop_reason(self) -> str | None:
        progress, settings = self.state.progress, self.settings
        if progress.epoch >= settings.epochs:
            return "epochs"
        window = math.ceil(settings.plateau_patience * settings.early_stop_factor)
        if settings.early_stop_factor > 0 and progress.cycle - progress.best.cycle >= max(1, window):
            return "early_stop"
        return self._wish()

    def _wish(self) -> str | None:
        """A signal or the end of the time, of which all processes take note after the same update."""
        limit, number = self.settings.max_minutes, self.request.number
        over = limit is not None and self.updates_here and time.monotonic() - self.started >= 60 * limit
        agreed = self.state.team.largest(number or (_TIME_OVER if over else 0))
        if agreed == _TIME_OVER:
            return "max_minutes"
        return name_of(agreed) if agreed else None

    def _row(self, loss: LossReport, metrics: Metrics, *, best: bool, partial: bool) -> Row:
        progress = self.state.progress
        running, means = progress.running, progress.running.means()
        train = {name: means.get(name) for name in QUANTITY_KEYS}
        val = {name: float(loss.terms[name]) if name in loss.terms else None for name in QUANTITY_KEYS}
        total = sum(weight * (means[name] or 0.0) for name, (weight, _) in self.losses.terms.items())
        return {
            "cycle": progress.cycle,
            "epoch": progress.epoch_now,
            "update": progress.update,
            "seconds": running.seconds + time.monotonic() - self.tick,
            "total_seconds": progress.seconds,
            "lr": running.learning_rate,
            "grad_norm": running.grad_norm / running.updates,
            "train_loss": total,
            **{f"train_{name}": value for name, value in train.items()},
            "val_loss": float(loss.total),
            **{f"val_{name}": value for name, value in val.items()},
            **validation_columns(metrics["all"]),
            "structures_per_second": running.structures / max(running.seconds, 1e-9),
            "peak_memory_mib": peak_memory(self.device),
            "skipped_updates": progress.skipped,
            "best": best,
            "partial": partial,
        }

    def _save(self, name: str) -> None:
        save_checkpoint(self.checkpoints / name, self.state, self.stamp)
        if name == "last":
            self.saved_update = self.state.progress.update


def _usable_batches(n_batches: int, settings: TrainSettings) -> int:
    """Batches of an epoch that are trained on; `drop_last` leaves out those that do not fill an update."""
    usable = n_batches - n_batches % settings.accum_steps if settings.drop_last else n_batches
    if usable == 0:
        raise ConfigError(
            f"an epoch has {n_batches} batches of {settings.batch_size} structures, too few for one update",
            "train.batch_size",
            "lower batch_size or accum_steps, or set drop_last: false",
        )
    return usable
