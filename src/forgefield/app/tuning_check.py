"""What `forgefield check` says of the model that fine-tuning would begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from forgefield.app.baseline.looking import lazily
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.datasets import checked_training_data
from forgefield.app.tasks.steps.replaying import describe_replay
from forgefield.app.tasks.steps.starting import Start, begin

State = Literal["ok", "note", "warn", "error"]


@dataclass(frozen=True)
class OnCpu:
    """A run that is only looked at."""

    config: RunConfig
    device: torch.device


def look_at_start(config: RunConfig) -> tuple[Start, list[tuple[str, State, str]]]:
    """Make the model as the run would, on the CPU.

    Returns:
        It, and rows of topic, state and text.

    Raises:
        ForgeError: model, data and settings do not fit together.
    """
    data = lazily(checked_training_data(config), config)
    start = begin(OnCpu(config, torch.device("cpu")), data)
    rows: list[tuple[str, State, str]] = []
    rows += [("start", "ok", note) for note in dict.fromkeys(t for r in start.tensors for t in r.note.split("; ") if t)]
    if data.replay is not None:
        rows.append(("replay", "ok", describe_replay(data.replay, config).removeprefix("replay: ")))
    rows += [("E0s", "ok", str(row)) for row in start.references.rows if row.moved]
    rows += [("E0s", "note", note) for note in start.references.notes]
    return start, rows
