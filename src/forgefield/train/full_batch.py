"""One update from the whole training set, by an optimizer that evaluates the loss several times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from forgefield.train.accumulation import add_gradients, count_labels
from forgefield.train.loss import WeightedLoss
from forgefield.train.randomness import Draws
from forgefield.train.state import TrainState
from forgefield.train.step import UpdateReport, _not_finite, _to_floats, gradient_norm

if TYPE_CHECKING:
    from forgefield.data.loader import Batch
    from forgefield.train.tally import Tally

TOO_FAR = 1e3  # a trial step whose loss is no number counts as a loss so many times the present one


def is_full_batch(optimizer: torch.optim.Optimizer) -> bool:
    """Say whether an update of this optimizer takes the whole training set."""
    return isinstance(optimizer, torch.optim.LBFGS)


class _Objective:
    """Loss and gradient over all batches, with the decay as a part of both; the same random numbers each time."""

    def __init__(
        self, state: TrainState, batches: Sequence[Batch], losses: WeightedLoss, tally: Tally | None = None
    ) -> None:
        self.state, self.batches, self.losses, self.tally = state, batches, losses, tally
        self.rows = [losses.rows(batch.labels) for batch in batches]
        self.counts = count_labels(state, batches, losses, self.rows)
        group = state.optimizer.param_groups[0]
        self.parameters: list[nn.Parameter] = group["params"]
        self.decays: list[float] = group["decays"]
        self.first: UpdateReport | None = None
        self.start = 0.0
        self.draws = Draws(self.parameters[0].device)

    def __call__(self) -> Tensor:
        """Evaluate at the weights as they stand.

        Raises:
            NotFiniteError: the first value is not a number; the weights have not been moved yet.
        """
        self.draws.again()
        self.state.optimizer.zero_grad(set_to_none=True)
        tally = self.tally if self.first is None else None
        sums, total = add_gradients(self.state, self.batches, self.losses, self.rows, self.counts, tally)
        self.state.team.sum_gradients(self.parameters)
        value = total + self._add_decay().to(total.dtype)
        if self.first is None:
            numbers = _to_floats(total, sums, self.counts, gradient_norm(self.state))
            n_structures = self.state.team.total(sum(batch.index.shape[0] for batch in self.batches))
            self.first = UpdateReport(*numbers, n_structures=n_structures, skipped=False)
            if not (math.isfinite(self.first.loss) and math.isfinite(self.first.grad_norm)):
                raise _not_finite(self.state, self.batches, self.first)
            self.start = float(value)
        elif not math.isfinite(float(value)):
            return self._too_far(value)
        return value

    def _add_decay(self) -> Tensor:
        """Add half the squared weights, times their decay, to the gradients; returns that sum."""
        total = self.parameters[0].new_zeros(())
        with torch.no_grad():
            for parameter, decay in zip(self.parameters, self.decays, strict=True):
                if decay:
                    gradient = decay * parameter
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
                    total = total + 0.5 * decay * (parameter * parameter).sum()
        return total

    def _too_far(self, value: Tensor) -> Tensor:
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        return torch.full_like(value, TOO_FAR * (1.0 + abs(self.start)))


def take_full_update(
    state: TrainState, batches: Sequence[Batch], losses: WeightedLoss, tally: Tally | None = None
) -> UpdateReport:
    """Update the weights once by iterations over the whole training set.

    The line search compares losses, so gradients are not clipped, and decay is a term of the loss. A trial step whose
    loss is not a number counts as a very large one.

    Args:
        state: potential, optimizer and average are changed.
        batches: all of the training set.
        losses: what is minimised.
        tally: gets the errors of the predictions before the update.

    Returns:
        Loss (without decay) and gradient norm before the update.

    Raises:
        NotFiniteError: loss or gradient is not a number; the weights are as they were.
    """
    state.potential.train()
    objective = _Objective(state, batches, losses, tally)
    state.optimizer.step(cast("Callable[[], float]", objective))
    assert objective.first is not None
    state.take_averages()
    return objective.first
