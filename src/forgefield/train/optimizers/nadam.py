"""Adam with Nesterov momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings


class NadamSettings(Settings):
    """What NAdam takes from the `train` block."""

    lr: float = Field(description="learning rate")
    betas: tuple[float, float] = Field(description="decay of the averages of gradient and squared gradient")
    eps: float = Field(description="added to the divisor")
    momentum_decay: float = Field(description="how slowly the momentum rises to its final value")
    decoupled_decay: bool = Field(description="whether weights decay apart from the gradient, as in AdamW")


def build_nadam(groups: Sequence[dict[str, Any]], settings: NadamSettings) -> torch.optim.Optimizer:
    """Make NAdam over parameter groups.

    Source:
        Dozat, ICLR workshop 2016.
    """
    return torch.optim.NAdam(
        list(groups),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        momentum_decay=settings.momentum_decay,
        decoupled_weight_decay=settings.decoupled_decay,
    )


ENTRY = Entry(NadamSettings, build_nadam, "Adam with Nesterov momentum")
