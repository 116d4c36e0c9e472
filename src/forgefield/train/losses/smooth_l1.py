"""Smooth L1 loss."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.loss import Loss
from forgefield.train.normalization import Rows


class SmoothL1Settings(Settings):
    """Where the square ends."""

    smooth_l1_beta: float = Field(
        1.0, gt=0, description="Error above which the loss is linear, in the unit of the quantity."
    )


class SmoothL1(Loss):
    """Mean over all labelled components of d²/(2 beta) for |d| < beta, |d| - beta/2 beyond: Huber's loss over beta."""

    def __init__(self, settings: SmoothL1Settings) -> None:
        self.settings = settings

    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the sum over the components of each row, (R,)."""
        beta, size = self.settings.smooth_l1_beta, difference.abs()
        return torch.where(size < beta, difference.square() * (0.5 / beta), size - 0.5 * beta).sum(1)

    def count(self, rows: Rows, width: int) -> Tensor:
        """Return the number of labelled components."""
        return rows.present.sum() * width


ENTRY = Entry(SmoothL1Settings, SmoothL1, "square of small errors, size of large ones")
