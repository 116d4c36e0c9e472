"""Fit a potential: make what moves, run the cycles, hand back the best weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError, ModelError
from forgefield.models.precision import matmul_precision, missing
from forgefield.train import randomness
from forgefield.train.catalogs import OPTIMIZERS
from forgefield.train.checkpoint import STATE, Stamp, load_checkpoint, load_weights
from forgefield.train.cycles import Cycles
from forgefield.train.ema import WeightAverage
from forgefield.train.groups import choose_trained, parameter_groups
from forgefield.train.loss import build_loss
from forgefield.train.loss_words import notes_in_words, terms_in_words
from forgefield.train.mixed import check_amp, usable_type
from forgefield.train.plan import planned_updates, updates_per_epoch
from forgefield.train.ranking import ranked_list
from forgefield.train.rates import make_rates
from forgefield.train.recorder import Recorder
from forgefield.train.settings import TrainSettings, plugin_settings
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
        reason: why it ended, see `stopping.Stopping.reason`.
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
        folder: run folder; gets `checkpoints/{best,last}`, `events.jsonl` and what `loggers` names: `history.jsonl`,
            `breakdown.jsonl`, the same as `.csv`, `tensorboard/`, `wandb/`, `mlruns/`.
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
    state = prepare(potential, settings, device, updates_per_epoch(len(train_loader), settings))
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
    total = planned_updates(cycles.updates_per_epoch, settings)
    recorder = Recorder(
        folder, console or Console(stderr=True), settings, update=state.progress.update, total_updates=total
    )
    with recorder, matmul_precision(settings.matmul, device):
        if (lack := missing(settings.matmul, device)) is not None:
            recorder.note(f"train.matmul: {settings.matmul} {lack}")
        write_groups(folder, state.trained)
        recorder.console.print(groups_table(state.trained))
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
        trained=tuple(state.trained),
        ranked=tuple(ranked_list(state.progress, settings.best_metric)),
        loss=(*terms_in_words(settings), *notes_in_words(settings)),
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
    aside = checkpoints / ".last.old"
    if (checkpoints / "best" / STATE).is_file() and not (checkpoints / "last").exists() and not aside.exists():
        return checkpoints / "best"
    return checkpoints / "last"
