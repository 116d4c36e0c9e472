"""The edge product on CUDA: sums over neighbours by receiver, without atomics, so that results repeat exactly."""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from forgefield.kernels.paths import coupling_paths
from forgefield.kernels.triton.edge_source import MOST_ROWS, Form, Group, gradient_kernel, groups, value_kernel
from forgefield.kernels.triton.launch import ONE_WARP, block

Given = tuple[bool, bool, bool]


@triton.jit
def _senders(g_f, pair, sign, out, C, K, P, ROWS: tl.constexpr, SIZE: tl.constexpr, SLOTS: tl.constexpr):
    """Sum over the edges that an atom sends: each is the reverse of one that it receives, of the same pair."""
    n = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    c = tl.program_id(2) * SIZE + tl.arange(0, SIZE)
    inside = c < C
    slots = tl.arange(0, SLOTS)
    filled = tl.load(sign + n * K + slots, mask=slots < K, other=0.0) != 0.0
    total = tl.zeros((SIZE,), dtype=g_f.dtype.element_ty)
    for k in range(tl.sum(filled.to(tl.int32), 0)):
        forward = (tl.load(sign + n * K + k) > 0.0).to(tl.int64)
        edge = forward * P + tl.load(pair + n * K + k)
        total += tl.load(g_f + (edge * ROWS + row) * C + c, mask=inside, other=0.0)
    tl.store(out + (n * ROWS + row) * C + c, total, mask=inside)


class _Call:
    """Factors of one call, packed, and the sizes of its launches."""

    def __init__(
        self, factors: tuple[Tensor, Tensor, Tensor], table: tuple[Tensor, ...], degrees: list[int], max_degree: int
    ) -> None:
        self.weights, self.features, self.harmonics = (x.contiguous() for x in factors)
        self.sender, self.pair, self.sign = (x.contiguous() for x in table)
        double = self.weights.dtype == torch.float64
        self.form = Form(tuple(degrees), max_degree, MOST_ROWS // 2 if double else MOST_ROWS)
        self.groups, self.channels = groups(self.form), self.weights.shape[2]
        self.n, self.slots = self.sender.shape
        self.item = 2 if double else 1

    @property
    def empty(self) -> bool:
        return self.n == 0 or self.channels == 0

    def size(self, group: Group) -> int:
        """Channels of a program, one warp: as many as leave its sums in registers."""
        most = next(v for v, rows in ((4, 24), (2, 48), (1, 10**6)) if group.n_rows * self.item <= rows) * 32
        return block(self.channels, most)

    def messages(self) -> list[Tensor]:
        """New tensors for the messages."""
        paths = coupling_paths(self.form.degrees, self.form.max_degree)
        count = [sum(p.message == l for p in paths) for l in range(self.form.max_degree + 1)]
        return [self.features.new_empty((self.n, 2 * l + 1, k * self.channels)) for l, k in enumerate(count)]

    def launch(self, kernel: Any, group: Group, v: list[Tensor], messages: list[Tensor], *more: Tensor | int) -> None:
        """Run a kernel of one group for all receivers."""
        size = self.size(group)
        factors = (self.weights, self.features, self.harmonics, *v, self.sender, self.pair, self.sign)
        grid = (self.n, triton.cdiv(self.channels, size))
        slots = triton.next_power_of_2(max(self.slots, 1))
        with torch.cuda.device_of(self.weights):
            kernel[grid](*factors, *messages, *more, self.channels, self.slots, SIZE=size, SLOTS=slots, **ONE_WARP)

    def values(self, directions: tuple[Tensor | None, ...] | None) -> list[Tensor]:
        """Messages, or their derivative along directions."""
        out = self.messages()
        there, v = self._given(directions)
        for index, group in enumerate(() if self.empty else self.groups):
            self.launch(value_kernel(self.form, index, there), group, v, out)
        return out

    def gradients(
        self, g: list[Tensor], directions: tuple[Tensor | None, ...] | None, need_features: bool, need_harmonics: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients by weights, features and harmonics, or their derivative along directions."""
        w, h, y = self.weights, self.features, self.harmonics
        g_w, pairs = torch.empty_like(w), w.shape[0]
        g_f = w.new_empty((2, pairs, *h.shape[1:]) if need_features else (0,))
        if {p.feature for group in self.groups for p in group.paths} != set(self.form.degrees):
            g_f.zero_()  # a degree without paths
        blocks = [triton.cdiv(max(self.channels, 1), self.size(group)) for group in self.groups]
        parts = y.new_zeros((2 * sum(blocks) if need_harmonics else 0, *y.shape))
        there, v = self._given(directions)
        g = [x.contiguous() for x in g]
        wanted, at = (need_features, need_harmonics), 0
        for backwards in (False, True):
            for index, group in enumerate(() if self.empty else self.groups):
                kernel = gradient_kernel(self.form, index, backwards, there, wanted)
                self.launch(kernel, group, v, g, g_w, g_f, parts[at:], pairs)
                at += blocks[index] if need_harmonics else 0
        g_y = parts.sum(0) if need_harmonics else y.new_empty((0, y.shape[1]))
        return g_w, self.by_sender(g_f) if need_features else g_f, g_y

    def by_sender(self, g_f: Tensor) -> Tensor:
        """Sum the edges' gradients by features (2, P, rows, C) at their senders."""
        out = torch.empty_like(self.features)
        if not self.empty:
            rows, size = out.shape[1], block(self.channels, 128)
            grid = (self.n, rows, triton.cdiv(self.channels, size))
            slots = triton.next_power_of_2(max(self.slots, 1))
            sizes = (self.channels, self.slots, g_f.shape[1])
            with torch.cuda.device_of(out):
                _senders[grid](g_f, self.pair, self.sign, out, *sizes, ROWS=rows, SIZE=size, SLOTS=slots, **ONE_WARP)
        return out

    def _given(self, directions: tuple[Tensor | None, ...] | None) -> tuple[Given | None, list[Tensor]]:
        """Which directions there are, and one tensor for each (any, where there is none)."""
        if directions is None:
            return None, [self.weights] * 3
        w, h, y = (x is not None for x in directions)
        return (w, h, y), [self.weights if x is None else x.contiguous() for x in directions]


def edge_product(
    weights, features, harmonics, sender, pair, sign, visit, plan, values, degrees, max_degree
) -> list[Tensor]:
    """Messages of each degree, (N, 2l+1, paths C); see `models.blocks.edge_product.EdgeProduct`."""
    return _Call((weights, features, harmonics), (sender, pair, sign), degrees, max_degree).values(None)


def edge_product_adjoint(
    g,
    weights,
    features,
    harmonics,
    sender,
    pair,
    sign,
    visit,
    plan,
    values,
    degrees,
    max_degree,
    need_features,
    need_harmonics,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by weights, features and harmonics; those not needed are empty."""
    call = _Call((weights, features, harmonics), (sender, pair, sign), degrees, max_degree)
    return call.gradients(g, None, need_features, need_harmonics)


def edge_product_second(
    g,
    weights,
    features,
    harmonics,
    v_weights,
    v_features,
    v_harmonics,
    sender,
    pair,
    sign,
    visit,
    plan,
    values,
    degrees,
    max_degree,
    need_features,
    need_harmonics,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Gradients, by g and the three factors, of the adjoint's product with the directions (None: zero)."""
    call = _Call((weights, features, harmonics), (sender, pair, sign), degrees, max_degree)
    directions = (v_weights, v_features, v_harmonics)
    return call.values(directions), *call.gradients(g, directions, need_features, need_harmonics)


OPERATORS = (edge_product, edge_product_adjoint, edge_product_second)
