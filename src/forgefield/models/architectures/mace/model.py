"""MACE: energies of atoms and their gradient by the pair vectors, both as plain tensor operations."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from forgefield.graph.division import divide_pairs
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.kernels.choice import compiled
from forgefield.models.architecture import Architecture, ArchitectureContext, AtomTerm, Axis
from forgefield.models.architectures.mace.layer import Layer, Piece, Surroundings, join_pairs
from forgefield.models.architectures.mace.readout import GatedReadout, LinearReadout
from forgefield.models.architectures.mace.settings import MaceSettings
from forgefield.models.blocks.edge_product import collect_harmonics, spread_harmonics
from forgefield.models.blocks.harmonics import SphericalHarmonics
from forgefield.models.blocks.radial import RadialBasis

WHOLE_BYTES = 128 * 2**20
"""Radial weights up to this size are held for all pairs at once in inference; their gradients take as much again."""
PIECE_BYTES = 28 * 2**20
"""Beyond, those of so many pairs at a time: below 32 MiB glibc keeps memory for the next piece."""
KEPT_BYTES = 2**30
"""Of all layers and pieces, kept between energies and forces; beyond, radial weights are computed twice."""
PIECE_PAIRS = 4096
"""Pairs of a piece at least: the smaller pieces are, the more atoms have pairs in several."""


class Mace(Architecture):
    """Higher-order equivariant message passing.

    Args:
        settings: the shape of the model.
        context: elements, heads and statistics of the training set.

    Source:
        Batatia et al., MACE (2022), arXiv 2206.07697.
    """

    has_kernels = True

    def __init__(self, settings: MaceSettings, context: ArchitectureContext) -> None:
        super().__init__()
        self.settings, self.context, self.needs = settings, context, Needs(cutoff=settings.r_max)
        n_elements, n_heads, c = context.n_kinds, context.n_readouts, settings.channels
        self.embedding = nn.Parameter(torch.randn(n_elements, c))
        self.element_norm = context.element_norm
        self.levels = nn.Parameter(torch.zeros(context.n_embedded, c)) if context.n_embedded else None
        self.radial = RadialBasis(
            settings.radial_type,
            settings.r_max,
            settings.num_radial_basis,
            settings.num_polynomial_cutoff,
            settings.distance_transform,
        )
        self.harmonics = SphericalHarmonics(settings.max_ell)
        self.layers = nn.ModuleList(
            Layer(settings, k, n_elements, context.avg_num_neighbors, self.element_norm)
            for k in range(settings.num_interactions)
        )
        self.readouts = nn.ModuleList()
        for k in range(settings.num_interactions):
            last = k == settings.num_interactions - 1
            if last and k:
                self.readouts.append(GatedReadout(c, n_heads, settings.mlp_width, context.readout_norm))
            elif last or not settings.use_last_readout_only:
                self.readouts.append(LinearReadout(c, n_heads))

    def head_parameters(self) -> list[str]:
        """Names of the parameters that belong to the readouts."""
        return [name for name, _ in self.named_parameters() if name.startswith("readouts.")]

    def indexed(self) -> dict[str, tuple[Axis, ...]]:
        """Axes over elements (embedding, self-connections, contraction weights) and heads (readouts)."""
        kinds, heads = self.context.kind_axis, self.context.readout_axis
        found: dict[str, tuple[Axis, ...]] = {"embedding": (kinds,), "levels": ("heads",)}
        for name, _ in self.named_parameters():
            if name.endswith(".skip"):
                found[name] = (None, kinds)
            elif ".product.weights." in name and not self.settings.use_agnostic_product:
                found[name] = (kinds,)
            elif name.startswith("readouts."):
                gated = isinstance(self.readouts[int(name.split(".")[1])], GatedReadout)
                found[name] = (heads, heads) if gated and name.endswith(".weight") else (None, heads)
        return found

    def physics(self) -> dict[str, dict[str, object]]:
        """The ZBL repulsion, if `pair_repulsion` is set."""
        return {"zbl": {"envelope": self.settings.num_polynomial_cutoff}} if self.settings.pair_repulsion else {}

    def forward(self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor) -> AtomTerm:
        """Energy of each atom and gradient of their sum by each pair vector.

        Args:
            graph: the batch.
            vectors: pair vectors, (P, 3), Å.
            species: index of each atom's element, (N,).
            counts: atoms of each element, (Z,), on the CPU.

        Returns:
            Atom energies (N,), eV, and gradients (P, 3), eV/Å.
        """
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        unit = vectors / r
        numbers = graph.numbers
        z_first, z_second = numbers.index_select(0, graph.pair_first), numbers.index_select(0, graph.pair_second)
        basis, d_basis = self.radial(r, z_first, z_second)
        values, jacobian = self.harmonics(unit)
        pieces = self._pieces(graph, basis, values)
        keep = len(pieces) == 1 or self._radial_bytes(basis) <= KEPT_BYTES
        near = Surroundings(graph, counts, species, basis, pieces, keep)
        energy, g_basis, g_harmonics = self._run(near)
        g_unit = (g_harmonics.unsqueeze(2) * jacobian).sum(1)
        g_tangent = (g_unit - unit * (g_unit * unit).sum(1, keepdim=True)) / r
        return AtomTerm(energy, g_tangent + unit * (g_basis * d_basis).sum(1, keepdim=True))

    def _radial_bytes(self, basis: Tensor) -> int:
        """What the radial networks of all layers hold for the adjoint: weights, values and slopes inside."""
        of_pair = [
            len(layer.edge.paths) * self.settings.channels + 2 * sum(self.settings.radial_mlp) for layer in self.layers
        ]
        return sum(of_pair) * basis.shape[0] * basis.element_size()

    def _pieces(self, graph: Graph, basis: Tensor, harmonics: Tensor) -> list[Piece]:
        """Divide the pairs so that radial weights stay small; not where gradients are recorded or the code is plain."""
        n_paths, n_pairs = max(len(layer.edge.paths) for layer in self.layers), basis.shape[0]
        per_pair = n_paths * self.settings.channels * basis.element_size()
        degree = self.settings.max_ell
        if torch.is_grad_enabled() or not compiled(basis) or n_pairs * per_pair <= WHOLE_BYTES:
            return [Piece(graph, basis, spread_harmonics(harmonics, degree, graph))]
        found = []
        for pairs, atoms, part in divide_pairs(graph, max(PIECE_PAIRS, PIECE_BYTES // per_pair)):
            some = harmonics.index_select(0, pairs)
            found.append(Piece(part, basis.index_select(0, pairs), spread_harmonics(some, degree, part), pairs, atoms))
        return found

    def _run(self, near: Surroundings) -> tuple[Tensor, Tensor, Tensor]:
        """Layers and readouts forward, then their adjoints backward."""
        head = self.readout_of(near.graph)
        embedding = self.embedding * (1.0 / math.sqrt(self.element_norm))
        features = embedding.index_select(0, near.species)
        if self.levels is not None:
            features = features + self.levels.index_select(0, near.graph.head.index_select(0, near.graph.structure))
        features = features.unsqueeze(1)
        all_saved, g_scalars = [], []
        energy = features.new_zeros(features.shape[0])
        skipped = len(self.layers) - len(self.readouts)
        for k, layer in enumerate(self.layers):
            features, saved = layer(features, near)
            all_saved.append(saved)
            if k >= skipped:
                part, slope = self.readouts[k - skipped](features[:, 0], head)
                energy = energy + part
                g_scalars.append(slope)
            else:
                g_scalars.append(torch.zeros_like(features[:, 0]))
        g_features: Tensor | None = None
        g_bases, g_slots = [], []
        for k in reversed(range(len(self.layers))):
            layer = self.layers[k]
            rows = sum(2 * l + 1 for l in layer.features_out) - 1
            g = nn.functional.pad(g_scalars[k].unsqueeze(1), (0, 0, 0, rows))
            g = g if g_features is None else g + g_features
            g_features, part, parts = layer.adjoint(g, all_saved[k], near)
            g_bases.append(part)
            g_slots.append(parts)
        g_harmonics = []
        for k, piece in enumerate(near.pieces):
            same = zip(*(of_layer[k] for of_layer in g_slots), strict=True)
            g_harmonics.append(collect_harmonics([functools.reduce(torch.add, parts) for parts in same], piece.graph))
        return energy, functools.reduce(torch.add, g_bases), join_pairs(g_harmonics, near.pieces)
