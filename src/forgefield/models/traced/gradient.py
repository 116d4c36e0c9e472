"""Predictions and their gradients by automatic differentiation: what is traced, and what a trace is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from forgefield.core.errors import ModelError
from forgefield.graph.graph import Graph
from forgefield.models.architecture import AtomTerm, Respond
from forgefield.models.traced.sizes import Inputs

if TYPE_CHECKING:
    from forgefield.models.traced.architecture import EnergyArchitecture

CHARGES = "charges"
"""The prediction that physics terms may use."""


class Predictions(NamedTuple):
    """What a traced architecture writes."""

    energies: Tensor  # (N,), eV
    extra: Mapping[str, Tensor]  # (N, ...) in the graph's order, or (S, ...)


class _Predictions(nn.Module):
    """`predictions` as a forward pass, which `functional_call` can give other parameters."""

    def __init__(self, architecture: EnergyArchitecture) -> None:
        super().__init__()
        self.architecture = architecture

    def forward(self, *inputs: object) -> Predictions:
        return self.architecture.predictions(*inputs)  # type: ignore[arg-type]


def state_of(architecture: nn.Module) -> dict[str, Tensor]:
    """Parameters, then buffers, by name."""
    return {**dict(architecture.named_parameters()), **dict(architecture.named_buffers())}


def differentiate(
    architecture: EnergyArchitecture,
    state: Mapping[str, Tensor] | None,
    inputs: Inputs,
    *,
    differentiable: bool,
    respond: Respond | None = None,
) -> AtomTerm:
    """Return predictions and gradients by `torch.autograd.grad`.

    Args:
        architecture: writes the predictions.
        state: parameters and buffers to use, by name; None: its own.
        inputs: the batch.
        differentiable: the result shall be differentiable once more (a double backward).
        respond: gives dE/dq (N,) of the predicted charges (N,).

    Raises:
        ModelError: the energies have the wrong shape, or charges are asked for that are not predicted.
    """
    with torch.enable_grad():
        graph, leaves = _leaves(architecture, inputs, differentiable)
        arguments = (graph, leaves[0], inputs.species, inputs.counts)
        if state is None:
            found = architecture.predictions(*arguments)
        else:
            by_name = {f"architecture.{name}": value for name, value in state.items()}
            found = torch.func.functional_call(_Predictions(architecture), by_name, arguments)
        _check(architecture, found, respond is not None)
        energies, extra = found
        gradients = _gradients(energies, leaves, torch.ones_like(energies), differentiable)
        by_charge = None
        if respond is not None:
            charges = extra[CHARGES]
            with torch.set_grad_enabled(differentiable):
                seed = respond(charges if differentiable else charges.detach())
            (by_charge,) = _gradients(charges, leaves[:1], seed, differentiable)
    if differentiable:
        return AtomTerm(energies, gradients[0], dict(extra), by_charge, *gradients[1:])
    known = {name: value.detach() for name, value in extra.items()}
    by_charge = None if by_charge is None else by_charge.detach()
    first, *others = (gradient.detach() for gradient in gradients)
    return AtomTerm(energies.detach(), first, known, by_charge, *others)


def _leaves(architecture: EnergyArchitecture, inputs: Inputs, differentiable: bool) -> tuple[Graph, list[Tensor]]:
    """Return the graph, and what energies are differentiated by: vectors, and if used positions and a strain.

    The strain is zero; positions and cells of the graph that is returned depend on it.
    """
    graph, vectors = inputs.graph, inputs.vectors
    if not (differentiable and vectors.requires_grad):
        vectors = vectors.detach().requires_grad_()
    if not architecture.uses_positions:
        return graph, [vectors]
    positions = graph.positions.detach().requires_grad_()
    strain = positions.new_zeros((graph.n_structures, 3, 3)).requires_grad_()
    both = 0.5 * (strain + strain.transpose(1, 2))
    moved = positions + (positions.unsqueeze(1) @ both.index_select(0, graph.structure)).squeeze(1)
    cell = graph.cell + graph.cell @ both.to(graph.cell.dtype)
    return graph._replace(positions=moved, cell=cell), [vectors, positions, strain]


def _gradients(values: Tensor, leaves: list[Tensor], seed: Tensor, differentiable: bool) -> list[Tensor]:
    """Gradients of seed x values by the leaves, zero where they do not depend on them."""
    if not values.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    options = {"retain_graph": True, "create_graph": differentiable, "allow_unused": True, "materialize_grads": True}
    return list(torch.autograd.grad(values, leaves, seed, **options))


def _check(architecture: EnergyArchitecture, found: Predictions, responds: bool) -> None:
    energies, name = found.energies, type(architecture).__name__
    if not isinstance(energies, Tensor) or energies.dim() != 1:
        shape = tuple(energies.shape) if isinstance(energies, Tensor) else type(energies).__name__
        raise ModelError(f"returned {shape}", f"{name}.atom_energies", "return one energy per atom, (N,)")
    if responds and CHARGES not in found.extra:
        raise ModelError("predicts no charges", name, "give the charges of the physics terms by element")
    if responds and architecture.uses_positions:
        what = "charges that depend on positions beside the pairs' vectors cannot be used by physics terms"
        raise ModelError(what, name, "give the charges of the physics terms by element")
