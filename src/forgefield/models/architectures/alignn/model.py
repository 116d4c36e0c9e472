"""ALIGNN: messages between bonds along the angles they make, and between atoms along bonds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from forgefield.core.errors import ModelError
from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import ArchitectureContext, Axis
from forgefield.models.architectures.alignn.elements import element_features, scaled_features
from forgefield.models.architectures.alignn.geometry import Geometry, Windows
from forgefield.models.architectures.alignn.layers import PUBLISHED_FLOOR, SMOOTH_FLOOR, Gaussians, GatedSum, Layer
from forgefield.models.architectures.alignn.readout import Heads
from forgefield.models.architectures.alignn.settings import AlignnSettings
from forgefield.models.traced.architecture import EnergyArchitecture
from forgefield.models.traced.gradient import Predictions

LONGEST = 8.0  # Å: the last Gaussian of distances
START = math.log(0.7)  # of the readout's constant before an exponential


class Alignn(EnergyArchitecture):
    """Atoms, bonds and angles with features each; docs/alignn.md has the formulas.

    Args:
        settings: the shape of the model.
        context: elements, heads, targets.

    Source:
        Choudhary, DeCost, Atomistic Line Graph Neural Network, npj Comput. Mater. 7, 185 (2021); force fields: Choudhary
        et al., Digital Discovery 2, 346 (2023).
    """

    def __init__(self, settings: AlignnSettings, context: ArchitectureContext) -> None:
        super().__init__()
        self.settings, self.context, self.needs = settings, context, settings.needs
        published = settings.compat == "alignn"
        width, middle = settings.hidden_features, settings.embedding_features
        found = (element_features if published else scaled_features)(settings.atom_features, context.elements)
        check_width("atom_input_features", settings.atom_input_features, found.shape[1])
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
            self.angles = nn.Sequential(Layer(settings.triplet_input_features, middle), Layer(middle, width))
        self.energy = Heads(width, 1, context.n_readouts)
        if settings.link == "log":
            nn.init.constant_(self.energy.bias, START)

    def head_parameters(self) -> list[str]:
        """Names of the parameters that belong to the readouts."""
        return [name for name, _ in self.named_parameters() if name.startswith("energy.")]

    def indexed(self) -> dict[str, tuple[Axis, ...]]:
        """Axes over kinds (own vectors of elements) and heads (readouts, vectors of levels)."""
        axis = self.context.readout_axis
        found: dict[str, tuple[Axis, ...]] = {name: (axis,) for name in self.head_parameters()}
        if self.kinds is not None:
            found["kinds"] = (self.context.kind_axis,)
        return found if self.levels is None else found | {"levels": ("heads",)}

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
        return Predictions(self._energies(graph, x) + near.penalty, {})

    def _embed(self, graph: Graph, species: Tensor) -> Tensor:
        """Features of the atoms before any neighbour is seen, (N, C)."""
        x = self.atoms(self.known.to(self.energy.weight.dtype))
        x = x.index_select(0, species // self.kinds_per_element if self.kinds_per_element > 1 else species)
        if self.kinds is not None:
            x = x + self.kinds.index_select(0, species)
        if self.levels is not None:
            x = x + self.levels.index_select(0, graph.head.index_select(0, graph.structure))
        return x

    def _run(self, x: Tensor, near: Geometry) -> Tensor:
        """Features of the atoms, (N, C)."""
        bond = self.bonds(self.distances(near.distance))
        if near.factor is not None:
            bond = bond * near.factor
        bond = torch.cat([bond, bond])
        angle = self.angles(self.cosines(near.cosine)) if self.angle_layers else bond
        for k, layer in enumerate(self.atom_layers):
            x, bond = layer(x, bond, near.edges)
            if k < len(self.angle_layers):
                bond, angle = self.angle_layers[k](bond, angle, near.corners)
        return x

    def _energies(self, graph: Graph, x: Tensor) -> Tensor:
        """Energy of each atom, (N,)."""
        energies = self.energy(x, self.readout_of(graph)).squeeze(1)
        if self.settings.energy_mult_natoms:
            return energies
        sizes = sum_by(torch.ones_like(energies), graph.structure, graph.n_structures)
        return energies / sizes.index_select(0, graph.structure)


def check_width(key: str, given: int | None, wanted: int) -> None:
    """Look whether a length that was given is the right one.

    Raises:
        ModelError: it is not.
    """
    if given is not None and given != wanted:
        raise ModelError(
            f"{given} is not the number that there are: {wanted}", f"model.{key}", f"set {wanted}, or leave it out"
        )
