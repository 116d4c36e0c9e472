"""The best checkpoints: which are kept, under which names, and which are taken away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from forgefield.core.disk import disk_errors
from forgefield.train.state import Best, Progress

PREFIX = "best-"


def folder_name(entry: Best) -> str:
    """Name of the checkpoint of a ranked validation: it tells the update, so its content never changes."""
    return f"{PREFIX}{entry.update}"


def rank(progress: Progress, entry: Best, keep: int) -> bool:
    """Put a validation among the best ones if it belongs there; of equal ones the earlier stays.

    Args:
        progress: `ranked` is changed.
        entry: the validation.
        keep: how many are kept; 1 keeps none beside `best`.

    Returns:
        Whether it is one of them, so that a checkpoint should be written.
    """
    if keep == 1:
        return False
    others = [best for best in progress.ranked if best.update != entry.update]
    progress.ranked = sorted([*others, entry], key=lambda best: (best.metric or 0.0, best.update))[:keep]
    return entry in progress.ranked


def prune(checkpoints: Path, progress: Progress) -> None:
    """Take away the ranked checkpoints that are no longer among the best.

    To be called when a `last` checkpoint with this ranking is on disk: until then, a fit that was killed might continue
    from one that still counts on them.
    """
    kept = {folder_name(entry) for entry in progress.ranked}
    with disk_errors(checkpoints):
        for folder in checkpoints.glob(f"{PREFIX}*"):
            if folder.name not in kept:
                shutil.rmtree(folder)


def ranked_list(progress: Progress, metric: str) -> list[dict[str, Any]]:
    """Return the ranked checkpoints, the best first, as plain values."""
    return [
        {"checkpoint": folder_name(entry), metric: entry.metric, "epoch": entry.epoch, "update": entry.update}
        for entry in progress.ranked
    ]
