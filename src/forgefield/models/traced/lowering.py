"""Passes over a traced graph."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
NOT_IN_TORCHSCRIPT = [
    aten.native_layer_norm_backward,
    aten.native_group_norm_backward,
    aten.native_batch_norm_backward,
    aten.slice_backward,
    aten.select_backward,
    aten.embedding_dense_backward,
    aten.diagonal_backward,
    aten.unfold_backward,
]
"""Operations that `torch.jit.trace` cannot record when called by name; replaced by simpler ones in exported graphs."""
SIZE_OF = {aten.sym_size.int: "size", aten.sym_numel.default: "numel", aten.sym_stride.int: "stride"}


def drop_detach(module: fx.GraphModule) -> None:
    """Take out the `detach` of tensors that autograd saved: in the traced graph they are ordinary values.

    A `detach` that the architecture means is lost with them; comparing parameter gradients finds that out.
    """
    for node in list(module.graph.nodes):
        if node.target is aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)


def lower_sizes(module: fx.GraphModule) -> None:
    """Call operations on sizes by their Python binding, which `torch.jit.trace` can follow.

    Raises:
        NotImplementedError: an operation takes a size and has no binding, or is not one of PyTorch's own.
    """
    sizes: set[fx.Node] = set()
    for node in module.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace != "aten":
            raise NotImplementedError(f"{node.target} is not an operation of PyTorch")
        if node.target in SIZE_OF:
            node.op, node.target = "call_method", SIZE_OF[node.target]
            sizes.add(node)
        elif node.op == "call_function" and not isinstance(node.target, torch._ops.OpOverload):
            if node.target is not operator.getitem:
                sizes.add(node)  # arithmetic of sizes
        elif node.op == "call_function" and sizes.intersection(node.all_input_nodes):
            node.target = _binding(node.target)


def call_respond(module: fx.GraphModule, charges: int) -> None:
    """Let the last input be the function that gives dE/dq, called where the charges are final, not its value.

    Nothing before the first use of its value depends on it, so this is the one place between forward and adjoint.

    Args:
        module: takes dE/dq (N,) as its last input.
        charges: place of the charges among the outputs.
    """
    nodes = list(module.graph.nodes)
    seed = [node for node in nodes if node.op == "placeholder"][-1]
    users = [node for node in nodes if node in seed.users]
    if not users:
        return
    value = nodes[-1].args[0][charges]
    with module.graph.inserting_before(users[0]):
        call = module.graph.call_function(respond_to, (seed, value))
    seed.replace_all_uses_with(call, delete_user_cb=lambda node: node is not call)


def respond_to(respond: Callable[[Tensor], Tensor], charges: Tensor) -> Tensor:
    """Ask for dE/dq (N,) of charges (N,)."""
    return respond(charges)


def _binding(operation: torch._ops.OpOverload) -> Callable[..., Any]:
    name = operation._schema.name.split("::")[1]
    if name == "_unsafe_view":
        return torch.reshape
    if name == "slice":
        return _slice
    for place in (torch, Tensor, torch._C._nn):
        if hasattr(place, name):
            return getattr(place, name)
    raise NotImplementedError(f"{operation} takes a size and cannot be exported to TorchScript")


def _slice(x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    return x[(slice(None),) * dim + (slice(start, end, step),)]
