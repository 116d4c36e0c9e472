"""A fit on disk: a bundle anyone can use, and beside it what is needed to continue exactly.

A checkpoint folder holds the bundle (averaged weights), `training.safetensors` (raw and averaged weights, optimizer
state, random number states) and `state.json` (counters, schedule, fingerprints, checksums). Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from forgefield.core.disk import disk_errors, write_atomic
from forgefield.core.errors import ConfigError, DataError, ForgeError, ModelError
from forgefield.models.bundle import save_bundle
from forgefield.models.potential import Potential
from forgefield.train import randomness
from forgefield.train.averaging import EqualAverage
from forgefield.train.optimizer_state import pack_optimizer, unpack_optimizer
from forgefield.train.settings import RESUME_MAY_CHANGE, TrainSettings
from forgefield.train.state import Progress, TrainState

FORMAT = "forgefield-checkpoint-1"
TENSORS = "training.safetensors"
STATE = "state.json"


@dataclass(frozen=True)
class Stamp:
    """What a checkpoint must have in common with the run that continues it.

    Args:
        config: fingerprint of the model and of all else that must not change.
        data: fingerprint of the training data.
        settings: the `train` block.
        batches_per_epoch: batches the training loader gives.
    """

    config: str
    data: str
    settings: TrainSettings
    batches_per_epoch: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        settings = self.settings.model_dump(mode="json")
        return {**vars(self), "settings": settings}


def save_checkpoint(folder: Path, state: TrainState, stamp: Stamp) -> None:
    """Write a checkpoint whole or not at all; the one that was there stays until the new one is complete.

    Raises:
        DeviceError: the disk is full or cannot be written; the previous checkpoint is untouched.
    """
    beside = folder.with_name(f".{folder.name}.new")
    with disk_errors(folder):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir(parents=True)
            _write_all(beside, state, stamp)
            _replace(folder, beside)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def load_checkpoint(folder: Path, state: TrainState, stamp: Stamp) -> None:
    """Put a checkpoint into the state: weights, optimizer, schedule, average, counters and random numbers.

    Raises:
        ModelError: there is no checkpoint, it is damaged, or it belongs to another model.
        ConfigError: the run's settings differ from the checkpoint's where they must not.
        DataError: the training data differ.
    """
    record, tensors = _read(folder)
    _check_stamp(record["stamp"], stamp.to_json(), folder)
    with _damage(folder):
        _load_parameters(state.potential, _under(tensors, "weights."), folder)
        unpack_optimizer(state.optimizer, record["optimizer"], _under(tensors, "optimizer."))
        if state.average is not None:
            state.average.load(int(record["average_updates"]), _under(tensors, "average."))
        if record.get("equal_updates") is not None:
            state.equal = EqualAverage(state.potential)
            state.equal.load(int(record["equal_updates"]), _under(tensors, "equal."))
        if state.scaler is not None and record["scaler"]:
            state.scaler.load_state_dict(record["scaler"])
        state.progress = Progress.from_json(record["progress"])
        if state.schedule is not None:
            state.schedule.load(record["schedule"], state.progress.update)
        randomness.restore(record["random"], _under(tensors, "random."))


def load_weights(folder: Path, potential: Potential) -> None:
    """Put the weights that were validated (the averaged ones, if there are any) into a potential.

    Raises:
        ModelError: there is no checkpoint, it is damaged, or it belongs to another model.
    """
    _, tensors = _read(folder)
    weights = {**_under(tensors, "weights."), **_under(tensors, "average."), **_under(tensors, "equal.")}
    _load_parameters(potential, weights, folder)


def _write_all(folder: Path, state: TrainState, stamp: Stamp) -> None:
    progress = state.progress
    provenance = {"epoch": progress.epoch_now, "update": progress.update, "data_fingerprint": stamp.data}
    with state.averaged():
        save_bundle(state.potential, folder, provenance=provenance)
    optimizer, tensors = pack_optimizer(state.optimizer)
    tensors = {f"optimizer.{name}": value for name, value in tensors.items()}
    tensors |= {f"weights.{name}": value for name, value in state.potential.state_dict().items()}
    if state.average is not None:
        tensors |= {f"average.{name}": value for name, value in state.average.values.items()}
    if state.equal is not None:
        tensors |= {f"equal.{name}": value for name, value in state.equal.values.items()}
    random, random_tensors = randomness.capture()
    tensors |= {f"random.{name}": value for name, value in random_tensors.items()}
    packed = save_tensors({name: _plain(value) for name, value in tensors.items()})
    record = {
        "format": FORMAT,
        "sha256": {TENSORS: hashlib.sha256(packed).hexdigest()},
        "stamp": stamp.to_json(),
        "progress": progress.to_json(),
        "optimizer": optimizer,
        "schedule": state.schedule.state() if state.schedule else None,
        "average_updates": state.average.updates if state.average else None,
        "equal_updates": state.equal.updates if state.equal else None,
        "scaler": state.scaler.state_dict() if state.scaler else None,
        "random": random,
    }
    write_atomic(folder / TENSORS, packed)
    write_atomic(folder / STATE, json.dumps(record, indent=1, allow_nan=False).encode())
    _sync_folder(folder)


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().clone()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(folder: Path, new: Path) -> None:
    """Rename `new` to `folder`; for a moment the old one bears another name, where `_read` finds it."""
    old = _aside(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    _sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and verify the record and the tensors of a checkpoint."""
    if not (folder / STATE).is_file() and (_aside(folder) / STATE).is_file():
        folder = _aside(folder)  # the program ended between the two renames
    if not (folder / STATE).is_file():
        raise ModelError(f"no checkpoint: {STATE} is not there", str(folder), "train first, or give the right run_dir")
    with _damage(folder):
        record = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ModelError(f"format {record['format']!r}, expected {FORMAT!r}", str(folder), "use its own version")
        packed = (folder / TENSORS).read_bytes()
        if hashlib.sha256(packed).hexdigest() != record["sha256"][TENSORS]:
            raise ModelError(f"{TENSORS} is damaged: its checksum differs", str(folder), "use another checkpoint")
        return record, load_tensors(packed)


