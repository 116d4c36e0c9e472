"""A run in progress: its settings, its folder, its record, and where it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from forgefield.app.folder import RunFolder, read_json
from forgefield.app.run import RunConfig, save_resolved
from forgefield.app.tasks.steps.machine import choose_device
from forgefield.app.tasks.steps.outcome import say
from forgefield.app.tasks.steps.record import RunRecord
from forgefield.core.disk import disk_errors
from forgefield.core.errors import ConfigError
from forgefield.train.joining import join


@dataclass(frozen=True)
class Run:
    """What the steps of a training task share.

    Args:
        config: the run.
        folder: its folder.
        record: its record.
        device: where it computes.
        dtype: of the model.
        console: for lines to the user.
    """

    config: RunConfig
    folder: RunFolder
    record: RunRecord
    device: torch.device
    dtype: torch.dtype
    console: Console

    def say(self, text: str) -> None:
        """Print a line."""
        say(self.console, text)


@contextlib.contextmanager
def new_run(config: RunConfig, console: Console) -> Iterator[Run]:
    """Begin a run in a new folder; one that fails before its first checkpoint leaves nothing behind.

    Raises:
        ForgeError: the folder holds a run already, the device is not there, or the disk is full.
    """
    if config.run_dir is None:
        raise ConfigError("run_dir is not given", "run_dir", "name the folder to write to, e.g. runs/first")
    device, dtype = choose_device(join(config.device)[1], console), dtype_of(config)
    with disk_errors(config.run_dir), RunFolder.claim(config.run_dir) as folder:
        record = RunRecord(folder, config, device, dtype)
        with record.closing():
            save_resolved(config, folder.root)
            record.note()
            yield Run(config, folder, record, device, dtype, console)


@contextlib.contextmanager
def continued_run(config: RunConfig, console: Console) -> Iterator[Run]:
    """Take up a run that stopped, in its own folder. Nothing is written before the caller does.

    Raises:
        ForgeError: the folder holds no run, the device is not there, or the disk is full.
    """
    if config.run_dir is None:
        raise ConfigError("run_dir is not given", "run_dir", "name the folder of the run to continue")
    folder = RunFolder.open(config.run_dir)
    device, dtype = choose_device(join(config.device)[1], console), dtype_of(config)
    record = RunRecord(folder, config, device, dtype, earlier=earlier_record(folder))
    with disk_errors(config.run_dir):
        yield Run(config, folder, record, device, dtype, console)


def earlier_record(folder: RunFolder) -> dict[str, Any]:
    """Return the record of the run in a folder; empty if it has none."""
    return read_json(folder.record) if folder.record.is_file() else {}


def dtype_of(config: RunConfig) -> torch.dtype:
    """Return the precision that a new model shall have."""
    return {"float32": torch.float32, "float64": torch.float64}[config.dtype]
