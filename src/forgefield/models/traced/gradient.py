"""Atom energies and their gradient by automatic differentiation: what is traced, and what a trace is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from forgefield.core.errors import ModelError
from forgefield.models.architecture import AtomTerm
from forgefield.models.traced.sizes import Inputs

if TYPE_CHECKING:
    from forgefield.models.traced.architecture import EnergyArchitecture


class _Energies(nn.Module):
    """`atom_energies` as a forward pass, which `functional_call` can give other parameters."""

    def __init__(self, architecture: EnergyArchitecture) -> None:
        super().__init__()
        self.architecture = architecture

    def forward(self, *inputs: object) -> Tensor:
        return self.architecture.atom_energies(*inputs)  # type: ignore[arg-type]


def state_of(architecture: nn.Module) -> dict[str, Tensor]:
    """Parameters, then buffers, by name."""
    return {**dict(architecture.named_parameters()), **dict(architecture.named_buffers())}


def differentiate(
    architecture: EnergyArchitecture, state: Mapping[str, Tensor], inputs: Inputs, *, differentiable: bool
) -> AtomTerm:
    """Return energies and gradients by `torch.autograd.grad`.

    Args:
        architecture: writes the energy.
        state: parameters and buffers to use, by name.
        inputs: the batch.
        differentiable: the result shall be differentiable once more (a double backward).

    Raises:
        ModelError: the energies have the wrong shape.
    """
    vectors = inputs.vectors
    by_name = {f"architecture.{name}": value for name, value in state.items()}
    with torch.enable_grad():
        if not (differentiable and vectors.requires_grad):
            vectors = vectors.detach().requires_grad_()
        arguments = (inputs.graph, vectors, inputs.species, inputs.counts)
        energies = torch.func.functional_call(_Energies(architecture), by_name, arguments)
        if not isinstance(energies, Tensor) or energies.dim() != 1:
            shape = tuple(energies.shape) if isinstance(energies, Tensor) else type(energies).__name__
            where = f"{type(architecture).__name__}.atom_energies"
            raise ModelError(f"returned {shape}", where, "return one energy per atom, (N,)")
        if energies.requires_grad:
            (gradients,) = torch.autograd.grad(
                energies.sum(), vectors, create_graph=differentiable, allow_unused=True, materialize_grads=True
            )
        else:
            gradients = torch.zeros_like(vectors)
    return AtomTerm(energies, gradients) if differentiable else AtomTerm(energies.detach(), gradients.detach())
