"""Old data beside the new: opened, shared out, counted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from forgefield.app.finetune_keys import ReplaySettings
from forgefield.app.run import RunConfig
from forgefield.core.errors import DataError
from forgefield.data.checks import check_labels
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.isolated import separate_isolated
from forgefield.data.mixing import Mixture, OldFrames, drawn_of, spread
from forgefield.data.parts import Replay
from forgefield.data.split import split_dataset


def open_replay(config: RunConfig, n_train: int, n_val: int, needed: Collection[str]) -> Replay | None:
    """Open the old data that `finetune.replay` names, and decide how they are drawn.

    Frames of one free atom are left out: the old heads keep their reference energies.

    Args:
        config: the run.
        n_train: new structures trained on.
        n_val: new structures validated on.
        needed: labels that the loss needs.

    Raises:
        DataError: they cannot be read, lack labels, or are too few for the share asked for.
    """
    block = config.finetune.replay
    if not block.data:
        return None
    old = _opened(block, block.data)
    if block.val:
        train, val = old, _opened(block, block.val)
    elif config.data.val_fraction > 0:
        split = split_dataset(old, config.data.val_fraction, config.data.split_seed)
        train, val = old.subset(split.train), old.subset(split.val)
    else:
        train, val = old, old
    check_labels(train, needed)
    check_labels(val, needed)
    wanted = len(val) if block.fraction is None else max(1, round(n_val * block.fraction / (1.0 - block.fraction)))
    val = val.subset(spread(len(val), min(wanted, len(val))))
    drawn = drawn_of(n_train, len(train), block.fraction)
    return Replay(
        _weighted(train, block), _weighted(val, block), Mixture(n_train, len(train), drawn, config.train.seed)
    )


def count_replay(replay: Replay, config: RunConfig) -> dict[str, Any]:
    """Return what is mixed, counted over the batches of the first epoch, in plain values."""
    mixture, limits = replay.mixture, config.train.limits
    size = limits.structures if limits.plain else None
    order = mixture.order(0)
    whole = [] if size is None else [order[k : k + size] for k in range(0, len(order) - size + 1, size)] or [order]
    old = [int((batch >= mixture.n_new).sum()) for batch in whole]
    return {
        "new_per_epoch": mixture.n_new,
        "old_per_epoch": mixture.n_drawn,
        "old_in_all": mixture.n_old,
        "share": mixture.share,
        "weight": config.finetune.replay.weight,
        "old_per_batch": [min(old), max(old)] if old else None,
        "batch_size": size,
        "val": len(replay.val),
    }


def describe_replay(replay: Replay, config: RunConfig) -> str:
    """Return the same in one line."""
    found = count_replay(replay, config)
    limits = config.train.limits
    of_batch = "" if limits.plain else f"; spread evenly over batches of {limits.describe()}"
    if found["old_per_batch"] is not None:
        low, high = found["old_per_batch"]
        of_batch = f"; {low if low == high else f'{low} to {high}'} of {found['batch_size']} in a batch"
    weight = "" if found["weight"] == 1.0 else f", their weights times {found['weight']:g}"
    return (
        f"replay: {found['old_per_epoch']} of {found['old_in_all']} old structures beside {found['new_per_epoch']} new "
        f"ones in every epoch ({100 * found['share']:.1f} %{of_batch}){weight}; "
        f"{found['val']} to validate on"
    )


def _opened(block: ReplaySettings, paths: Any) -> Dataset:
    rest, _ = separate_isolated(open_dataset(paths, "auto", block.keys, block.units))
    if len(rest) == 0:
        raise DataError("holds no old structures", rest.name, "it has frames of one free atom only")
    return rest


def _weighted(dataset: Dataset, block: ReplaySettings) -> Dataset:
    return Dataset([OldFrames(dataset, block.head, block.weight)])
