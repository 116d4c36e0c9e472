"""ALIGNN: messages between bonds along the angles they make, and between atoms along bonds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forgefield.core.quantities import Quantity
from forgefield.graph.graph import Graph
from forgefield.models.architecture import ArchitectureContext, Axis
from forgefield.models.architectures.alignn.elements import element_features, scaled_features
from forgefield.models.architectures.alignn.geometry import Geometry, Windows
from forgefield.models.architectures.alignn.layers import (
    PUBLISHED_FLOOR,
    SMOOTH_FLOOR,
    GatedSum,
    Gaussians,
    Layer,
    Table,
)
from forgefield.models.architectures.alignn.readout import Readout, check_length
from forgefield.models.architectures.alignn.settings import AlignnSettings
from forgefield.models.traced.architecture import EnergyArchitecture
from forgefield.models.traced.gradient import Predictions

LONGEST = 8.0  # Å: the last Gaussian of distances


class Alignn(EnergyArchitecture):
    """Atoms, bonds and angles with features each; docs/alignn.md has the formulas.

    Args:
        settings: the shape of the model.
        context: elements, heads, targets.

    Source:
        Choudhary, DeCost, Atomistic Line Graph Neural Network, npj Comput. Mater. 7, 185 (2021); force fields:
        Choudhary et al., Digital Discovery 2, 346 (2023).
    """

    uses_features = True
    describes_elements = True
    has_kernels = True
    describes_elements = True

    def __init__(self, settings: AlignnSettings, context: ArchitectureContext) -> None:
        super().__init__()
        self.settings, self.context, self.needs = settings, context, settings.needs
        published = settings.compat == "alignn"
        width, middle = settings.hidden_features, settings.embedding_features
        found = (element_features if published else scaled_features)(settings.atom_features, context.elements)
        check_length("atom_input_features", settings.atom_input_features, found.shape[1])
        self.kinds_per_element = context.n_kinds // len(context.elements)
        self.register_buffer("known", torch.tensor(found, dtype=torch.float64), persistent=False)
        self.atoms = Layer(found.shape[1], width)
        kinds = context.n_kinds if context.kind_axis == "kinds" else 0
        self.kinds = nn.Parameter(torch.randn(kinds, width)) if kinds else None
        self.levels = nn.Parameter(torch.zeros(context.n_embedded, width)) if context.n_embedded else None
        self.windows = Windows(settings)
        self.distances = Gaussians(
            0.0, max(LONGEST, 0.0 if published else settings.cutoff), settings.edge_input_features
        )
        self.bonds = nn.Sequential(Layer(settings.edge_input_features, middle), Layer(middle, width))
        n_angles, n_plain = settings.alignn_layers, settings.gcn_layers
        floor = SMOOTH_FLOOR if not published else PUBLISHED_FLOOR
        lines = n_angles if n_plain else n_angles - 1  # bonds after the last update of atoms are of no use
        self.angle_layers = nn.ModuleList(GatedSum(width, floor, last=k == lines - 1) for k in range(lines))
        self.atom_layers = nn.ModuleList(
            GatedSum(width, floor, last=k == n_angles + n_plain - 1) for k in range(n_angles + n_plain)
        )
        if lines > 0:
            self.cosines = Gaussians(-1.0, 1.0, settings.triplet_input_features)
            self.table = Table(self.cosines)
            self.angles = nn.Sequential(Layer(settings.triplet_input_features, middle), Layer(middle, width))
        self.readout = Readout(settings, context)

    def head_parameters(self) -> list[str]:
        """Names of the parameters that belong to the readouts."""
        return [name for name, _ in self.named_parameters() if name.startswith("readout.")]

    def indexed(self) -> dict[str, tuple[Axis, ...]]:
        """Axes over kinds (own vectors of elements) and heads (readouts, vectors of levels)."""
        axis = self.context.readout_axis
        own = [name for name in self.head_parameters() if not name.startswith("readout.mixing.")]
        found: dict[str, tuple[Axis, ...]] = {name: (axis,) for name in own}
        if self.kinds is not None:
            found["kinds"] = (self.context.kind_axis,)
        return found if self.levels is None else found | {"levels": ("heads",)}

    def extra_quantities(self) -> dict[str, Quantity]:
        """The targets that were asked for."""
        return {quantity.name: quantity for quantity in self.context.targets}

    def predictions(self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor) -> Predictions:
        """Energies, and the targets that are asked for.

        Args:
            graph: the batch.
            vectors: pair vectors, (P, 3), Å.
            species: index of each atom's kind, (N,).
            counts: atoms of each kind, on the CPU.
        """
        near = self.windows(graph, vectors)
        x = self._run(self._embed(graph, species), near)
        energies, targets = self.readout(graph, x)
        return Predictions(energies + near.penalty, targets)

    def _embed(self, graph: Graph, species: Tensor) -> Tensor:
        """Features of the atoms before any neighbour is seen, (N, C)."""
        x = self.atoms(self.known.to(self.atoms.linear.weight.dtype))
        x = x.index_select(0, species // self.kinds_per_element if self.kinds_per_element > 1 else species)
        if self.kinds is not None:
            x = x + self.kinds.index_select(0, species)
        if self.levels is not None:
            x = x + self.levels.index_select(0, graph.head.index_select(0, graph.structure))
        return x

    def _angles(self, cosine: Tensor) -> Tensor:
        """Features of angles and what they bring to the first gates, (A, 2 C), of cosines (A, 1)."""
        return self.angle_layers[0].joined(self.angles(self.cosines(cosine)))

    def _run(self, x: Tensor, near: Geometry) -> Tensor:
        """Features of the atoms, (N, C)."""
        bond = self.bonds(self.distances(near.distance))
        if near.factor is not None:
            bond = bond * near.factor
        bond = torch.cat([bond, bond])
        angle = self.table(self._angles, near.cosine) if self.angle_layers else bond
        for k, layer in enumerate(self.atom_layers):
            x, bond = layer(x, bond, near.edges)
            if k < len(self.angle_layers):  # what an angle is given at first is the same for both its triplets
                place = near.angle if k == 0 else None
                bond, angle = self.angle_layers[k](bond, angle, near.corners, place)
        return x
