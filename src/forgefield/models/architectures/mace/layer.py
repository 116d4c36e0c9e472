"""One message passing layer of MACE: interaction, symmetric contraction, self-connection."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from forgefield.graph.gather import filled_slots, pairs_to_slots, slots_to_pairs
from forgefield.graph.graph import Graph
from forgefield.models.architectures.mace.settings import MaceSettings
from forgefield.models.blocks.contraction import Contraction
from forgefield.models.blocks.edge_product import EdgeProduct
from forgefield.models.blocks.linear import (
    in_kernels,
    join_degrees,
    join_degrees_adjoint,
    map_degrees,
    map_elements,
)
from forgefield.models.blocks.network import Network


class Piece(NamedTuple):
    """Some of a batch's pairs, with a table of their edges alone."""

    graph: Graph
    basis: Tensor  # (P, B)
    harmonics: list[Tensor]  # from `spread_harmonics`
    pairs: Tensor | None = None  # (P,), which ones they are; None: all
    atoms: Tensor | None = None  # (N,), those joined by them; None: all


class Surroundings(NamedTuple):
    """What all layers share about a batch."""

    graph: Graph
    counts: Tensor  # (Z,), atoms per element, CPU
    species: Tensor  # (N,)
    basis: Tensor  # (P, B)
    pieces: list[Piece]  # of the pairs; several only where no gradients are recorded
    keep: bool  # radial weights are kept for the adjoint, not computed again


EdgeFactors = tuple[tuple[Tensor, ...], list[Tensor]]  # what the adjoints of edge product and radial network need


class Saved(NamedTuple):
    """What the adjoint of a layer needs."""

    up: Tensor
    edges: list[EdgeFactors]  # of each piece; empty: computed again
    slopes: list[Tensor]
    density: tuple[Tensor, ...]


def join_pairs(parts: list[Tensor], pieces: list[Piece]) -> Tensor:
    """Put rows of the pieces' pairs into the order of the batch, (P, ...)."""
    if pieces[0].pairs is None:
        return parts[0]
    whole = parts[0].new_empty((sum(map(len, parts)), *parts[0].shape[1:]))
    for part, piece in zip(parts, pieces, strict=True):
        whole.index_copy_(0, piece.pairs, part)  # type: ignore[arg-type]
    return whole


def normal(*shape: int) -> nn.Parameter:
    """A unit normal weight; it is scaled when used."""
    return nn.Parameter(torch.randn(*shape))


