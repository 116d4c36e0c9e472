"""A moving average of the weights, beside the weights themselves."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of the trainable parameters.

    After update n the average moves by the fraction `1 - min(decay, (1 + n) / (10 + n))` towards the weights, so that
    the first, poor weights are soon forgotten.

    Args:
        model: whose parameters are averaged; frozen ones are left out.
        decay: upper bound of the share of the old average that is kept.

    Source:
        The rule of torch_ema, which mace-torch uses.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the current weights into the average."""
        self.updates += 1
        share = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.values.values()), list(self.parameters.values()), share)

    @torch.no_grad()
    def load(self, updates: int, values: Mapping[str, Tensor]) -> None:
        """Take over an average that was saved: the number of updates in it, and its values by name."""
        self.updates = updates
        for name, value in values.items():
            self.values[name].copy_(value)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew at the present weights."""
        self.updates = 0
        for name, parameter in self.parameters.items():
            self.values[name].copy_(parameter)

    @contextmanager
    def in_place(self) -> Generator[None]:
        """Put the averages into the model for the time of a `with` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            raw = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(raw)
