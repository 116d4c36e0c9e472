"""Does a trace give what automatic differentiation gives?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from forgefield.core.errors import ModelError
from forgefield.models.architecture import AtomTerm

EXTRA = "prediction "  # begins the names of further predictions
GRADIENT = "gradient by "  # of parameters' gradients
Term = Callable[[Mapping[str, Tensor]], AtomTerm]
FLOOR = 1e-2  # share of the largest gradient of all below which a parameter's gradient counts as small


class Finding(NamedTuple):
    """Outcome of a comparison."""

    difference: str | None  # what differs, in words
    conclusive: bool  # False where the numbers were not finite


def compare(traced: Term, plain: Term, state: Mapping[str, Tensor], precision: torch.dtype, trains: bool) -> Finding:
    """Compare values, gradients by the vectors, and the gradients by the parameters of a loss of both.

    Both see the same random numbers; neither parameters, buffers nor generators are changed.

    Args:
        traced: what is judged.
        plain: what it is judged by.
        state: parameters and buffers.
        precision: least precise type of the computation; differences up to the square root of its rounding pass.
        trains: compare the gradients by the parameters too.

    Raises:
        ModelError: the forward pass changes buffers.
    """
    wanted, found = (_run(term, state, trains) for term in (plain, traced))
    if not all(bool(torch.isfinite(t).all()) for t in wanted.values()):
        return Finding(None, False)
    tolerance = math.sqrt(torch.finfo(precision).eps)
    largest = max((_largest(t) for name, t in wanted.items() if name.startswith(GRADIENT)), default=0.0)
    energy = _largest(wanted["energies"])
    for name, value in wanted.items():
        floor = largest if name.startswith(GRADIENT) else energy
        scale = _largest(value) + FLOOR * floor
        error = _largest(found[name] - value) if name in found else float("nan")
        if not error <= tolerance * scale:
            what = f"the {name}" if name.startswith(GRADIENT) else name.replace("_", " ")
            return Finding(f"{what} differ by {error:.1e} where the largest is {_largest(value):.1e}", True)
    return Finding(None, True)


def _run(term: Term, state: Mapping[str, Tensor], trains: bool) -> dict[str, Tensor]:
    """Evaluate on copies: energies, vector gradients, and the parameters' gradients of a weighted sum of both."""
    copies = {name: _copy(value, trains) for name, value in state.items()}
    devices = {value.device for value in state.values() if value.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        result = term(copies)
    changed = [
        name
        for name, value in state.items()
        if not isinstance(value, torch.nn.Parameter) and not torch.equal(value, copies[name].detach())
    ]
    if changed:
        raise ModelError(
            f"the forward pass changes buffers: {', '.join(changed)}",
            fix="bundles and checkpoints hold parameters only; normalise by layer or by fixed statistics instead",
        )
    found = _values(result)
    if trains:
        found |= _parameter_gradients(found, {n: c for n, c in copies.items() if c.requires_grad})
    return {name: value.detach() for name, value in found.items()}


def _values(result: AtomTerm) -> dict[str, Tensor]:
    """All that a term holds, by name."""
    found = {"energies": result.energies, "vector_gradients": result.vector_gradients}
    if result.charge_gradients is not None:
        found["charge_gradients"] = result.charge_gradients
    if result.positions is not None and result.strain is not None:
        found |= {"gradients by positions": result.positions, "gradients by strain": result.strain}
    return found | {EXTRA + name: value for name, value in result.extra.items()}


def _copy(value: Tensor, trains: bool) -> Tensor:
    if isinstance(value, torch.nn.Parameter):
        return value.detach().requires_grad_(trains and value.is_floating_point())
    return value.clone()


def _parameter_gradients(values: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    total = torch.zeros((), dtype=torch.float64, device=values["energies"].device)
    for value in values.values():
        rows = torch.arange(1, value.numel() + 1, dtype=torch.float64, device=value.device).reshape(value.shape)
        total = total + (value.double() * torch.cos(1.7 * rows)).sum()
    if not total.requires_grad:
        return {GRADIENT + name: torch.zeros_like(value) for name, value in parameters.items()}
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True, materialize_grads=True)
    return {GRADIENT + name: value for name, value in zip(parameters, gradients, strict=True)}


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
