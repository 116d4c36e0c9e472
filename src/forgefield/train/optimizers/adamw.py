"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings


class AdamwSettings(Settings):
    """What AdamW takes from the `train` block."""

    lr: float = Field(description="learning rate")
    betas: tuple[float, float] = Field(description="decay of the averages of gradient and squared gradient")
    eps: float = Field(description="added to the divisor")
    amsgrad: bool = Field(description="divide by the largest squared-gradient average seen")


def build_adamw(groups: Sequence[dict[str, Any]], settings: AdamwSettings) -> torch.optim.Optimizer:
    """Make AdamW over parameter groups; weights shrink by lr x weight_decay per update.

    Source:
        Loshchilov and Hutter, ICLR 2019.
    """
    return torch.optim.AdamW(
        list(groups), lr=settings.lr, betas=settings.betas, eps=settings.eps, amsgrad=settings.amsgrad, fused=True
    )


ENTRY = Entry(AdamwSettings, build_adamw, "Adam; weight decay apart from the gradient")
