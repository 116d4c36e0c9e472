"""Mean absolute error plus root mean square error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.loss import Loss
from forgefield.train.normalization import Rows


class MaePlusRmseSettings(Settings):
    """It has no settings."""


class MaePlusRmse(Loss):
    """What mae would be plus the root of what mse would be, over all labelled components of one update.

    The root is of the mean over the whole update: all its accumulated batches and all processes. So large errors weigh
    more than with mae, and less than with mse.

    Source:
        `lossfn: matloss` of XequiNet.
    """

    sums_of: ClassVar[tuple[str, ...]] = ("", " (squares)")

    def __init__(self, settings: MaePlusRmseSettings) -> None:
        self.settings = settings

    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the sums of absolute and of squared components of each row, (2, R)."""
        return torch.stack([difference.abs().sum(1), difference.square().sum(1)])

    def count(self, rows: Rows, width: int) -> Tensor:
        """Return the number of labelled components."""
        return rows.present.sum() * width

    def value(self, means: Sequence[Tensor]) -> Tensor:
        """Return the first mean plus the root of the second, whose slope at 0 is taken as 0."""
        absolute, squared = means
        none = squared == 0  # not `> 0`: what is no number must stay so
        return absolute + torch.where(none, 0.0, torch.where(none, 1.0, squared).sqrt())


ENTRY = Entry(MaePlusRmseSettings, MaePlusRmse, "mean absolute error plus root mean square error of the batch")
