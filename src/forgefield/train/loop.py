"""Fit a potential: make what moves, run the cycles, hand back the best weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError, ModelError
from forgefield.models.precision import matmul_precision, missing
from forgefield.train import randomness
from forgefield.train.catalogs import OPTIMIZERS, SCHEDULES
from forgefield.train.checkpoint import STATE, Stamp, load_checkpoint, load_weights
from forgefield.train.cycles import Cycles
from forgefield.train.ema import WeightAverage
from forgefield.train.groups import freeze, parameter_groups
from forgefield.train.loss import build_loss
from forgefield.train.loss_words import notes_in_words, terms_in_words
from forgefield.train.mixed import check_amp, usable_type
from forgefield.train.recorder import Recorder
from forgefield.train.settings import TrainSettings, plugin_settings
from forgefield.train.state import TrainState

if TYPE_CHECKING:
    from forgefield.data.loader import Loader
    from forgefield.models.potential import Potential


@dataclass(frozen=True)
class FitResult:
    """How a fit ended.

    Args:
        best_epoch: epoch of the lowest validation loss, from 1.
        best_metric: that loss.
        epochs_done: epochs completed.
        seconds: time spent by this call, s.
        reason: why it ended: epochs, early_stop or max_minutes.
        history: path of history.jsonl.
        epochs_here: epochs completed by this call.
        compilation: what was decided about compiling, and why, in sentences.
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
    config_fingerprint: str,
    data_fingerprint: str,
    console: Console | None = None,
) -> FitResult:
    """Fit a potential, leaving checkpoints and records in a run folder.

    At the end the potential holds the weights of the best validation (averaged ones, if `ema_decay` is set).

    Args:
        potential: moved to `device`.
        train_loader: batches on `device`; their order depends on seed and epoch alone.
        val_loader: validation batches on `device`.
        settings: the `train` block.
        folder: run folder; gets `checkpoints/{best,last}`, `history.jsonl`, `history.csv`, `events.jsonl`,
            `tensorboard/`.
        device: where to train.
        resume: continue from `checkpoints/last` exactly as if the fit had never stopped.
        config_fingerprint: of the model and all else that must not change when resuming.
        data_fingerprint: of the training data.
        console: for progress; stderr by default.

    Raises:
        ForgeError: a setting or label is unfit, the loss is not finite, the disk is full, or the checkpoint does not
            belong to this run. The last good checkpoint stays.
    """
    started = time.monotonic()
    folder, device = Path(folder), torch.device(device)
    state = prepare(potential, settings, device)
    stamp = Stamp(config_fingerprint, data_fingerprint, settings, len(train_loader))
    checkpoints = folder / "checkpoints"
    if resume:
        load_checkpoint(_latest(checkpoints), state, stamp)
    else:
        if (checkpoints / "last").exists() or (checkpoints / "best").exists():
            raise ConfigError("there are checkpoints already", str(checkpoints), "resume, or choose another run_dir")
        randomness.seed_all(settings.seed)
    epochs_before = state.progress.epoch
    cycles = Cycles(state, train_loader, val_loader, settings, stamp, checkpoints, device)
    total = cycles.updates_per_epoch * settings.epochs
    recorder = Recorder(
        folder, console or Console(stderr=True), settings, update=state.progress.update, total_updates=total
    )
    with recorder, matmul_precision(settings.matmul, device):
        if (lack := missing(settings.matmul, device)) is not None:
            recorder.note(f"train.matmul: {settings.matmul} {lack}")
        reason = cycles.run(recorder)
    load_weights(checkpoints / "best", potential)
    best = state.progress.best
    assert best.metric is not None
    return FitResult(
        best_epoch=best.epoch,
        best_metric=best.metric,
        epochs_done=state.progress.epoch,
        seconds=time.monotonic() - started,
        reason=reason,
        history=recorder.history,
        epochs_here=state.progress.epoch - epochs_before,
        compilation=tuple(cycles.compilation.sentences),
        loss=(*terms_in_words(settings), *notes_in_words(settings)),
    )


def prepare(potential: Potential, settings: TrainSettings, device: torch.device) -> TrainState:
    """Make everything that moves during a fit, at its beginning.

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
    freeze(potential, settings.freeze)
    groups = parameter_groups(potential, settings.weight_decay, settings.no_decay_keywords)
    build = Catalog(OPTIMIZERS).entry(settings.optimizer).build
    optimizer = build(groups, plugin_settings(OPTIMIZERS, settings.optimizer, settings))
    schedule = None
    if settings.scheduler is not None:
        build = Catalog(SCHEDULES).entry(settings.scheduler).build
        schedule = build(optimizer, plugin_settings(SCHEDULES, settings.scheduler, settings))
    average = WeightAverage(potential, settings.ema_decay) if settings.ema_decay is not None else None
    amp = usable_type(settings.amp, device)
    scaler = torch.amp.GradScaler(device.type) if amp is torch.float16 else None
    return TrainState(potential, optimizer, schedule, average, scaler, amp=amp)


def _latest(checkpoints: Path) -> Path:
    """The checkpoint to continue from: `last`, or `best` if the run ended before the first `last`."""
    aside = checkpoints / ".last.old"
    if (checkpoints / "best" / STATE).is_file() and not (checkpoints / "last").exists() and not aside.exists():
        return checkpoints / "best"
    return checkpoints / "last"
