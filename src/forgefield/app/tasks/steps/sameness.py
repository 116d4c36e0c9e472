"""What of a run must stay the same when it is continued, key by key."""

from __future__ import annotations

from typing import Any

from forgefield.app.run import RunConfig, resolved
from forgefield.core.errors import ConfigError
from forgefield.train.continuation import Change, fix_of, refused
from forgefield.train.settings import RESUME_MAY_CHANGE

FREE = {"name", "id", "task", "run_dir", "model_in", "device", "output", "export", "eval", "accept"}
"""Keys that may differ from the run that is continued."""
FREE_DATA = {"train", "val", "test", "test_indices", "lmdb", "batch_size", "format", "accept", "on_error"}
"""Keys of `data` that may differ: the contents are compared by their fingerprint instead."""
FREE_MODEL = {"manifest", "weights", "head", "export"}


def comparable(config: RunConfig) -> dict[str, Any]:
    """Return what must stay the same on resuming, as dotted keys and plain values."""
    whole = resolved(config.model_copy(update={"task": "train"}))  # so that no task leaves keys out
    plain = {key: value for key, value in whole.items() if key not in FREE}
    free = {"data": FREE_DATA, "train": RESUME_MAY_CHANGE, "model": FREE_MODEL}
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            found |= {f"{key}.{k}": v for k, v in value.items() if k not in free.get(key, set())}
        else:
            found[key] = value
    return found


def described(config: RunConfig) -> dict[str, Any]:
    """Return the same without `train`, for the stamp of checkpoints, which holds that block as it is.

    Keys of the model are left out where its settings came with a bundle: the checkpoint's own manifest has them.
    """
    return {key: value for key, value in comparable(config).items() if not key.startswith("train.")}


def check_same(original: RunConfig, config: RunConfig, where: str) -> None:
    """Compare a run with the one it continues.

    Raises:
        ConfigError: a setting that must stay differs and is not in `accept`; old and new values are named.
    """
    old, new = comparable(original), comparable(config)
    if original.task == "finetune":  # its bundle decides about the architecture, not what was said beside it
        old, new = ({k: v for k, v in values.items() if not k.startswith("model.")} for values in (old, new))
    changes = [
        Change(key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if left := refused(changes, config.accept):
        raise ConfigError(f"settings differ from the run's: {'; '.join(map(str, left))}", where, fix_of(left))
