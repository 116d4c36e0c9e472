"""The same command again: what becomes of a run that is already in its folder."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from forgefield.app.folder import RunFolder, read_json
from forgefield.app.run import RunConfig, load_run
from forgefield.app.tasks.steps.fitting import WORDS
from forgefield.app.tasks.steps.outcome import say
from forgefield.core.errors import ConfigError
from forgefield.train.checkpoint import has_checkpoint


def taken_up(config: RunConfig, console: Console) -> RunConfig | None:
    """Return what `--continue` makes of a run: the continuation of what is in its folder, or the run as it is.

    A run that has ended is left as it is, unless it was stopped by `train.max_minutes`, `train.max_cpu_minutes` or its
    `train` block is another now. What a run left behind that was killed before its first checkpoint is removed.

    Returns:
        The run to carry out; None if there is nothing left to do.
    """
    if config.task not in ("train", "finetune") or config.run_dir is None:
        return config
    folder = RunFolder(config.run_dir)
    if not folder.holds_a_run:
        return config
    if not has_checkpoint(folder.checkpoints):
        say(console, f"{config.run_dir}: the run there was killed before its first checkpoint; it begins anew")
        folder.clear()
        return config
    if _ended(config, folder):
        say(console, f"{config.run_dir}: this run is finished, nothing is left to do")
        return None
    return resumed(config)


def resumed(config: RunConfig) -> RunConfig:
    """Return a new run as the continuation of itself."""
    assert config.run_dir is not None
    model = config.model.model_copy(update={"manifest": None, "weights": None})
    return config.model_copy(update={"task": "resume", "model_in": RunFolder(config.run_dir).last, "model": model})


def as_resumed(config: RunConfig) -> RunConfig | None:
    """Return a new run as the continuation of itself, if a signal stopped it and it was saved; None for a free folder.

    Raises:
        ConfigError: a run is there that did not end; how to continue it is told.
    """
    if config.run_dir is None:
        return None
    folder = RunFolder(config.run_dir)
    record = _record(folder)
    if not record or not folder.resolved.is_file() or record.get("status") == "finished":
        return None
    if record.get("stopped_by"):
        return resumed(config)
    how = "was killed, or still runs" if record.get("status") == "running" else str(record.get("status"))
    if not has_checkpoint(folder.checkpoints):
        fix = "if it no longer runs: the same command with --continue begins it anew"
        raise ConfigError(f"run_dir holds a run that did not end ({how}) and has no checkpoint", str(folder.root), fix)
    fix = f"if it no longer runs: the same command with --continue, or forgefield resume {folder.root}, goes on"
    raise ConfigError(f"run_dir holds a run that did not end ({how})", str(folder.root), fix)


def _ended(config: RunConfig, folder: RunFolder) -> bool:
    """Say whether the run in a folder has nothing left to do under these settings."""
    record = _record(folder)
    if record.get("status") != "finished" or not folder.resolved.is_file():
        return False
    out_of_time = record.get("fit", {}).get("reason") in (WORDS["max_minutes"], WORDS["max_cpu_minutes"])
    return not out_of_time and load_run(folder.resolved)[0].train == config.train


def _record(folder: RunFolder) -> dict[str, Any]:
    return read_json(folder.record) if folder.record.is_file() else {}
