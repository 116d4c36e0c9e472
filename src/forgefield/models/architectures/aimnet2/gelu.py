"""GELU with its slope as one operator: x times the normal distribution's cumulative function of x."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from forgefield.core.errors import ModelError

_ROOT = math.sqrt(0.5)
_NORM = 1.0 / math.sqrt(2.0 * math.pi)


@torch.library.custom_op("forgefield::gelu", mutates_args=())
def curved_gelu(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, slope and curvature, each shaped as `x`; derivatives by `x` up to the second are there."""
    share = torch.erf(x * _ROOT).add_(1.0).mul_(0.5)
    square = x * x
    density = (square * -0.5).exp_().mul_(_NORM)
    value = x * share
    slope = share.addcmul_(x, density)
    curvature = density.mul_(square.neg_().add_(2.0))
    return value, slope, curvature


@curved_gelu.register_fake
def _shapes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, g: Tensor | None, g_slope: Tensor | None, g_curvature: Tensor | None) -> Tensor | None:
    slope, curvature = ctx.saved_tensors
    if g_curvature is not None:
        raise ModelError("GELU has no third derivative here", fix="set kernels: plain for this run")
    if g_slope is None:
        return None if g is None else g * slope
    bent = g_slope * curvature
    return bent if g is None else torch.addcmul(bent, g, slope)


curved_gelu.register_autograd(_backward, setup_context=_save)
