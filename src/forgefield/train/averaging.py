"""The equal average of the weights over the updates of a stage (stochastic weight averaging)."""

from __future__ import annotations

import torch
from torch import nn

from forgefield.train.ema import WeightAverage


class EqualAverage(WeightAverage):
    """Mean of the weights after each update since it was made; the weights themselves until the first.

    Source:
        P. Izmailov et al., arXiv:1803.05407; here every update counts, not every cycle.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, decay=1.0)

    @torch.no_grad()
    def update(self) -> None:
        """Take the current weights into the mean."""
        self.updates += 1
        for name, parameter in self.parameters.items():
            self.values[name].lerp_(parameter, 1.0 / self.updates)
