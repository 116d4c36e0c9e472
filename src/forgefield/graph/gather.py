"""Moves between pairs, edge slots and atoms in which the backward pass is a gather too, never a scatter."""

from __future__ import annotations

import torch
from torch import Tensor

from forgefield.graph.graph import Graph


class _PairsToSlots(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, pair, forward, backward):  # noqa: ANN001, ANN205
        ctx.save_for_backward(forward, backward)
        return values.index_select(0, pair)

    @staticmethod
    def backward(ctx, g):  # noqa: ANN001, ANN205
        forward, backward = ctx.saved_tensors
        return g.index_select(0, forward) + g.index_select(0, backward), None, None, None


class _SlotsToPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, pair, forward, backward, filled):  # noqa: ANN001, ANN205
        ctx.save_for_backward(pair, filled)
        return values.index_select(0, forward) + values.index_select(0, backward)

    @staticmethod
    def backward(ctx, g):  # noqa: ANN001, ANN205
        pair, filled = ctx.saved_tensors
        return g.index_select(0, pair) * filled, None, None, None, None


class _SendersToSlots(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, sender, reverse, filled):  # noqa: ANN001, ANN205
        ctx.save_for_backward(reverse, filled)
        ctx.shape = (values.shape[0], sender.shape[0] // max(values.shape[0], 1))
        return values.index_select(0, sender)

    @staticmethod
    def backward(ctx, g):  # noqa: ANN001, ANN205
        reverse, filled = ctx.saved_tensors
        g = g.index_select(0, reverse) * filled
        return g.unflatten(0, ctx.shape).sum(1), None, None, None


class _SlotsToSenders(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, sender, reverse, shape):  # noqa: ANN001, ANN205
        ctx.save_for_backward(sender)
        return values.index_select(0, reverse).unflatten(0, shape).sum(1)

    @staticmethod
    def backward(ctx, g):  # noqa: ANN001, ANN205
        (sender,) = ctx.saved_tensors
        return g.index_select(0, sender), None, None, None


def filled_slots(graph: Graph, n_dimensions: int) -> Tensor:
    """1 for the slots of the table that hold an edge, 0 for padding: (N K, 1, ...) with `n_dimensions` axes."""
    return graph.table_sign.abs().reshape(-1, *([1] * (n_dimensions - 1)))


def pairs_to_slots(values: Tensor, graph: Graph) -> Tensor:
    """Copy rows of pairs (P, ...) to both directed edges (N K, ...).

    Padding repeats pair 0 and must be masked by whoever uses it before anything is summed; the gradient that
    arrives at padding is dropped.
    """
    pair = graph.table_pair.reshape(-1)
    if torch.jit.is_tracing():
        return values.index_select(0, pair)
    return _PairsToSlots.apply(values, pair, graph.slot_forward, graph.slot_backward)


def slots_to_pairs(values: Tensor, graph: Graph) -> Tensor:
    """Sum the two directed edges (N K, ...) of each pair: (P, ...)."""
    if torch.jit.is_tracing():
        return values.index_select(0, graph.slot_forward) + values.index_select(0, graph.slot_backward)
    pair, filled = graph.table_pair.reshape(-1), filled_slots(graph, values.dim())
    return _SlotsToPairs.apply(values, pair, graph.slot_forward, graph.slot_backward, filled)


def senders_to_slots(values: Tensor, graph: Graph) -> Tensor:
    """Copy rows of atoms (N, ...) to the edges they send along (N K, ...)."""
    sender = graph.table_sender.reshape(-1)
    if torch.jit.is_tracing():
        return values.index_select(0, sender)
    return _SendersToSlots.apply(values, sender, graph.reverse, filled_slots(graph, values.dim()))


def slots_to_senders(values: Tensor, graph: Graph) -> Tensor:
    """Sum edges (N K, ...) at the atoms that sent them: (N, ...). Padding must hold zeros."""
    shape = graph.table_sender.shape
    if torch.jit.is_tracing():
        return values.index_select(0, graph.reverse).unflatten(0, shape).sum(1)
    sender = graph.table_sender.reshape(-1)
    return _SlotsToSenders.apply(values, sender, graph.reverse, shape)
