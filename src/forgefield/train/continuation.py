"""What may differ between a checkpoint and the run that continues it: named key by key, refused or accepted."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from forgefield.core.errors import ConfigError, DataError
from forgefield.data.settings import DataSettings
from forgefield.train.keys.groups import GroupKeys
from forgefield.train.keys.loss import LossKeys
from forgefield.train.keys.optimization import OptimizationKeys
from forgefield.train.keys.schedule import ScheduleKeys
from forgefield.train.keys.stages import StageKeys
from forgefield.train.settings import RESUME_MAY_CHANGE, TrainSettings
from forgefield.train.state import Best, Progress

CONTENTS = "data.contents"
ALL = "all"
_MODEL = ("model", "backend", "dtype", "model_json", "data.e0", "train.head_key", "train.freeze")
"""Keys that make the model what it is: never accepted, since the weights of the checkpoint belong to them."""
BATCHING = {
    f"train.{name}" for name in ("batch_size", "max_atoms", "max_edges", "same_size", "oversize", "same_fidelity")
}
"""Keys that decide how an epoch is divided into batches."""
_DATA_FIX = f"use the same data to resume, or accept the change: --accept {CONTENTS}"


@dataclass(frozen=True)
class Stamp:
    """What a checkpoint must have in common with the run that continues it.

    Args:
        config: fingerprint of the model and of all else that must not change.
        data: fingerprint of the training data.
        settings: the `train` block.
        batches_per_epoch: batches the training loader gives.
        described: the run's other settings by dotted key, plain values; None if they are not known.
        processes: number of processes that train together.
    """

    config: str
    data: str
    settings: TrainSettings
    batches_per_epoch: int
    described: Mapping[str, Any] | None = None
    processes: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        described = None if self.described is None else dict(self.described)
        return {**vars(self), "settings": self.settings.model_dump(mode="json"), "described": described}


@dataclass(frozen=True)
class Change:
    """A key whose value is another one than in the checkpoint."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.was!r}, is {self.now!r}"


def accepts(accepted: Collection[str], key: str) -> bool:
    """Say whether a list of keys, blocks of keys or `all` covers a key."""
    return any(name == ALL or key == name or key.startswith(f"{name}.") for name in accepted)


def of_the_model(key: str) -> bool:
    """Say whether a key belongs to the model, so that a run cannot be continued with another value of it."""
    return any(key == name or key.startswith(f"{name}.") for name in _MODEL)


def refused(changes: Iterable[Change], accepted: Collection[str]) -> list[Change]:
    """Return the changes that are not accepted, or cannot be."""
    return [change for change in changes if of_the_model(change.key) or not accepts(accepted, change.key)]


def fix_of(changes: Iterable[Change]) -> str:
    """Return what to do about changes that were refused."""
    may = [change.key for change in changes if not of_the_model(change.key)]
    if not may:
        return "restore what belongs to the model, or start a new run with task: finetune"
    return f"restore them, accept them (resume --accept {','.join(may)}), or start a new run with task: finetune"


def settings_changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[Change]:
    """Return the `train` keys that differ and may not; a key that the checkpoint does not know had its default."""
    default = TrainSettings.model_validate({}).model_dump(mode="json")
    kept = [key for key in here if key not in RESUME_MAY_CHANGE]
    was = {key: there.get(key, default[key]) for key in kept}
    return [Change(f"train.{key}", was[key], here[key]) for key in kept if was[key] != here[key]]


def described_changes(there: Mapping[str, Any] | None, here: Mapping[str, Any] | None) -> list[Change]:
    """Return the other keys that differ; none where one side is not known.

    A key of `data` that the checkpoint does not know had its default.
    """
    if there is None or here is None:
        return []
    default = {f"data.{key}": value for key, value in DataSettings().model_dump(mode="json").items()}
    there = {key: default[key] for key in default.keys() & here.keys()} | dict(there)
    keys = sorted(there.keys() | here.keys())
    return [Change(key, there.get(key), here.get(key)) for key in keys if there.get(key) != here.get(key)]


