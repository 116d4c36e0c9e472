"""Adam, with or without AMSGrad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings


class AdamSettings(Settings):
    """What Adam takes from the `train` block."""

    lr: float = Field(description="learning rate")
    betas: tuple[float, float] = Field(description="decay of the averages of gradient and squared gradient")
    eps: float = Field(description="added to the divisor")
    amsgrad: bool = Field(description="divide by the largest squared-gradient average seen")


def build_adam(groups: Sequence[dict[str, Any]], settings: AdamSettings) -> torch.optim.Optimizer:
    """Make Adam over parameter groups; weight decay is added to the gradient.

    Source:
        Kingma and Ba, ICLR 2015; Reddi, Kale and Kumar, ICLR 2018 (AMSGrad).
    """
    return torch.optim.Adam(
        list(groups), lr=settings.lr, betas=settings.betas, eps=settings.eps, amsgrad=settings.amsgrad, fused=True
    )


ENTRY = Entry(AdamSettings, build_adam, "Adam; weight decay acts through the gradient")
