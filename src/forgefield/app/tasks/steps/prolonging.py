"""What keeps a run that was to be prolonged from going on."""

from __future__ import annotations

from forgefield.app.run import RunConfig
from forgefield.train.loop import FitResult

ENDED_BY = {
    "max_updates": "max_updates",
    "max_minutes": "max_minutes",
    "max_cpu_minutes": "max_cpu_minutes",
    "early_stop": "early_stop_factor",
    "early_stops": "early_stops",
    "min_lr": "min_lr",
    "low_lr": "terminate_on_low_lr",
}
"""Keys of the `train` block by the reason why a fit ended."""
SWITCHED_OFF = {"early_stop_factor": "0", "early_stops": "[]"}


def prolonging(root: str, config: RunConfig, result: FitResult) -> tuple[str, str]:
    """Return what trains for longer after a fit, in words, and the command."""
    command = f"forgefield resume {root}"
    if result.reason in ("max_minutes", "max_cpu_minutes"):
        return "train for as long again", command
    if result.reason == "max_updates" and config.train.max_updates is not None:
        return "train for more updates", f"{command} --set train.max_updates={2 * config.train.max_updates}"
    return "train for more epochs", f"{command} --epochs {2 * config.train.epochs}"


def hint(config: RunConfig, original: RunConfig, result: FitResult) -> str | None:
    """Return what to change where more epochs were asked for and another key ended the fit; None where all is well.

    Args:
        config: the run as it is asked for now.
        original: as it was asked for before.
        result: how the fit ended.
    """
    key = ENDED_BY.get(result.reason)
    if key is None or config.train.epochs <= original.train.epochs or result.epochs_done >= config.train.epochs:
        return None
    value = getattr(config.train, key)
    shown = "" if key in SWITCHED_OFF or key == "min_lr" else f": {value}"
    done = f"after {result.epochs_done} of {config.train.epochs} epochs"
    what = f"train.epochs did not decide: train.{key}{shown} ended the fit {done}"
    if key == "min_lr":
        return f"{what}; the learning rate has come to its end, a lower train.min_lr belongs to a new run"
    if key in ("max_minutes", "max_cpu_minutes"):
        return f"{what}; `forgefield resume` goes on for as long again, --set train.{key}=N or null for longer"
    off = SWITCHED_OFF.get(key, "null")
    larger = "N or " if key in ("max_updates", "terminate_on_low_lr") else ""
    return f"{what}; to go on: forgefield resume --set train.{key}={larger}{off}"