def check_stamp(stored: Mapping[str, Any], own: Mapping[str, Any], where: str, accepted: Collection[str]) -> set[str]:
    """Compare a checkpoint's stamp with the run's; return the keys whose change was accepted.

    Raises:
        ConfigError: settings differ, each is named with both values.
        DataError: the training data differ.
    """
    changes = settings_changes(stored["settings"], own["settings"])
    changes += described_changes(stored["described"], own["described"])
    if left := refused(changes, accepted):
        named = ", ".join(map(str, left))
        raise ConfigError(f"settings differ from the checkpoint's: {named}", where, fix_of(left))
    found = {change.key for change in changes}
    reads = any(key.startswith("data.") for key in found)
    if stored["data"] != own["data"]:
        if not (reads or accepts(accepted, CONTENTS)):
            raise DataError("the training data are not those of the checkpoint", where, _DATA_FIX)
        found.add(CONTENTS)
    if stored["config"] != own["config"] and CONTENTS not in found:
        fix = "restore it, or start a new run with task: finetune"
        raise ConfigError("the configuration of the model is not that of the checkpoint", where, fix)
    explained = {CONTENTS, *BATCHING, "train.drop_last"} & found
    if stored["batches_per_epoch"] != own["batches_per_epoch"] and not explained:
        counts = f"an epoch has {own['batches_per_epoch']} batches, the checkpoint's had {stored['batches_per_epoch']}"
        raise DataError(counts, where, "use the same data to resume")
    return found


def sentences(stored: Mapping[str, Any], own: Mapping[str, Any], found: Collection[str]) -> list[str]:
    """Return what was accepted, one sentence each, and another number of processes."""
    changes = settings_changes(stored["settings"], own["settings"])
    changes += described_changes(stored["described"], own["described"])
    told = [f"resume: {change}; accepted" for change in changes if change.key in found]
    if CONTENTS in found:
        told.append(f"resume: {CONTENTS} had fingerprint {stored['data'][:16]}, has {own['data'][:16]}; accepted")
    if stored["processes"] != own["processes"]:
        told.append(
            f"resume: {own['processes']} processes, the checkpoint was of {stored['processes']}; "
            "sums are rounded differently from here on"
        )
    return told


def moves_optimizer(found: Collection[str]) -> bool:
    """Say whether an accepted change concerns optimizer, parameter groups or learning rates."""
    blocks = (OptimizationKeys, GroupKeys, ScheduleKeys)
    names = [name for block in blocks for name in block.model_fields]
    return any(f"train.{name}" in found for name in names)


def changes_loss(found: Collection[str]) -> bool:
    """Say whether validation losses before and after an accepted change cannot be compared."""
    names = [*LossKeys.model_fields, *StageKeys.model_fields]
    return CONTENTS in found or any(f"train.{name}" in found for name in names)


def settle(progress: Progress, found: Collection[str], stored: Mapping[str, Any], own: Stamp) -> list[str]:
    """Carry the place in the epoch over to batches of another size or order; returns what was done, in sentences."""
    told = []
    if any(f"train.{name}" in found for name in LossKeys.model_fields):
        progress.running.sums, progress.running.counts = {}, {}
    if changes_loss(found) and progress.best.metric is not None:
        progress.best, progress.ranked, progress.stops = Best(cycle=progress.cycle), [], {}
        told.append("resume: validation losses before and after cannot be compared; the best is chosen anew")
    if progress.batch and CONTENTS in found:
        progress.batch = 0
        told.append(f"resume: epoch {progress.epoch + 1} begins anew, with the other data")
    elif progress.batch and (moved := BATCHING.intersection(found)):
        old, new = stored["settings"]["batch_size"], own.settings.batch_size
        if moved != {"train.batch_size"} or old is None or new is None:
            old, new = own.batches_per_epoch, stored["batches_per_epoch"]
        progress.batch = math.ceil(progress.batch * old / new)
        told.append(f"resume: epoch {progress.epoch + 1} goes on at batch {progress.batch + 1} of the other size")
    usable = own.batches_per_epoch
    if own.settings.drop_last:
        usable -= usable % own.settings.accum_steps
    if progress.batch >= usable:
        progress.epoch, progress.batch = progress.epoch + 1, 0
    return told
