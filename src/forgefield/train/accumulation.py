"""The gradient of one update: from one batch or several, in one process or several, as if all were one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forgefield.train.loss import WeightedLoss
from forgefield.train.normalization import Rows
from forgefield.train.randomness import Draws
from forgefield.train.state import TrainState
from forgefield.train.tally import Tally

if TYPE_CHECKING:
    from forgefield.data.loader import Batch

AllRows = Sequence[Mapping[str, Rows]]  # of each batch


def count_labels(state: TrainState, batches: Sequence[Batch], losses: WeightedLoss, rows: AllRows) -> dict[str, Tensor]:
    """Return what the sums of each term are divided by, over all batches and processes."""
    parts = [losses.counts(batch.labels, its) for batch, its in zip(batches, rows, strict=True)]
    return _over_all(state, list(losses.terms), parts)


def add_gradients(
    state: TrainState,
    batches: Sequence[Batch],
    losses: WeightedLoss,
    rows: AllRows,
    counts: Mapping[str, Tensor],
    tally: Tally | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Add this process's share of the gradient; returns the sums over all batches and processes, and the loss.

    Of a loss that is a mean each batch has a share. Of a loss with roots of means it has none before the sums of all
    batches are known: they are predicted first, the sums of all processes added up, and the loss's slope by each sum
    multiplies the gradients of the batches' sums. Several batches of one process are therefore predicted twice, with
    the same random numbers, since the history of only one is held.

    Args:
        state: gradients are added to the weights'.
        batches: this process's batches of the update, which may be none.
        losses: what is minimised.
        rows: of each batch.
        counts: from `count_labels`.
        tally: gets the errors of the predictions.
    """
    if not (losses.is_mean or (len(batches) == 1 and state.team.size == 1)):
        return _through_sums(state, batches, losses, rows, counts, tally)
    shares = [_add_share(state, batch, losses, its, counts, tally) for batch, its in zip(batches, rows, strict=True)]
    whole = _over_all(state, losses.sum_names, [sums for sums, _ in shares])
    alone = len(shares) == 1 and state.team.size == 1
    return whole, shares[0][1] if alone else losses.combine(whole, counts).total


def _add_share(
    state: TrainState,
    batch: Batch,
    losses: WeightedLoss,
    rows: Mapping[str, Rows],
    counts: Mapping[str, Tensor],
    tally: Tally | None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Add the gradient of one batch's share of the loss; returns its sums, and the share itself."""
    sums = _sums(state, batch, losses, rows, tally)
    share = losses.combine(sums, counts).total
    _backward(state, share)
    return _detached(sums), share.detach()


def _through_sums(
    state: TrainState,
    batches: Sequence[Batch],
    losses: WeightedLoss,
    rows: AllRows,
    counts: Mapping[str, Tensor],
    tally: Tally | None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Predict all batches, then add the gradient of each sum times the slope of the loss by it."""
    draws, kept = Draws(next(state.potential.parameters()).device), len(batches) == 1
    keep = (lambda sums: sums) if kept else _detached  # nothing else may hold a batch's history
    first = [keep(_sums(state, batch, losses, its, tally)) for batch, its in zip(batches, rows, strict=True)]
    whole = _over_all(state, losses.sum_names, [_detached(sums) for sums in first])
    slopes = losses.slopes(whole, counts)
    if not kept:
        draws.again()
    for batch, its, before in zip(batches, rows, first, strict=True):
        _backward(state, _times(slopes, before if kept else _sums(state, batch, losses, its, None)))
    return whole, losses.combine(whole, counts).total


def _times(slopes: Mapping[str, Tensor], sums: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of slope times sum, ()."""
    return torch.stack([slopes[name] * value for name, value in sums.items()]).sum()


def _sums(
    state: TrainState, batch: Batch, losses: WeightedLoss, rows: Mapping[str, Rows], tally: Tally | None
) -> dict[str, Tensor]:
    """Predict a batch; returns the sums of its terms, differentiable."""
    outputs = state.predict(batch)
    if tally is not None:
        tally.add(outputs, batch)
    return losses.sums(outputs, batch.labels, rows)


def _backward(state: TrainState, share: Tensor) -> None:
    (state.scaler.scale(share) if state.scaler is not None else share).backward()


def _detached(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in sums.items()}


def _over_all(state: TrainState, names: Sequence[str], parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Add the numbers of batches and processes."""
    if state.team.size == 1:
        return _added(parts)
    own = torch.zeros(len(names), dtype=torch.float64, device=state.team.device)
    if parts:
        own = torch.stack([value.double() for value in _added(parts).values()])
    return dict(zip(names, state.team.sum_values(own).unbind(), strict=True))


def _added(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    if len(parts) == 1:
        return parts[0]
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
