"""Levels of theory as one of them plus a correction: two networks of the same architecture in one model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from forgefield.core.quantities import Quantity
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.models.architecture import Architecture, ArchitectureContext, AtomTerm, Axis, Fidelity, Respond

Build = Callable[[ArchitectureContext], Architecture]


class Corrected(Architecture):
    """e = base(structure), plus scale x correction(structure, level) for every level but `fidelity.base`.

    The base network does not know of levels and learns from all labels; what it predicts beside energies stands for all
    levels. The correction is computed where a structure of the batch has one.

    Args:
        build: makes a network for a context.
        context: of the model, with `fidelity.base`.
    """

    share: Tensor

    def __init__(self, build: Build, context: ArchitectureContext) -> None:
        super().__init__()
        self.context = context
        plain = Fidelity(readouts=False)
        self.base = build(dataclasses.replace(context, fidelity=plain))
        own = context.fidelity.model_copy(update={"base": None, "correction_scale": 1.0})
        self.correction = build(dataclasses.replace(context, targets=(), fidelity=own))
        self.has_kernels, self.uses_features = self.base.has_kernels, self.base.uses_features  # type: ignore[misc]
        self.describes_elements = self.base.describes_elements  # type: ignore[misc]
        share = [context.fidelity.correction_scale * (name != context.fidelity.base) for name in context.heads]
        self.some, self.all = any(share), all(share)
        self.register_buffer("share", torch.tensor(share, dtype=torch.float64), persistent=False)

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        """The graph that both networks are fed."""
        return self.base.needs

    @needs.setter
    def needs(self, value: Needs) -> None:
        self.base.needs = self.correction.needs = value

    def forward(
        self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor, respond: Respond | None = None
    ) -> AtomTerm:
        """Energies, gradients and further predictions of the base, and the correction where one is asked for."""
        asked = (respond,) if respond is not None else ()
        found = self.base(graph, vectors, species, counts, *asked)
        if not self._asked(graph):
            return found
        more = self.correction(graph, vectors, species, counts)
        of_structure = self.share.index_select(0, graph.head).to(vectors.dtype)
        of_atom = of_structure.index_select(0, graph.structure)
        of_pair = of_atom.index_select(0, graph.pair_first).unsqueeze(1)
        return found._replace(
            energies=_sum(found.energies, more.energies, of_atom),
            vector_gradients=_sum(found.vector_gradients, more.vector_gradients, of_pair),
            positions=_sum(found.positions, more.positions, of_atom.unsqueeze(1)),
            strain=_sum(found.strain, more.strain, of_structure.reshape(-1, 1, 1)),
        )

    def _asked(self, graph: Graph) -> bool:
        """Whether some structure has a correction; a recorded model computes it always, unless no level has one."""
        if not self.some or self.all or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return self.some
        return bool(self.share.index_select(0, graph.head).any())

    def head_parameters(self) -> list[str]:
        """Names of the parameters that `freeze: head_only` leaves trainable: those of both networks."""
        return [f"{name}.{p}" for name, net in self._networks() for p in net.head_parameters()]

    def indexed(self) -> Mapping[str, tuple[Axis, ...]]:
        """Axes of the parameters of both networks."""
        return {f"{name}.{p}": axes for name, net in self._networks() for p, axes in net.indexed().items()}

    def extra_quantities(self) -> Mapping[str, Quantity]:
        """What the base predicts beside energies, for all levels."""
        return self.base.extra_quantities()

    def physics(self) -> Mapping[str, Mapping[str, object]]:
        """Physics terms that the settings ask for."""
        return self.base.physics()

    def _networks(self) -> tuple[tuple[str, Architecture], ...]:
        return ("base", self.base), ("correction", self.correction)


def _sum(base: Tensor | None, more: Tensor | None, share: Tensor) -> Tensor | None:
    """Return base + share x more; None is zero."""
    if base is None or more is None:
        return base if more is None else share * more
    return base + share * more
