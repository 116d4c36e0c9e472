"""What an atom begins with: a vector of its element."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forgefield.graph.graph import Graph
from forgefield.models.architecture import ArchitectureContext, Axis
from forgefield.models.architectures.xpainn.dense import Dense
from forgefield.models.architectures.xpainn.electrons import ElectronEmbedding
from forgefield.models.architectures.xpainn.orbitals import overlaps
from forgefield.models.architectures.xpainn.settings import XpainnSettings


class Embedding(nn.Module):
    """Scalars of each atom: of its element, its level of theory, further inputs and the electrons of its structure.

    With the overlaps of orbitals, elements differ by what is known of them and one linear map is learned; levels that
    have elements of their own add a learned vector for each.

    Args:
        settings: the shape of the model.
        context: elements and heads.
    """

    overlaps: Tensor

    def __init__(self, settings: XpainnSettings, context: ArchitectureContext) -> None:
        super().__init__()
        width, known = settings.node_dim, settings.embed_basis != "one-hot"
        self.kinds_per_element, self.kind_axis = context.n_kinds // len(context.elements), context.kind_axis
        self.map = None
        if known:
            table = torch.as_tensor(overlaps(settings.embed_basis, settings.aux_basis, context.elements))
            self.register_buffer("overlaps", table, persistent=False)
            self.map = Dense(table.shape[1], width)
        own = not known or context.fidelity.embedding == "elements"
        self.kinds = nn.Parameter(torch.randn(context.n_kinds, width) * (0.1 if known else 1.0)) if own else None
        self.levels = nn.Parameter(torch.zeros(context.n_embedded, width)) if context.n_embedded else None
        self.features = Dense(context.n_features, width) if context.n_features else None
        names = ["charge"] * settings.charge_embed + ["spin"] * settings.spin_embed
        self.electrons = nn.ModuleList(ElectronEmbedding(width, name, settings.activation) for name in names)

    def indexed(self) -> dict[str, tuple[Axis, ...]]:
        """What the axes of its parameters run over."""
        found: dict[str, tuple[Axis, ...]] = {}
        if self.kinds is not None:
            found["kinds"] = (self.kind_axis,)
        if self.levels is not None:
            found["levels"] = ("heads",)
        return found

    def forward(self, graph: Graph, species: Tensor) -> Tensor:
        """Features (N, C) of atoms of kinds (N,)."""
        if self.map is None:
            s = self.kinds.index_select(0, species)  # type: ignore[union-attr]
        else:
            element = species if self.kinds_per_element == 1 else species // self.kinds_per_element
            s = self.map(self.overlaps).index_select(0, element)
            if self.kinds is not None:
                s = s + self.kinds.index_select(0, species)
        if self.levels is not None:
            s = s + self.levels.index_select(0, graph.head.index_select(0, graph.structure))
        if self.features is not None:
            s = s + self.features(graph.features).index_select(0, graph.structure)
        for embed in self.electrons:
            s = embed(s, graph)
        return s
