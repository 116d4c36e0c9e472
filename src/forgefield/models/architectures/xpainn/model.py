"""XPaiNN: scalars and equivariant features that neighbours exchange."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forgefield.core.quantities import Quantity
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.models.architecture import ArchitectureContext, Axis
from forgefield.models.architectures.xpainn import steps
from forgefield.models.architectures.xpainn.action import Message, Surroundings, Update
from forgefield.models.architectures.xpainn.dense import split
from forgefield.models.architectures.xpainn.embedding import Embedding
from forgefield.models.architectures.xpainn.ewald import Ewald
from forgefield.models.architectures.xpainn.heads import Heads
from forgefield.models.architectures.xpainn.radial import RadialBasis
from forgefield.models.architectures.xpainn.readout import EnergyReadout
from forgefield.models.architectures.xpainn.settings import XpainnSettings
from forgefield.models.blocks.harmonics import SphericalHarmonics
from forgefield.models.traced.architecture import EnergyArchitecture
from forgefield.models.traced.gradient import Predictions


class Xpainn(EnergyArchitecture):
    """Message passing of scalars and equivariant features; docs/xpainn.md has the formulas.

    Args:
        settings: the shape of the model.
        context: elements, heads, targets.

    Source:
        Chen, Xu, XPaiNN@xTB (2024), and XequiNet's description of it.
    """

    has_kernels = True
    uses_features = True

    def __init__(self, settings: XpainnSettings, context: ArchitectureContext) -> None:
        super().__init__()
        self.settings, self.context = settings, context
        self.heads = Heads(settings, context)
        stated = {*["charge"] * settings.charge_embed, *["multiplicity"] * settings.spin_embed, *self.heads.stated}
        self.needs = Needs(cutoff=settings.cutoff, electrons=tuple(sorted(stated)))
        self.embedding = Embedding(settings, context)
        self.basis = RadialBasis(settings.rbf_kernel, settings.num_basis, settings.cutoff, settings.cutoff_fn)
        self.harmonics = SphericalHarmonics(settings.irreps.degrees[-1])
        n, needs_v = settings.action_blocks, self.heads.needs_features
        self.messages = nn.ModuleList(Message(settings, first=k == 0) for k in range(n))
        self.updates = nn.ModuleList(Update(settings, moves=k < n - 1 or needs_v) for k in range(n))
        self.ewald = Ewald(settings) if settings.ewald is not None else None
        self.uses_positions = self.ewald is not None
        sizes = (settings.node_dim, settings.hidden_dim, context.n_readouts)
        self.energy = EnergyReadout(*sizes, settings.activation) if context.energy else None

    def head_parameters(self) -> list[str]:
        """Names of the parameters that belong to the outputs."""
        return [name for name, _ in self.named_parameters() if name.startswith(("energy.", "heads."))]

    def indexed(self) -> dict[str, tuple[Axis, ...]]:
        """Axes over elements or kinds (embedding) and heads (readouts, vectors of levels)."""
        readout = (self.context.readout_axis,)
        found: dict[str, tuple[Axis, ...]] = {n: readout for n, _ in self.named_parameters() if n.startswith("energy.")}
        return found | {f"embedding.{name}": axes for name, axes in self.embedding.indexed().items()}

    def predictions(self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor) -> Predictions:
        """Energies and the targets.

        Args:
            graph: the batch.
            vectors: pair vectors, (P, 3), Å.
            species: index of each atom's kind, (N,).
            counts: atoms of each kind, on the CPU.
        """
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        near = Surroundings(graph, self.basis(r), self.harmonics(vectors / r)[0])
        s, v = self._act(self.embedding(graph, species), near)
        if self.ewald is not None:
            s = self.ewald(s, graph)
        extra = self.heads(graph, s, split(v, self.settings.irreps) if v is not None else [], species)
        if self.energy is None:
            return Predictions(vectors.new_zeros(graph.n_atoms), extra)
        return Predictions(self.energy(s, self.readout_of(graph)), extra)

    def _act(self, s: Tensor, near: Surroundings) -> tuple[Tensor, Tensor | None]:
        """Scalars and equivariant features after all blocks; without features where nobody reads them."""
        v = None
        if not steps.serves(s, self.settings.layer_norm, self.settings.activation):
            for message, update in zip(self.messages, self.updates, strict=True):
                s, v = message(s, v, near)
                s, v = update(s, v)
            return s, v
        h = s
        for message, update in zip(self.messages, self.updates, strict=True):
            h = steps.update(update, steps.message(message, h, near))
        width = self.settings.node_dim
        return h.narrow(1, 0, width), h.narrow(1, width, h.shape[1] - width) if h.shape[1] > width else None

    def extra_quantities(self) -> dict[str, Quantity]:
        """The targets, and what else the settings ask for."""
        return dict(self.heads.quantities)
