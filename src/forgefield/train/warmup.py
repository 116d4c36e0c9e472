"""Factors by which the learning rate rises at the beginning of a fit, from the library pytorch-warmup."""

from __future__ import annotations

from typing import Any

import pytorch_warmup
import torch

from forgefield.train.keys.schedule import WITH_PERIOD

_KINDS: dict[str, Any] = {
    "linear": pytorch_warmup.LinearWarmup,
    "exponential": pytorch_warmup.ExponentialWarmup,
    "untuned_linear": pytorch_warmup.UntunedLinearWarmup,
    "untuned_exponential": pytorch_warmup.UntunedExponentialWarmup,
    "radam": pytorch_warmup.RAdamWarmup,
}


class WarmUp:
    """The factors of one warm-up; it has no state but the number of updates, which is kept elsewhere.

    Args:
        kind: linear, exponential, untuned_linear, untuned_exponential or radam.
        optimizer: its rates are left as they are.
        steps: updates of a linear or exponential warm-up.

    Source:
        Ma and Yarats, AAAI 2021; Liu et al., ICLR 2020 (radam).
    """

    def __init__(self, kind: str, optimizer: torch.optim.Optimizer, steps: int | None) -> None:
        rates = [group["lr"] for group in optimizer.param_groups]
        # The library lowers the rates at once; here only its formulas are wanted.
        self._library = _KINDS[kind](optimizer, *([steps] if kind in WITH_PERIOD else []))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def factors(self, updates: int) -> list[float]:
        """Return the factor of each group for the update that follows so many."""
        return [self._library.warmup_factor(updates, **parameters) for parameters in self._library.warmup_params]
