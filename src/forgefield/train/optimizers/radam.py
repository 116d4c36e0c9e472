"""Adam whose first steps are rectified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings


class RadamSettings(Settings):
    """What RAdam takes from the `train` block."""

    lr: float = Field(description="learning rate")
    betas: tuple[float, float] = Field(description="decay of the averages of gradient and squared gradient")
    eps: float = Field(description="added to the divisor")
    decoupled_decay: bool = Field(description="whether weights decay apart from the gradient, as in AdamW")


def build_radam(groups: Sequence[dict[str, Any]], settings: RadamSettings) -> torch.optim.Optimizer:
    """Make RAdam over parameter groups.

    Source:
        Liu et al., ICLR 2020.
    """
    return torch.optim.RAdam(
        list(groups),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        decoupled_weight_decay=settings.decoupled_decay,
    )


ENTRY = Entry(RadamSettings, build_radam, "Adam; the first steps are rectified for their uncertain divisor")
