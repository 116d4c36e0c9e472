"""Fit a potential: make what moves, run the cycles, hand back the best weights."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from rich.console import Console

from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError, DataError, ModelError
from forgefield.models.precision import matmul_precision, missing
from forgefield.train import joining, randomness
from forgefield.train.catalogs import OPTIMIZERS
from forgefield.train.checkpoint import STATE, load_checkpoint, load_weights, recover, save_checkpoint
from forgefield.train.constant_terms import Maker
from forgefield.train.continuation import Stamp
from forgefield.train.cycles import Cycles
from forgefield.train.ema import WeightAverage
from forgefield.train.groups import choose_trained, parameter_groups
from forgefield.train.loss import build_loss
from forgefield.train.loss_words import notes_in_words, terms_in_words
from forgefield.train.mixed import check_amp, usable_type
from forgefield.train.plan import planned_updates, updates_per_epoch
from forgefield.train.ranking import ranked_list
from forgefield.train.rates import make_rates
from forgefield.train.recorder import Recorder, Silence
from forgefield.train.settings import TrainSettings, plugin_settings
from forgefield.train.signals import WATCHED, Stopped, noticed
from forgefield.train.state import TrainState
from forgefield.train.trained import describe_groups, groups_table, write_groups

if TYPE_CHECKING:
    from forgefield.data.loader import Loader
    from forgefield.models.potential import Potential


@dataclass(frozen=True)
class FitResult:
    """How a fit ended.

    Args:
        best_epoch: epoch of the best validation, from 1.
        best_metric: its loss, or the metric that `train.best_metric` names.
        epochs_done: epochs completed.
        seconds: time spent by this call, s.
        reason: why it ended, see `stopping.Stopping.reason`; max_minutes or max_cpu_minutes.
        history: path of history.jsonl; it is there if `jsonl` is among the loggers.
        epochs_here: epochs completed by this call.
        compilation: what was decided about compiling, and why, in sentences.
        trained: parameter groups and what is frozen, as in `trained.json`.
        ranked: with `best_k` above 1, the best checkpoints, the best first.
        loss: what was minimised, in words.
    """

    best_epoch: int
    best_metric: float
    epochs_done: int
    seconds: float
    reason: str
    history: Path
    epochs_here: int
    compilation: tuple[str, ...] = ()
    trained: tuple[dict[str, Any], ...] = ()
    ranked: tuple[dict[str, Any], ...] = ()
    loss: tuple[str, ...] = ()


def fit(
    potential: Potential,
    train_loader: Loader,
    val_loader: Loader,
    settings: TrainSettings,
    *,
    folder: Path,
    device: torch.device | str,
    resume: bool = False,
    accept: Collection[str] = (),
    config_fingerprint: str,
    data_fingerprint: str,
    described: Mapping[str, Any] | None = None,
    console: Console | None = None,
    constant: Maker | None = None,
) -> FitResult:
    """Fit a potential, leaving checkpoints and records in a run folder.

    At the end the potential holds the weights of the best validation (averaged ones, if `ema_decay` is set). Where
    several processes have joined (`joining.join`), each calls it with the same arguments; the first writes.

    Args:
        potential: moved to `device`.
        train_loader: batches on `device`; their order depends on seed and epoch alone.
        val_loader: validation batches on `device`.
        settings: the `train` block.
        folder: run folder; gets `checkpoints/{best,last}`, `events.jsonl` and what `loggers` names: `history.jsonl`,
            `breakdown.jsonl`, the same as `.csv`, `tensorboard/`, `wandb/`, `mlruns/`.
        device: where to train.
        resume: continue from `checkpoints/last` exactly as if the fit had never stopped.
        accept: keys, or blocks of keys, that may differ from the checkpoint's when resuming.
        config_fingerprint: of the model and all else that must not change when resuming.
        data_fingerprint: of the training data.
        described: the run's settings beside `train`, by dotted key, to be compared one by one when resuming.
        console: for progress; stderr by default.
        constant: makes what physics terms that are left out of the potential add to the structures of a data set, see
            `constant_terms.taken_out`.

    Raises:
        ForgeError: a setting or label is unfit, the loss is not finite, the disk is full, or the checkpoint does not
            belong to this run. The last good checkpoint stays.
        Stopped: SIGTERM, SIGUSR1 or SIGINT came; the update in hand was finished and `checkpoints/last` written.
    """
    started = time.monotonic()
    folder, device = Path(folder), torch.device(device)
    state = prepare(potential, settings, device, updates_per_epoch(len(train_loader), settings))
    state.team = joining.team()
    described = None if described is None else json.loads(json.dumps(described))
    stamp = Stamp(
        config_fingerprint, data_fingerprint, settings, len(train_loader), described, processes=state.team.size
    )
    checkpoints = folder / "checkpoints"
    told = _begin(state, stamp, folder, resume=resume, accept=accept)
    epochs_before = state.progress.epoch
    state.constant, checked = (constant(one.dataset) if constant else None for one in (train_loader, val_loader))
    cycles = Cycles(state, train_loader, val_loader, settings, stamp, checkpoints, device, checked)
    total = planned_updates(cycles.updates_per_epoch, settings)
    recorder = _recorder(folder, console or Console(stderr=True), cycles, total)
    with recorder, matmul_precision(settings.matmul, device), noticed() as request:
        for sentence in told:
            recorder.event(sentence)
        if told:
            save_checkpoint(checkpoints / "last", state, stamp)  # what was accepted need not be accepted again
        if (lack := missing(settings.matmul, device)) is not None:
            recorder.note(f"train.matmul: {settings.matmul} {lack}")
        if state.constant is not None and checked is not None:
            state.constant.begin(recorder.event)
            checked.report = recorder.event
        if state.team.leads:
            write_groups(folder, state.trained)
            recorder.console.print(groups_table(state.trained))
        reason = cycles.run(recorder, request)
    if (name := reason if reason in WATCHED else request.name) is not None:
        raise Stopped(name, saved=True)
    if not state.team.leads:
        return _result(state, cycles, started, reason, epochs_before, folder)
    load_weights(checkpoints / "best", potential)
    return _result(state, cycles, started, reason, epochs_before, folder)


def _begin(state: TrainState, stamp: Stamp, folder: Path, *, resume: bool, accept: Collection[str]) -> list[str]:
    """Take up the checkpoint, or seed a new fit; returns what is continued differently, in sentences."""
    checkpoints = folder / "checkpoints"
    _agree(state, stamp)
    if not resume:
        if (checkpoints / "last").exists() or (checkpoints / "best").exists():
            raise ConfigError("there are checkpoints already", str(checkpoints), "resume, or choose another run_dir")
        randomness.seed_all(stamp.settings.seed, state.team.rank)
        state.team.spread(state.potential.state_dict().values())
        if state.average is not None:
            state.average.restart()
        return []
    if state.team.leads:
        recover(folder)
    state.team.barrier()
    told = load_checkpoint(_latest(checkpoints), state, stamp, accept)
    state.team.barrier()  # no process may write before all have read
    if state.progress.best.metric is None and state.progress.epoch >= stamp.settings.epochs:
        what = f"all {stamp.settings.epochs} epochs are done, nothing is left to train with the accepted changes"
        raise ConfigError(what, "train.epochs", "give more epochs")
    return told


def _agree(state: TrainState, stamp: Stamp) -> None:
    """Check that all processes read the same data with the same settings."""
    own = json.dumps([stamp.data, stamp.to_json()["settings"], stamp.batches_per_epoch]).encode()
    different = [rank for rank, found in enumerate(state.team.gather(own)) if found != own]
    if different:
        what = f"process {state.team.rank} and process {different[0]} have other data or settings"
        raise DataError(what, fix="give all processes the same files, on a file system that they share")


def _recorder(folder: Path, console: Console, cycles: Cycles, total: int) -> Recorder:
    """Return the recorder of the process that writes, or one that does nothing."""
    if not cycles.state.team.leads:
        return cast(Recorder, Silence())
    done, further = cycles.state.progress.update, tuple(q.name for q in cycles.measured.further)
    return Recorder(folder, console, cycles.settings, update=done, total_updates=total, further=further)


def _result(
    state: TrainState, cycles: Cycles, started: float, reason: str, epochs_before: int, folder: Path
) -> FitResult:
    best = state.progress.best
    assert best.metric is not None
    return FitResult(
        best_epoch=best.epoch,
        best_metric=best.metric,
        epochs_done=state.progress.epoch,
        seconds=time.monotonic() - started,
        reason=reason,
        history=folder / "history.jsonl",
        epochs_here=state.progress.epoch - epochs_before,
        compilation=tuple(cycles.compilation.sentences),
        trained=tuple(state.trained),
        ranked=tuple(ranked_list(state.progress, cycles.settings.best_metric)),
        loss=(*terms_in_words(cycles.settings), *notes_in_words(cycles.settings)),
    )


def prepare(
    potential: Potential, settings: TrainSettings, device: torch.device, updates_per_epoch: int = 1
) -> TrainState:
    """Make everything that moves during a fit, at its beginning.

    Args:
        potential: moved to `device`.
        settings: the `train` block.
        device: where to train.
        updates_per_epoch: by which schedules turn epochs into their steps.

    Raises:
        ModelError: the head is not in the model, or nothing is trainable.
        ConfigError: amp or a coarser matmul is asked for a float64 model, or a loss for what it does not predict.
    """
    if settings.head_key is not None and settings.head_key not in potential.heads:
        heads = ", ".join(potential.heads)
        raise ModelError(f"the model has no head {settings.head_key!r}", "train.head_key", f"use one of: {heads}")
    check_amp(settings.amp, potential)
    build_loss(settings, potential)  # refuses what the model does not predict
    if settings.matmul != "float32" and potential.dtype != torch.float32:
        what = f"{settings.matmul} is for products of float32 matrices, the model is float64"
        raise ConfigError(what, "train.matmul", "set dtype: float32, or matmul: float32")
    potential.to(device)
    choose_trained(potential, settings)
    groups = parameter_groups(
        potential, settings.weight_decay, settings.no_decay_keywords, settings.param_groups, settings.lr
    )
    trained = describe_groups(potential, groups, settings.lr)
    build = Catalog(OPTIMIZERS).entry(settings.optimizer).build
    optimizer = build(groups, plugin_settings(OPTIMIZERS, settings.optimizer, settings))
    schedule = make_rates(optimizer, settings, updates_per_epoch)
    average = WeightAverage(potential, settings.ema_decay) if settings.ema_decay is not None else None
    amp = usable_type(settings.amp, device)
    scaler = torch.amp.GradScaler(device.type) if amp is torch.float16 else None
    return TrainState(potential, optimizer, schedule, average, scaler, trained=trained, amp=amp)


def _latest(checkpoints: Path) -> Path:
    """The checkpoint to continue from: `last`, or `best` if the run ended before the first `last`."""
    alone = (checkpoints / "best" / STATE).is_file() and not (checkpoints / "last").exists()
    return checkpoints / ("best" if alone else "last")
