"""One row of the history: what a fit has done since the last validation, and what the validation says."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from forgefield.train.keys.loss import QUANTITY_KEYS
from forgefield.train.loss import LossReport, WeightedLoss
from forgefield.train.recorder import peak_memory, validation_columns
from forgefield.train.sink import Row, columns_with

if TYPE_CHECKING:
    from forgefield.train.state import Progress


def history_row(
    progress: Progress,
    tick: float,
    loss: LossReport,
    errors: Mapping[str, Any],
    losses: WeightedLoss,
    further: Sequence[str],
    device: torch.device,
    *,
    best: bool,
    partial: bool,
) -> Row:
    """Return the row of a validation, with the columns `sink.columns_with(further)`.

    Args:
        progress: where the fit stands.
        tick: when the last update ended, on the monotonic clock, s.
        loss: of the validation.
        errors: of the validation over everything, see `metrics.measure_errors`.
        losses: what is minimised.
        further: names of the quantities beside energy, forces and stress.
        device: where the fit runs.
        best: whether it is the best so far.
        partial: whether the fit ends within a cycle.
    """
    running = progress.running
    means = losses.means(running.sums, running.counts)
    shown = (*QUANTITY_KEYS, *further)
    found: Row = {
        "cycle": progress.cycle,
        "epoch": progress.epoch_now,
        "update": progress.update,
        "seconds": running.seconds + time.monotonic() - tick,
        "total_seconds": progress.seconds,
        "cpu_seconds": progress.cpu_seconds,
        "lr": next(iter(running.rates.values())),
        "grad_norm": running.grad_norm / running.updates,
        "train_loss": sum(weight * (means.get(name) or 0.0) for name, (weight, _) in losses.terms.items()),
        **{f"train_{name}": means.get(name) for name in shown},
        "val_loss": float(loss.total),
        **{f"val_{name}": float(loss.terms[name]) if name in loss.terms else None for name in shown},
        **validation_columns(errors),
        "structures_per_second": running.structures / max(running.seconds, 1e-9),
        "peak_memory_mib": peak_memory(device),
        "skipped_updates": progress.skipped,
        "best": best,
        "partial": partial,
    }
    return {name: found[name] for name in columns_with(further)}
