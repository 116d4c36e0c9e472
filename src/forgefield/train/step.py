"""One update of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from forgefield.core.errors import ForgeError
from forgefield.models.precision import autocast
from forgefield.train.accumulation import add_gradients, count_labels
from forgefield.train.loss import WeightedLoss
from forgefield.train.state import TrainState
from forgefield.train.tally import Tally

if TYPE_CHECKING:
    from forgefield.data.loader import Batch
    from forgefield.models.potential import Outputs

MOST_NAMED = 20  # structures listed in a message
SMALLEST_SCALE = 2.0**-10  # a gradient scale below this means that every update overflows


class NotFiniteError(ForgeError):
    """A loss or gradient that is not a number.

    `structures` are the places in the training set to look at, `norms` the gradient norms of the parameter groups.
    """

    structures: tuple[int, ...] = ()
    norms: Mapping[str, float] = {}


class UpdateReport(NamedTuple):
    """What one update did, as plain numbers."""

    loss: float
    sums: dict[str, float]
    counts: dict[str, float]
    grad_norm: float  # before clipping
    n_structures: int
    skipped: bool  # gradient scaling left the update out


def take_update(
    state: TrainState,
    batches: Sequence[Batch],
    losses: WeightedLoss,
    *,
    max_grad_norm: float | None = None,
    max_grad_value: float | None = None,
    tally: Tally | None = None,
) -> UpdateReport:
    """Update the weights once, from one batch or several accumulated ones.

    Labels are counted over all the batches first, and over all processes that train together, so that the gradient is
    that of one joined batch, also when the last update of an epoch has fewer of them. Each process calls it with its
    own batches, which may be none.

    Args:
        state: potential, optimizer, average and scaler are changed; the counters are not.
        batches: the batches of this update.
        losses: what is minimised.
        max_grad_norm: longest gradient allowed; longer ones are shortened.
        max_grad_value: largest element of a gradient allowed; larger ones are cut.
        tally: gets the errors of the predictions.

    Raises:
        NotFiniteError: loss or gradient is not a number; the weights are as they were. Structures are named by their
            index in the training set.
    """
    from forgefield.train.full_batch import is_full_batch, take_full_update  # which builds on this module

    if is_full_batch(state.optimizer):
        return take_full_update(state, batches, losses, tally)
    if not state.potential.training:  # walking through all modules takes a while
        state.potential.train()
    state.optimizer.zero_grad(set_to_none=True)
    rows = [losses.rows(batch.labels) for batch in batches]
    counts = count_labels(state, batches, losses, rows)
    sums, total = add_gradients(state, batches, losses, rows, counts, tally)
    state.team.sum_gradients(p for group in state.optimizer.param_groups for p in group["params"])
    if state.scaler is not None:
        state.scaler.unscale_(state.optimizer)
    norm = _clip(state, max_grad_norm, max_grad_value)
    values = _to_floats(total, sums, counts, norm)
    n_structures = state.team.total(sum(batch.index.shape[0] for batch in batches))
    result = UpdateReport(*values, n_structures=n_structures, skipped=False)
    if state.scaler is not None:
        return _scaled_step(state, batches, result)
    if not (math.isfinite(result.loss) and math.isfinite(result.grad_norm)):
        raise _not_finite(state, batches, result)
    state.optimizer.step()
    state.take_averages()
    return result


def _scaled_step(state: TrainState, batches: Sequence[Batch], result: UpdateReport) -> UpdateReport:
    """Step under gradient scaling, which leaves out updates whose float16 gradient overflowed."""
    assert state.scaler is not None
    if not math.isfinite(result.loss):
        raise _not_finite(state, batches, result)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.scaler.get_scale() < SMALLEST_SCALE:
        raise ForgeError("gradients overflow in float16 at every update", fix="set train.amp: false")
    skipped = not math.isfinite(result.grad_norm)
    if not skipped:
        state.take_averages()
    return result._replace(skipped=skipped, grad_norm=0.0 if skipped else result.grad_norm)


def gradient_norm(state: TrainState) -> Tensor:
    """Return the length of the gradient of all groups, ()."""
    return _norm(_gradients(state))


def group_norms(state: TrainState) -> dict[str, float]:
    """Return the length of the gradient of each parameter group, by its name."""
    return {
        str(group["name"]): float(_norm([p.grad for p in group["params"] if p.grad is not None]))
        for group in state.optimizer.param_groups
    }


def _gradients(state: TrainState) -> list[Tensor]:
    return [p.grad for group in state.optimizer.param_groups for p in group["params"] if p.grad is not None]


def _norm(gradients: list[Tensor]) -> Tensor:
    """Return their common length, ()."""
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def _surely_below(norm: float, limit: float) -> bool:
    """Say whether clipping would multiply by exactly 1, rounding aside; where looking costs no wait for a device."""
    return not math.isfinite(norm) or norm <= 0.999 * limit - 1e-6


@torch.no_grad()
def _clip(state: TrainState, max_grad_norm: float | None, max_grad_value: float | None) -> Tensor:
    """Shorten or cut the gradients; returns their length before. What is no number stays so, for the diagnosis."""
    gradients = _gradients(state)
    norm = _norm(gradients)
    if not gradients:
        return norm
    if max_grad_norm is not None and not (norm.device.type == "cpu" and _surely_below(float(norm), max_grad_norm)):
        share = (max_grad_norm / (torch.where(norm.isfinite(), norm, 0.0) + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, share)
    if max_grad_value is not None:
        torch._foreach_clamp_min_(gradients, -max_grad_value)
        torch._foreach_clamp_max_(gradients, max_grad_value)
    return norm


def _to_floats(
    total: Tensor, sums: dict[str, Tensor], counts: dict[str, Tensor], norm: Tensor
) -> tuple[float, dict[str, float], dict[str, float], float]:
    """Bring all numbers of an update to the host in one transfer."""
    stack = [total, norm.to(total.dtype), *sums.values(), *counts.values()]
    loss, length, *rest = torch.stack(stack).tolist()
    n = len(sums)
    return loss, dict(zip(sums, rest[:n], strict=True)), dict(zip(counts, rest[n:], strict=True)), length


def _not_finite(state: TrainState, batches: Sequence[Batch], result: UpdateReport) -> NotFiniteError:
    """Describe a loss or gradient that is not a number, naming the structures to look at."""
    norms = group_norms(state)
    state.optimizer.zero_grad(set_to_none=True)
    guilty: list[int] = []
    present: list[int] = []
    for batch in batches:
        index = batch.index.tolist()
        present += index
        with torch.no_grad(), autocast(batch.graph.positions.device, state.amp):
            outputs = state.potential(batch.graph)
        if state.constant is not None:
            outputs = state.constant.add(outputs, batch)
        bad = _bad_structures(outputs, batch)
        guilty += [index[k] for k in bad.nonzero().flatten().tolist()]
    guilty, present = state.team.joined(guilty), state.team.joined(present)
    what = "loss" if not math.isfinite(result.loss) else "gradient"
    named = sorted(guilty or present)
    shown = ", ".join(map(str, named[:MOST_NAMED])) + (", ..." if len(named) > MOST_NAMED else "")
    kind = "predictions are not finite for" if guilty else "all predictions are finite; the update held"
    lengths = ", ".join(f"{name} {norm:.3g}" for name, norm in norms.items())
    error = NotFiniteError(
        f"the {what} is not finite ({kind} structures {shown} of the training set; gradient norms: {lengths})",
        fix="look at these structures (atoms too close, wrong units or labels), or lower train.lr",
    )
    error.structures, error.norms = tuple(named), norms
    return error


def _bad_structures(outputs: Outputs, batch: Batch) -> Tensor:
    """Structures whose predictions are not all finite, (S,) bool."""
    labels = batch.labels
    bad = ~torch.isfinite(outputs.energy) | ~torch.isfinite(outputs.stress).flatten(1).all(1)
    bad_atoms = (~torch.isfinite(outputs.forces).all(1)).to(torch.int64)
    per_structure = bad_atoms.new_zeros(labels.n_atoms.shape[0]).index_add(0, labels.structure, bad_atoms)
    return bad | (per_structure > 0)
