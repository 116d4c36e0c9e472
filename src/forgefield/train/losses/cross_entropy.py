"""Cross entropy of a class and its predicted probability."""

from __future__ import annotations

from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.quantities import Quantity
from forgefield.core.settings import Settings
from forgefield.train.loss import Loss
from forgefield.train.normalization import Rows

SMALLEST = 1e-15  # a probability of the right class below this counts as this


class CrossEntropySettings(Settings):
    """The cross entropy has no settings."""


class CrossEntropy(Loss):
    """Mean over all labels of -log of the probability given to the right class; of classes only."""

    def __init__(self, settings: CrossEntropySettings) -> None:
        self.settings = settings

    def accepts(self, quantity: Quantity) -> bool:
        """Classes: their labels are 0 or 1, so that the probability of the right one is 1 - |difference|."""
        return quantity.kind == "class"

    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the sum over the components of each row, (R,)."""
        return -(1.0 - difference.abs()).clamp(min=SMALLEST).log().sum(1)

    def count(self, rows: Rows, width: int) -> Tensor:
        """Return the number of labels."""
        return rows.present.sum() * width


ENTRY = Entry(CrossEntropySettings, CrossEntropy, "-log of the probability of the right class; for classes")
