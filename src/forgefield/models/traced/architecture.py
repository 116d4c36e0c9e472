"""Base of architectures that write the energy, and further predictions, only; the gradients come from here."""

from __future__ import annotations

import torch
from torch import Tensor

from forgefield.graph.graph import Graph
from forgefield.models.architecture import Architecture, AtomTerm, Respond
from forgefield.models.traced.gradient import Predictions
from forgefield.models.traced.sizes import Inputs
from forgefield.models.traced.traces import Traces


class EnergyArchitecture(Architecture):
    """Base of architectures that define `atom_energies`; forces, stress and training need nothing more.

    `atom_energies` and its gradient by the pair vectors are traced once into plain tensor operations with symbolic
    sizes. Each trace is compared with automatic differentiation the first time it is used (and again where sizes first
    are 0 or 1); if they differ, or tracing fails, automatic differentiation is used, with a `TracingWarning`.

    What a subclass must keep to:

    * tensor operations only, Python may decide by shapes and settings but not by values (`if x.max() > 1`);
    * positions enter by `vectors` alone; with `uses_positions` also by `graph.positions` and `graph.cell`;
    * buffers are constants (no running statistics);
    * random numbers (dropout) are allowed: energy and gradient share them.
    """

    uses_positions: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.traces = Traces()

    def atom_energies(self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor) -> Tensor:
        """Return the energy of each atom.

        Args:
            graph: the batch.
            vectors: pair vectors, (P, 3), Å.
            species: index of each atom's element, (N,).
            counts: atoms of each element, (Z,), on the CPU; do not turn it into Python numbers.

        Returns:
            (N,), eV.
        """
        raise NotImplementedError

    def predictions(self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor) -> Predictions:
        """Return energies and what else is predicted; to be overridden where `extra_quantities` names something.

        Takes the arguments of `atom_energies`, which it calls unless overridden.
        """
        return Predictions(self.atom_energies(graph, vectors, species, counts), {})

    def forward(
        self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor, respond: Respond | None = None
    ) -> AtomTerm:
        """Energies, their gradient by the pair vectors, and further predictions.

        Args:
            graph: the batch.
            vectors: pair vectors, (P, 3), Å.
            species: index of each atom's element, (N,).
            counts: atoms of each element, (Z,), on the CPU.
            respond: gives dE/dq (N,), eV/e, of what uses the predicted charges (N,); called once.

        Returns:
            Atom energies (N,), eV, and gradients (P, 3), eV/Å; with `respond` also the gradients (P, 3) that the
            charges carry.

        Raises:
            ModelError: `atom_energies` changes buffers or returns another shape; or a graph is to be exported that
                cannot be traced; or charges are asked for and not predicted.
        """
        if not self.context.energy:
            found = self.predictions(graph, vectors, species, counts)
            return AtomTerm(found.energies, torch.zeros_like(vectors), dict(found.extra))
        return self.traces.term(self, Inputs(graph, vectors, species, counts), respond)
