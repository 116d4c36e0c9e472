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
from collections.abc import Collection, Generator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from forgefield.core.disk import disk_errors, write_atomic
from forgefield.core.errors import ForgeError, ModelError
from forgefield.models.bundle import save_bundle
from forgefield.models.potential import Potential
from forgefield.train import continuation, randomness
from forgefield.train.averaging import EqualAverage
from forgefield.train.continuation import Stamp
from forgefield.train.optimizer_state import adapt_optimizer, pack_optimizer, unpack_optimizer
from forgefield.train.state import Progress, TrainState
from forgefield.train.upgrades import FORMAT, upgrade

TENSORS = "training.safetensors"
STATE = "state.json"


def save_checkpoint(folder: Path, state: TrainState, stamp: Stamp) -> None:
    """Write a checkpoint whole or not at all; the one that was there stays until the new one is complete.

    All processes that train together call it; the first writes.

    Raises:
        DeviceError: the disk is full or cannot be written; the previous checkpoint is untouched.
    """
    random = state.team.gather(randomness.packed())
    if not state.team.leads:
        return
    beside = folder.with_name(f".{folder.name}.new")
    with disk_errors(folder):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir(parents=True)
            _write_all(beside, state, stamp, random)
            _replace(folder, beside)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def load_checkpoint(folder: Path, state: TrainState, stamp: Stamp, accept: Collection[str] = ()) -> list[str]:
    """Put a checkpoint into the state: weights, optimizer, schedule, average, counters and random numbers.

    Args:
        folder: the checkpoint.
        state: as made at the beginning of a fit, from the present settings.
        stamp: of the run that continues.
        accept: keys, or blocks of keys, that may differ from the checkpoint's.

    Returns:
        What is continued differently than it was begun, in sentences; empty if nothing is.

    Raises:
        ModelError: there is no checkpoint, it is damaged, or it belongs to another model.
        ConfigError: the run's settings differ from the checkpoint's where they must not.
        DataError: the training data differ.
    """
    record, tensors = _read(folder)
    with _damage(folder):
        told = upgrade(record, tensors, folder)
        stored, own = record["stamp"], stamp.to_json()
        found = continuation.check_stamp(stored, own, str(folder), accept)
        told += continuation.sentences(stored, own, found)
        _load_parameters(state.potential, _under(tensors, "weights."), folder)
        state.progress = Progress.from_json(record["progress"])
        _load_moving(state, record, tensors, found)
        told += continuation.settle(state.progress, found, stored, stamp)
        rank = state.team.rank
        if rank < len(record["random"]):
            randomness.restore(record["random"][rank], _under(tensors, f"random.{rank}."))
        else:
            randomness.seed_all(stamp.settings.seed, rank)
        return told


def _load_moving(state: TrainState, record: dict[str, Any], tensors: dict[str, Tensor], found: set[str]) -> None:
    """Put back all that moves beside the weights, as far as accepted changes leave it valid."""
    optimizer, values = record["optimizer"], _under(tensors, "optimizer.")
    moved = continuation.moves_optimizer(found)
    if not moved:
        unpack_optimizer(state.optimizer, optimizer, values)
    elif not {"train.optimizer", "train.amsgrad"} & found:
        adapt_optimizer(state.optimizer, optimizer, values)
    if state.average is not None and record["average_updates"] is None:
        state.average.restart()
    elif state.average is not None:
        state.average.load(int(record["average_updates"]), _under(tensors, "average."))
    if record.get("equal_updates") is not None:
        state.equal = EqualAverage(state.potential)
        state.equal.load(int(record["equal_updates"]), _under(tensors, "equal."))
    if state.schedule is not None:
        other, anew = "train.scheduler" in found, continuation.changes_loss(found)
        state.schedule.load(
            record["schedule"], state.progress.update, own_rates=moved, own_schedule=other, forget_best=anew
        )
    if state.scaler is not None and record["scaler"]:
        state.scaler.load_state_dict(record["scaler"])


def has_checkpoint(checkpoints: Path) -> bool:
    """Say whether a folder of checkpoints has one from which a fit can go on, also if a kill cut its renaming short."""
    return any((checkpoints / name / STATE).is_file() for name in ("last", ".last.old", "best", ".best.old"))


def recover(folder: Path) -> None:
    """Put in order what a program that was killed while writing left below a run folder."""
    with disk_errors(folder):
        for aside in (folder / "checkpoints").glob(".*.old"):
            place = aside.with_name(aside.name[1:].removesuffix(".old"))
            if place.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(place)
        for rubbish in (folder / "checkpoints").glob(".*.new"):
            shutil.rmtree(rubbish, ignore_errors=True)
        for part in folder.glob(".*.part"):
            part.unlink(missing_ok=True)


def load_weights(folder: Path, potential: Potential) -> None:
    """Put the weights that were validated (the averaged ones, if there are any) into a potential.

    Raises:
        ModelError: there is no checkpoint, it is damaged, or it belongs to another model.
    """
    _, tensors = _read(folder)  # weights bear the same names in every format
    weights = {**_under(tensors, "weights."), **_under(tensors, "average."), **_under(tensors, "equal.")}
    _load_parameters(potential, weights, folder)


def _write_all(folder: Path, state: TrainState, stamp: Stamp, random: list[bytes]) -> None:
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
    states = [randomness.unpacked(data) for data in random]
    for rank, (_, found) in enumerate(states):
        tensors |= {f"random.{rank}.{name}": value for name, value in found.items()}
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
        "random": [plain for plain, _ in states],
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
