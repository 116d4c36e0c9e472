"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings


class SgdSettings(Settings):
    """What gradient descent takes from the `train` block."""

    lr: float = Field(description="learning rate")
    momentum: float = Field(description="share of the last direction kept")


def build_sgd(groups: Sequence[dict[str, Any]], settings: SgdSettings) -> torch.optim.Optimizer:
    """Make gradient descent with momentum over parameter groups."""
    return torch.optim.SGD(list(groups), lr=settings.lr, momentum=settings.momentum)


ENTRY = Entry(SgdSettings, build_sgd, "gradient descent with momentum")