class Layer(nn.Module):
    """Interaction and product basis.

    Args:
        settings: the model's.
        index: number of the layer, 0 first.
        n_elements: Z.
        avg_num_neighbors: normalisation of the sums (not used by the density kinds).
        element_norm: normalisation of the self-connection; None: Z.

    Source:
        Batatia et al., MACE (2022), equations 8 to 11.
    """

    def __init__(
        self,
        settings: MaceSettings,
        index: int,
        n_elements: int,
        avg_num_neighbors: float,
        element_norm: int | None = None,
    ) -> None:
        super().__init__()
        c, self.kind = settings.channels, settings.interaction if index else settings.interaction_first
        self.first, self.channels, self.element_norm = index == 0, c, element_norm or n_elements
        self.features_in = settings.hidden_degrees if index else [0]
        last = index == settings.num_interactions - 1
        self.features_out = [0] if last else settings.hidden_degrees
        self.average = avg_num_neighbors
        self.register_buffer("neighbors", torch.tensor(avg_num_neighbors, dtype=torch.float64), persistent=False)
        self.edge = EdgeProduct(self.features_in, settings.max_ell)
        basis = settings.num_radial_basis
        self.radial = Network([basis, *settings.radial_mlp, c * len(self.edge.paths)])
        self.up = normal(len(self.features_in), c, c)
        degrees = range(settings.max_ell + 1)
        self.linear = nn.ParameterList([normal(self.edge.n_paths(l) * c, c) for l in degrees])
        self.has_residual = self.kind.endswith("residual")
        skipped = [l for l in self.features_out if l in self.features_in] if self.has_residual else list(degrees)
        self.skip_degrees = skipped
        self.skip = normal(len(skipped), n_elements, c, c)
        self.density = Network([basis, 1]) if self.kind.startswith("density") else None
        n_sets = 1 if settings.use_agnostic_product else n_elements
        order = settings.correlations[index]
        self.product = Contraction(
            settings.max_ell, self.features_out, order, c, n_sets, reduced=settings.use_reduced_cg
        )
        self.mix = normal(len(self.features_out), c, c)

    # -- linear maps by degree -------------------------------------------------------------------------------

    def _by_degree(self, x: Tensor, degrees: list[int], weights: Tensor, transpose: bool = False) -> Tensor:
        """Multiply each degree's rows (N, 2l+1, C) by its matrix, scaled by 1/sqrt(C)."""
        return map_degrees(x, weights, degrees, 1.0 / math.sqrt(self.channels), transpose)

    def _skip(self, x: Tensor, given: list[int], wanted: list[int], counts: Tensor, transpose: bool = False) -> Tensor:
        """Element-dependent map of the degrees it knows; zeros for the other wanted degrees."""
        scale = 1.0 / math.sqrt(self.channels * self.element_norm)
        return map_elements(x, self.skip, given, wanted, counts, scale, transpose)

    # -- forward ---------------------------------------------------------------------------------------------

    def forward(self, features: Tensor, near: Surroundings) -> tuple[Tensor, Saved]:
        """New features of each atom.

        Args:
            features: (N, sum of 2l+1, C).
            near: the batch.

        Returns:
            features: (N, sum of 2l+1 of the output, C).
            saved: for `adjoint`.
        """
        up = self._by_degree(features, self.features_in, self.up)
        messages, edges = self._messages(up, near)
        summed, saved_density = self._norm(near, messages)
        if not self.has_residual:
            summed = self._skip(summed, self.skip_degrees, self.skip_degrees, near.counts)
        values, slopes = self.product(summed, near.species, near.counts)
        out = self._by_degree(values, self.features_out, self.mix)
        if self.has_residual:
            out = out + self._skip(features, self.features_in, self.features_out, near.counts)
        return out, Saved(up, edges, slopes, saved_density)

    def _messages(self, up: Tensor, near: Surroundings) -> tuple[list[Tensor], list[EdgeFactors]]:
        """Messages per degree, and what the adjoint needs of each piece."""
        if near.pieces[0].atoms is None:
            factors = self._edge_factors(up, near.pieces[0])
            messages, edge = self.edge(*factors[0], near.pieces[0].harmonics, near.pieces[0].graph)
            return messages, [(edge, factors[1])]
        n, c = up.shape[0], self.channels
        total = [up.new_zeros((n, 2 * l + 1, self.edge.n_paths(l) * c)) for l in range(self.edge.max_degree + 1)]
        kept: list[EdgeFactors] = []
        for piece in near.pieces:
            factors = self._edge_factors(up, piece)
            messages, edge = self.edge(*factors[0], piece.harmonics, piece.graph)
            for whole, part in zip(total, messages, strict=True):
                whole.index_add_(0, piece.atoms, part)  # type: ignore[arg-type]
            if near.keep:
                kept.append((edge, factors[1]))
        return total, kept

    def _edge_factors(self, up: Tensor, piece: Piece) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
        """Radial weights and features of a piece, and what the radial network's adjoint needs."""
        values, radial = self.radial(piece.basis)
        features = up if piece.atoms is None else up.index_select(0, piece.atoms)
        return (values.unflatten(1, (len(self.edge.paths), self.channels)), features), radial

    def _messages_adjoint(
        self, g: list[Tensor], saved: Saved, pieces: list[Piece]
    ) -> tuple[Tensor, Tensor | None, list[list[Tensor]]]:
        """Gradients by the basis (P, B), the senders' features (None in the first layer) and each piece's harmonics."""
        bases, harmonics = [], []
        g_up: Tensor | None = None
        for k, piece in enumerate(pieces):
            edge, radial = saved.edges[k] if saved.edges else self._edge_factors(saved.up, piece)
            mine = g if piece.atoms is None else [x.index_select(0, piece.atoms) for x in g]
            found = self.edge.adjoint(mine, edge, piece.harmonics, piece.graph, not self.first)
            bases.append(self.radial.adjoint(found[0].flatten(1), radial))
            harmonics.append(found[2])
            if piece.atoms is None or found[1] is None:
                g_up = found[1]
            else:
                g_up = torch.zeros_like(saved.up) if g_up is None else g_up
                g_up.index_add_(0, piece.atoms, found[1])
        return join_pairs(bases, pieces), g_up, harmonics

    def _norm(self, near: Surroundings, messages: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mixed messages over the number of neighbours: the average, or learned per atom."""
        if self.density is None:
            if in_kernels(messages[0]):
                return join_degrees(messages, list(self.linear), 1.0 / self.average), ()
            return join_degrees(messages, list(self.linear)) * (1.0 / self.neighbors.to(messages[0].dtype)), ()
        summed = join_degrees(messages, list(self.linear))
        raw, _ = self.density(near.basis)
        count = torch.tanh(raw * raw)
        slots = pairs_to_slots(count, near.graph) * filled_slots(near.graph, 2)
        norm = 1.0 / (slots.unflatten(0, near.graph.table_sign.shape).sum(1).unsqueeze(2) + 1.0)
        return summed * norm, (raw, count, norm, summed)

    # -- adjoint ---------------------------------------------------------------------------------------------

    def adjoint(self, g: Tensor, saved: Saved, near: Surroundings) -> tuple[Tensor | None, Tensor, list[list[Tensor]]]:
        """Gradients by the input features (None in the first layer), the basis (P, B) and each piece's harmonics."""
        g_values = self._by_degree(g, self.features_out, self.mix, transpose=True)
        g_sum = self.product.adjoint(g_values, saved.slopes)
        if not self.has_residual:
            g_sum = self._skip(g_sum, self.skip_degrees, self.skip_degrees, near.counts, transpose=True)
        g_messages, g_basis = self._norm_adjoint(g_sum, saved.density, near)
        g_radial, g_up, g_harmonics = self._messages_adjoint(g_messages, saved, near.pieces)
        g_basis = g_radial if g_basis is None else g_radial + g_basis
        if g_up is None:
            return None, g_basis, g_harmonics
        g_features = self._by_degree(g_up, self.features_in, self.up, transpose=True)
        if self.has_residual:
            g_features = g_features + self._skip(g, self.features_out, self.features_in, near.counts, transpose=True)
        return g_features, g_basis, g_harmonics

    def _norm_adjoint(
        self, g: Tensor, saved: tuple[Tensor, ...], near: Surroundings
    ) -> tuple[list[Tensor], Tensor | None]:
        """Gradients by the messages and, of the learned kinds, by the basis."""
        weights = list(self.linear)
        if self.density is None:
            if in_kernels(g):
                return join_degrees_adjoint(g, weights, 1.0 / self.average), None
            return join_degrees_adjoint(g * (1.0 / self.neighbors.to(g.dtype)), weights), None
        raw, count, norm, summed = saved
        g_count = -(g * summed).sum((1, 2), keepdim=True) * norm * norm
        slots = g_count.squeeze(2).expand(near.graph.table_sign.shape).reshape(-1, 1)
        g_pair = slots_to_pairs(slots * filled_slots(near.graph, 2), near.graph)
        g_raw = g_pair * (1.0 - count * count) * 2.0 * raw
        return join_degrees_adjoint(g * norm, weights), self.density.adjoint(g_raw, [])
