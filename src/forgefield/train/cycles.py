"""The cycles of a fit: updates, validation, best, schedule, record, checkpoint, in that order."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from forgefield.core.errors import DataError, ForgeError
from forgefield.train.breakdown import breakdown
from forgefield.train.checkpoint import save_checkpoint
from forgefield.train.compilation import Compilation
from forgefield.train.constant_terms import ConstantTerms
from forgefield.train.continuation import Stamp
from forgefield.train.cpu_time import CpuClock
from forgefield.train.evaluate import validate
from forgefield.train.history import history_row
from forgefield.train.intervals import Interval
from forgefield.train.loss import weight_key
from forgefield.train.measured import measured_in_training
from forgefield.train.mixed import lacking
from forgefield.train.plan import batches_per_update, planned_updates, updates_per_epoch, usable_batches
from forgefield.train.ranking import folder_name, prune, rank
from forgefield.train.rates import Moment
from forgefield.train.recorder import Recorder
from forgefield.train.settings import TrainSettings
from forgefield.train.signals import WATCHED, StopRequest, name_of
from forgefield.train.stages import Stages
from forgefield.train.state import Best, Running, TrainState
from forgefield.train.step import NotFiniteError, UpdateReport, take_update
from forgefield.train.stopping import Stopping, metric_of, validation_values
from forgefield.train.tally import Tally

if TYPE_CHECKING:
    from forgefield.data.loader import Batch, Loader

_TIME_OVER, _CPU_TIME_OVER = 1000, 1001  # beyond every signal's number
_LIMITS = {_TIME_OVER: "max_minutes", _CPU_TIME_OVER: "max_cpu_minutes"}


class Cycles:
    """Counts updates; a cycle is `cycle_steps` of them or an epoch.

    A cycle ends with: validation of the averaged weights, best, schedule, record, checkpoint; `validate_every` may put
    all but the checkpoint after fewer updates, or after more cycles. A cycle cut short by the end of training is
    validated, recorded and saved too, but the schedule does not step and the count goes on, so that continuing is the
    same as never having stopped.

    Args:
        state: what moves.
        train_loader: training batches.
        val_loader: validation batches.
        settings: the `train` block.
        stamp: identity of the run, for checkpoints.
        checkpoints: their folder.
        device: where it runs.
        constant: what physics terms that are left out of the potential add to validation structures.
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
        constant: ConstantTerms | None = None,
    ) -> None:
        self.state, self.settings, self.stamp = state, settings, stamp
        self.train_loader, self.val_loader = train_loader, val_loader
        self.stages = Stages(state, settings)
        self.measured = measured_in_training(settings, state.potential)
        self.further = tuple(quantity.name for quantity in self.measured.further)
        self.tally = Tally.of(state.potential, self.measured, state.team)
        self.checkpoints, self.device, self.constant = checkpoints, device, constant
        self.usable = usable_batches(len(train_loader), settings)
        self.per_update = batches_per_update(self.usable, settings)
        if len(val_loader) == 0:
            raise DataError("there are no validation structures", fix="set data.val or a larger data.val_fraction")
        self.updates_per_epoch = updates_per_epoch(len(train_loader), settings)
        self.stopping = Stopping(state, settings)
        self.validation = Interval.read(settings.validate_every)
        self.started = self.tick = time.monotonic()
        self.cpu_clock = CpuClock()
        self.seconds_before, self.cpu_seconds_before = state.progress.seconds, state.progress.cpu_seconds
        self.updates_here = 0
        self.saved_update = state.progress.update
        self.request = StopRequest()

    def run(self, recorder: Recorder, request: StopRequest | None = None) -> str:
        """Train until there is a reason to stop; returns it.

        A signal, noted in `request`, is one: then `last` is saved after the update in hand, and no cycle is ended.
        """
        self.request = request or self.request
        if (lack := lacking(self.settings.amp, self.device)) is not None:
            recorder.event(f"train.amp is off: {lack}")
        elif self.settings.amp and self.state.potential.in_kernels():
            recorder.event("train.amp: the kernels compute in one type only; hot sums run in plain PyTorch instead")
        updates = planned_updates(self.updates_per_epoch, self.settings)
        self.compilation = Compilation(self.state, self.settings, self.train_loader, updates, recorder.event)
        self.compilation.start()
        self.tick = time.monotonic()
        while (reason := self._stop_reason()) is None or self.stages.due(reason):
            if self.stages.due(reason):
                recorder.event(self.stages.begin())
            with closing(self._updates()) as updates:
                for batches in updates:
                    self._update(batches, recorder)
                    over = self._cycle_is_over()
                    due = self.validation.due(self.state.progress, cycle_over=over)
                    if over or due:
                        self._end_cycle(recorder, over=over, due=due)
                    if self._stop_reason() is not None:
                        break
        if reason in WATCHED:
            self._save("last")
            recorder.event(f"stopped by {reason} after update {self.state.progress.update}, saved in checkpoints/last")
        elif self.state.progress.running.updates and self.updates_here:
            self._end_cycle(recorder, over=False, due=True, partial=True)
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
            if len(batches) == self.per_update or position == self.usable:
                yield batches
                batches = []
            if position == self.usable:
                return

    def _update(self, shares: list[Batch | None], recorder: Recorder) -> None:
        progress, batches = self.state.progress, [batch for batch in shares if batch is not None]
        rates, epoch, before = self.state.learning_rates, progress.epoch + 1, progress.running.seconds
        try:
            report = take_update(
                self.state,
                batches,
                self.stages.losses,
                max_grad_norm=self.settings.max_grad_norm,
                max_grad_value=self.settings.max_grad_value,
                tally=self.tally,
            )
        except NotFiniteError as error:
            raise self._explained(error, f"epoch {epoch}, update {progress.update + 1}") from error
        progress.update += 1
        progress.cycle_updates += 1
        progress.batch += len(shares)
        self.updates_here += 1
        self._count(report, rates)
        speed = report.n_structures / max(progress.running.seconds - before, 1e-9)
        self._reach("update")
        if progress.batch >= self.usable:
            progress.epoch, progress.batch = progress.epoch + 1, 0
            self._reach("epoch")
        recorder.update(progress.update, epoch, report, rates, speed)
        self.compilation.look()

    def _explained(self, error: NotFiniteError, where: str) -> ForgeError:
        """Add to the complaint where the structures stand and what is left of the run."""
        origin = self.train_loader.dataset[error.structures[0]].origin
        saved = any((self.checkpoints / name).exists() for name in ("last", "best"))
        kept = f"the last good checkpoint is kept in {self.checkpoints}" if saved else "nothing was saved yet"
        return ForgeError(f"{error.what}, the first is {origin!r}; {kept}", where, error.fix)

    def _count(self, report: UpdateReport, rates: dict[str, float]) -> None:
        """Add one update to the sums since the last validation."""
        running, now = self.state.progress.running, time.monotonic()
        for kept, new in ((running.sums, report.sums), (running.counts, report.counts)):
            for name, number in new.items():
                kept[name] = kept.get(name, 0.0) + number
        running.updates += 1
        running.structures += report.n_structures
        running.grad_norm += report.grad_norm
        running.rates = rates
        self.tally.end_update(running.errors)
        running.seconds += now - self.tick
        self.tick = now
        self.state.progress.skipped += report.skipped

    def _cycle_is_over(self) -> bool:
        progress, length = self.state.progress, self.settings.cycle_steps
        return progress.cycle_updates >= length if length else progress.batch == 0

    def _end_cycle(self, recorder: Recorder, *, over: bool, due: bool, partial: bool = False) -> None:
        """Validate where it is due, judge, schedule, record and save, in this order."""
        if due:
            self._judge(recorder, over=over, partial=partial)
        else:
            self._pass_cycle()
        if partial or (over and self.state.progress.cycle % self.settings.save_every == 0):
            self._save("last")
        self.tick = time.monotonic()

    def _pass_cycle(self) -> None:
        """End a cycle that is not validated; the sums go on."""
        progress = self.state.progress
        progress.cycle, progress.cycle_updates = progress.cycle + 1, 0
        self._note_time()
        self._reach("cycle")

    def _judge(self, recorder: Recorder, *, over: bool, partial: bool) -> None:
        """Validate, judge, schedule and record, at the end of a cycle or within it."""
        progress = self.state.progress
        self._check_labels(recorder)
        self.tally.flush(progress.running.errors)
        with self.state.averaged():
            loss, metrics = validate(
                self.state.potential,
                self.val_loader,
                self.stages.losses,
                amp=self.state.amp,
                team=self.state.team,
                measured=self.measured,
                constant=self.constant,
            )
        value = float(loss.total)
        if not math.isfinite(value):
            raise ForgeError(
                "the validation loss is not finite", f"epoch {progress.epoch_now}", "lower train.lr, check the data"
            )
        progress.cycle += over
        values = validation_values(value, metrics, self.further)
        judged = metric_of(values, self.settings.best_metric)
        entry = Best(judged, progress.epoch_now, progress.cycle, progress.update, progress.stage)
        improved, ranked = progress.improves(judged), rank(progress, entry, self.settings.best_k)
        if improved:
            progress.best = entry
        self._note_time()
        row = history_row(
            progress, self.tick, loss, metrics["all"], self.stages.losses, self.further, self.device,
            best=improved, partial=partial,
        )  # fmt: skip
        place = {"cycle": progress.cycle, "epoch": progress.epoch_now, "update": progress.update}
        parts = breakdown(place, progress.running.errors, metrics, progress.running.rates, self.further)
        if not partial:
            self.stopping.judge(values)
            self._reach("validation", value)
            progress.running = Running()
        if over:
            self._reach("cycle")
            progress.cycle_updates = 0
        recorder.cycle(row, parts)
        for name in self.stages.best_names if improved else ():
            self._save(name)
        if ranked:
            self._save(folder_name(entry))

    def _check_labels(self, recorder: Recorder) -> None:
        """Refuse to train on a quantity that nothing is labelled with."""
        for name, count in self.state.progress.running.counts.items():
            if count:
                continue
            key = f"train.{weight_key(name)}"
            what = f"no training structure has {name} labels, but their loss has weight"
            if not self.settings.cycle_steps and self.state.progress.batch == 0 and self.validation.unit != "update":
                raise DataError(what, key, f"set {key}: 0, or give the labels (data.{name}_key)")
            recorder.note(f"{key}: no structure since the last validation has {name} labels")

    def _reach(self, moment: Moment, metric: float = 0.0) -> None:
        if self.state.schedule is not None:
            self.state.schedule.reach(moment, metric)

    def _stop_reason(self) -> str | None:
        return self.stopping.reason(self.stages.epochs) or self._wish()

    def _wish(self) -> str | None:
        """A signal or the end of the time, of which all processes take note after the same update."""
        agreed = self.state.team.largest(self.request.number or self._over())
        if agreed in _LIMITS:
            return _LIMITS[agreed]
        return name_of(agreed) if agreed else None

    def _over(self) -> int:
        """Which of the limits of time this process has reached, 0 for none."""
        limit, of_cpu = self.settings.max_minutes, self.settings.max_cpu_minutes
        if not self.updates_here:
            return 0
        if limit is not None and time.monotonic() - self.started >= 60 * limit:
            return _TIME_OVER
        return _CPU_TIME_OVER if of_cpu is not None and self.cpu_clock.seconds() >= 60 * of_cpu else 0

    def _note_time(self) -> None:
        progress = self.state.progress
        progress.seconds = self.seconds_before + time.monotonic() - self.started
        progress.cpu_seconds = self.cpu_seconds_before + self.cpu_clock.seconds()

    def _save(self, name: str) -> None:
        self._note_time()
        self.tally.flush(self.state.progress.running.errors)
        save_checkpoint(self.checkpoints / name, self.state, self.stamp)
        if name == "last":
            self.saved_update = self.state.progress.update
            prune(self.checkpoints, self.state.progress)
