"""Silu with its slope, and the gradient of both."""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from forgefield.kernels.triton.launch import FUSED

BLOCK = 1024


@triton.jit
def _forward(x, value, slope, sigmoid, N, GAIN: tl.constexpr, SIZE: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < N
    a = tl.load(x + at, mask=inside, other=0.0)
    s = 1.0 / (1.0 + tl.exp(-a))
    v = a * s
    tl.store(value + at, GAIN * v, mask=inside)
    tl.store(slope + at, GAIN * (s + v * (1.0 - s)), mask=inside)
    tl.store(sigmoid + at, s, mask=inside)


@triton.jit
def _backward(
    g_value,
    g_slope,
    x,
    sigmoid,
    out,
    N,
    GAIN: tl.constexpr,
    VALUE: tl.constexpr,
    SLOPE: tl.constexpr,
    SIZE: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < N
    a = tl.load(x + at, mask=inside, other=0.0)
    s = tl.load(sigmoid + at, mask=inside, other=0.0)
    d = s * (1.0 - s)
    g = tl.zeros_like(a)
    if VALUE:
        g += tl.load(g_value + at, mask=inside, other=0.0) * (s + a * d)
    if SLOPE:
        g += tl.load(g_slope + at, mask=inside, other=0.0) * d * (2.0 + a * (1.0 - 2.0 * s))
    tl.store(out + at, GAIN * g, mask=inside)


def gated(x: Tensor, gain: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return gain x sigmoid(x), its derivative and the sigmoid, each shaped as `x`."""
    x = x.contiguous()
    value, slope, sigmoid = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    if x.numel():
        with torch.cuda.device_of(x):
            grid = (triton.cdiv(x.numel(), BLOCK),)
            _forward[grid](x, value, slope, sigmoid, x.numel(), GAIN=gain, SIZE=BLOCK, **FUSED)
    return value, slope, sigmoid


def gated_backward(g_value: Tensor | None, g_slope: Tensor | None, x: Tensor, sigmoid: Tensor, gain: float) -> Tensor:
    """Gradient by `x` from those by value and slope; None counts as zero."""
    x, sigmoid = x.contiguous(), sigmoid.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        value = x if g_value is None else g_value.contiguous()
        slope = x if g_slope is None else g_slope.contiguous()
        there = {"VALUE": g_value is not None, "SLOPE": g_slope is not None}
        with torch.cuda.device_of(x):
            grid = (triton.cdiv(x.numel(), BLOCK),)
            _backward[grid](value, slope, x, sigmoid, out, x.numel(), GAIN=gain, **there, SIZE=BLOCK, **FUSED)
    return out


OPERATORS = (gated, gated_backward)
