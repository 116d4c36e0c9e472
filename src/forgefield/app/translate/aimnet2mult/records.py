"""AIMNet2mult: checkpoints, Weights & Biases, metrics."""

from __future__ import annotations

from importlib.util import find_spec

from forgefield.app.translate.aimnet2mult.reading import Settings
from forgefield.app.translation import Remark, Sheet

UNITS = "errors are always in meV per atom, meV/Å and e; 1 kcal/mol (scale: 23.06) is 43.36 meV"


def checkpoints(given: Settings, sheet: Sheet) -> None:
    """How many are kept; AIMNet2mult keeps weights alone, here a checkpoint can be continued."""
    kept = given.get("checkpoint.kwargs.n_saved", 1)
    if given.get("checkpoint.save_best", False) and given.has("checkpoint.dirname"):
        sheet.put("train.best_k", kept, "checkpoint.kwargs.n_saved of the best; the last is always kept too")
    else:
        _say(
            given, sheet, "checkpoint.kwargs.n_saved", "save_best is false: the last ones; the last is always kept here"
        )
    for key, why in {
        "checkpoint": "checkpoints are always kept",
        "checkpoint.kwargs": "empty",
        "checkpoint.save_best": "the best is always kept",
        "checkpoint.filename_prefix": "checkpoints have fixed names in run_dir",
        "checkpoint.kwargs.require_empty": "a new run needs a new run_dir",
    }.items():
        _say(given, sheet, key, why)


def wandb(given: Settings, sheet: Sheet) -> None:
    """Weights & Biases, where the files name it."""
    mode = given.values.get("wandb.init.mode") or "online"
    asked = any(given.places[key] for key in given.below("wandb")) and not given.says("wandb") and mode != "disabled"
    found = find_spec("wandb")
    if asked and found is not None and found.origin is not None:
        sheet.put("train.loggers", ["csv", "jsonl", "tensorboard", "wandb"])
        block = {key: given.get(f"wandb.init.{key}") for key in ("project", "entity", "name")}
        block = {key: value for key, value in block.items() if value}
        if given.says("wandb.init.mode"):
            block = {"mode": "offline" if mode == "offline" else "online", **block}
        sheet.put("train.wandb", block, "" if "mode" in block else "offline unless you add mode: online")
        given.read |= {f"wandb.init.{key}" for key in ("project", "entity", "name", "mode")} | {"project_name"}
    why = (
        "the package wandb is not installed: records are csv, jsonl and tensorboard; with it add wandb to train.loggers"
    )
    if not asked:
        why = "no records go to wandb"
    for key in ("project", "entity", "name", "mode"):
        if f"wandb.init.{key}" not in given.read:
            _say(given, sheet, f"wandb.init.{key}", why)
    if "project_name" not in given.read:
        _say(given, sheet, "project_name", f"{why}; train.wandb.project is its place")
    _wandb_extras(given, sheet)


def _wandb_extras(given: Settings, sheet: Sheet) -> None:
    for key in given.below("wandb"):
        if key.startswith("wandb.watch_model"):
            _say(given, sheet, key, "weights and gradients are not sent; report.html and breakdown.csv tell of groups")
    for key, why in {
        "wandb": "no records go to wandb",
        "wandb.init": "empty",
        "wandb.log_frequency": "empty",
        "wandb.init.notes": "write what is to be noted into train.wandb.tags",
        "wandb.log_frequency.train": "every validation writes a row; train.log_every sets the lines on the screen",
        "wandb.log_frequency.val": "set no interval of validation upstream, although its README says so; "
        "train.validate_every does",
    }.items():
        _say(given, sheet, key, why)


def metrics(given: Settings, sheet: Sheet) -> None:
    """Units of the display."""
    for key in given.below("metrics"):
        _say(given, sheet, key, UNITS)


def _say(given: Settings, sheet: Sheet, key: str, why: str) -> None:
    if given.says(key):
        sheet.needless.append(Remark(key, given.get(key), why))
