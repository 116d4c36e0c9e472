"""What a run would find on this machine: device, folder, disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from rich.console import Console

from forgefield.app.findings import Findings, State
from forgefield.app.folder import RunFolder
from forgefield.app.run import RunConfig
from forgefield.app.run_rules import PREDICTING, TRAINING
from forgefield.app.tasks.steps.machine import choose_device
from forgefield.models.precision import missing
from forgefield.train.mixed import lacking

_SPARE = 200 * 2**20  # records, report and TensorBoard files of a run, generously, bytes
_COPIES = 12  # weights that a run keeps: best and last with averages and optimizer state, artifacts


def look_at_device(config: RunConfig, found: Findings) -> None:
    """Say where it would compute, and which precision is lacking there."""
    device = choose_device(config.device, Console(quiet=True))
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        found.add("device", "ok", f"{device}: {name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free")
    else:
        found.add("device", "ok", f"cpu, {torch.get_num_threads()} threads")
    if config.task in TRAINING and (lack := lacking(config.train.amp, device)) is not None:
        found.add("device", "note", f"train.amp will be off: {lack}")
    for key, tasks in (("train", TRAINING), ("eval", PREDICTING)):
        matmul = getattr(config, key).matmul
        if config.task in tasks and (lack := missing(matmul, device)) is not None:
            found.add("device", "note", f"{key}.matmul: {matmul} {lack}")


def look_at_folder(config: RunConfig, found: Findings) -> None:
    """Say whether the run may write to its folder."""
    root = config.run_dir
    if root is None:
        return
    folder = RunFolder(root)
    if config.task == "resume":
        RunFolder.open(root)
        found.add("run_dir", "ok", f"{root} holds a run to continue")
    elif config.task in TRAINING and folder.holds_a_run:
        found.add("run_dir", "error", f"{root} holds a run already. Fix: another run_dir, or forgefield resume {root}")
    elif root.exists() and not root.is_dir():
        found.add("run_dir", "error", f"{root} is a file. Fix: another run_dir")
    else:
        _writable(root, found)


def _writable(root: Path, found: Findings) -> None:
    place = _existing(root)
    if not os.access(place, os.W_OK):
        found.add("run_dir", "error", f"not allowed to write in {place}. Fix: another run_dir")
    else:
        found.add("run_dir", "ok", f"{root} {'is there' if root.exists() else 'will be made'}")


def look_at_disk(config: RunConfig, weights: int, found: Findings) -> None:
    """Say whether the disk has room for a run with so many bytes of weights."""
    target = config.run_dir or config.output.dir
    if target is None:
        return
    free, needed = shutil.disk_usage(_existing(target)).free, _SPARE + _COPIES * weights
    state: State = "error" if free < needed / 4 else "warn" if free < needed else "ok"
    text = f"{free / 2**30:.1f} GiB free"
    found.add("disk", state, text if state == "ok" else f"{text}; a run may need {needed / 2**30:.1f} GiB")


def _existing(path: Path) -> Path:
    """Return the nearest folder above a path that is there."""
    return next(place for place in (path, *path.parents) if place.is_dir())
