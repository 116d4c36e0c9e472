"""Mean length of the error vector."""

from __future__ import annotations

import torch
from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.quantities import Quantity
from forgefield.core.settings import Settings
from forgefield.train.loss import Loss
from forgefield.train.normalization import Rows


class L2maeSettings(Settings):
    """The mean error length has no settings."""


class L2mae(Loss):
    """Mean over labelled rows of the length of the error vector, which does not depend on the axes.

    Source:
        The force loss of fairchem's OC20 and OC22 models of the same name.
    """

    def __init__(self, settings: L2maeSettings) -> None:
        self.settings = settings

    def accepts(self, quantity: Quantity) -> bool:
        """Vectors only."""
        return quantity.is_vector

    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the length of each row, (R,); its gradient at length 0 is 0."""
        return torch.linalg.vector_norm(difference, dim=1)

    def count(self, rows: Rows, width: int) -> Tensor:
        """Return the number of labelled atoms."""
        return rows.present.sum()


ENTRY = Entry(L2maeSettings, L2mae, "mean length of the force error of an atom")