@contextlib.contextmanager
def _damage(folder: Path) -> Generator[None]:
    try:
        yield
    except ForgeError:
        raise
    except Exception as error:
        what = f"the checkpoint is damaged or incomplete ({type(error).__name__}: {error})"
        raise ModelError(what, str(folder), "use another checkpoint") from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_parameters(potential: Potential, weights: dict[str, Tensor], folder: Path) -> None:
    own = {name: tuple(value.shape) for name, value in potential.state_dict().items()}
    stored = {name: tuple(value.shape) for name, value in weights.items()}
    if own != stored:
        wrong = sorted(name for name in own.keys() | stored.keys() if own.get(name) != stored.get(name))
        raise ModelError(
            f"the checkpoint belongs to another model: {len(wrong)} tensors differ, first {wrong[0]!r} "
            f"({stored.get(wrong[0], 'absent')} there, {own.get(wrong[0], 'absent')} here)",
            str(folder),
            "use the model settings the checkpoint was trained with",
        )
    with torch.no_grad():
        for name, value in potential.state_dict().items():
            value.copy_(weights[name])


def _check_stamp(stored: dict[str, Any], own: dict[str, Any], folder: Path) -> None:
    if stored["data"] != own["data"]:
        raise DataError("the training data are not those of the checkpoint", str(folder), "use the same data to resume")
    there, here = stored["settings"], own["settings"]
    changed = [k for k in here if k not in RESUME_MAY_CHANGE and here[k] != there.get(k, here[k])]
    if changed:
        details = ", ".join(f"train.{key} was {there[key]!r}, is {here[key]!r}" for key in changed)
        raise ConfigError(
            f"settings differ from the checkpoint's: {details}",
            str(folder),
            "restore them, or start a new run with task: finetune",
        )
    if stored["config"] != own["config"]:
        raise ConfigError(
            "the configuration is not that of the checkpoint", str(folder), "restore it, or start a new run"
        )
    if stored["batches_per_epoch"] != own["batches_per_epoch"]:
        raise DataError(
            f"an epoch has {own['batches_per_epoch']} batches, the checkpoint's had {stored['batches_per_epoch']}",
            str(folder),
            "use the same data to resume",
        )
