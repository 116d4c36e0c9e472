"""Sum over neighbours of (radial weight x sender's features x harmonics), coupled to all output degrees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forgefield.graph.gather import pairs_to_slots, senders_to_slots, slots_to_pairs, slots_to_senders
from forgefield.graph.graph import Graph
from forgefield.kernels.choice import compiled
from forgefield.kernels.operators import ops
from forgefield.kernels.paths import Path, coupling_paths, edge_plan
from forgefield.models.blocks.coupling import clebsch_gordan


def split_degrees(x: Tensor, degrees: list[int]) -> list[Tensor]:
    """Split axis 1 of (N, sum of 2l+1, ...) by degree."""
    return list(x.split([2 * l + 1 for l in degrees], 1))


def spread_harmonics(values: Tensor, max_degree: int, graph: Graph) -> list[Tensor]:
    """Bring harmonics of pairs (P, (L+1)^2) into the form that edge products take.

    The compiled operators take them as they are. Plain PyTorch takes one tensor (N, K, 2l+1) per degree, with the sign
    of the direction and zeros in padding.
    """
    if compiled(values):
        return [values]
    slots = (pairs_to_slots(values, graph) * _signs(graph, max_degree + 1)).unflatten(0, graph.table_sign.shape)
    return list(slots.split([2 * l + 1 for l in range(max_degree + 1)], 2))


def collect_harmonics(parts: list[Tensor], graph: Graph) -> Tensor:
    """Adjoint of `spread_harmonics`: gradient by the harmonics of pairs, (P, (L+1)^2)."""
    if parts[0].dim() == 2:
        return parts[0]
    return slots_to_pairs(torch.cat(parts, 2).flatten(0, 1) * _signs(graph, len(parts)), graph)


def _signs(graph: Graph, n_degrees: int) -> Tensor:
    """Factor of each harmonic in each slot: the direction's sign for odd degrees, 0 in padding, (N K, n_degrees^2)."""
    sign = graph.table_sign.reshape(-1, 1)
    parts = [(sign if l % 2 else sign.abs()).expand(-1, 2 * l + 1) for l in range(n_degrees)]
    return torch.cat(parts, 1)


class EdgeProduct(nn.Module):
    """Message passing through tensor products, summed before they are coupled.

    The sum over neighbours is of weight x feature x harmonic; the coupling to the message degree acts on the sum, once
    per atom instead of once per edge.

    Args:
        feature_degrees: degrees of the sender's features.
        max_degree: highest degree of harmonics and messages.
    """

    def __init__(self, feature_degrees: list[int], max_degree: int) -> None:
        super().__init__()
        self.feature_degrees, self.max_degree = feature_degrees, max_degree
        self.paths = coupling_paths(feature_degrees, max_degree)
        self.by_harmonic = [[p for p in self.paths if p.harmonic == l] for l in range(max_degree + 1)]
        for p in self.paths:
            if p.feature and p.harmonic:
                tensor = torch.as_tensor(clebsch_gordan(*p)).permute(2, 1, 0).flatten(1)
                self.register_buffer(self._name(p), tensor.contiguous(), persistent=False)
        plan, values = edge_plan(feature_degrees, max_degree, clebsch_gordan)
        self.register_buffer("plan", torch.as_tensor(plan), persistent=False)
        self.register_buffer("values", torch.as_tensor(values), persistent=False)

    @staticmethod
    def _name(p: Path) -> str:
        return f"couple_{p.feature}_{p.harmonic}_{p.message}"

    def n_paths(self, message: int) -> int:
        """Number of paths that end in a message degree."""
        return sum(p.message == message for p in self.paths)

    def _table(self, graph: Graph) -> tuple[Tensor | list[int] | int, ...]:
        """What the compiled operators need beside the factors."""
        table = (graph.table_sender, graph.table_pair, graph.table_sign, graph.inverse)
        return *table, self.plan, self.values, self.feature_degrees, self.max_degree

    def forward(
        self, weights: Tensor, features: Tensor, harmonics: list[Tensor], graph: Graph
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Sum the messages of all neighbours.

        Args:
            weights: per pair and path, (P, paths, C).
            features: of the atoms, (N, sum of 2l+1, C).
            harmonics: from `spread_harmonics`.
            graph: the batch.

        Returns:
            messages: per degree (N, 2l+1, paths C).
            saved: what `adjoint` needs.
        """
        if len(harmonics) == 1 and harmonics[0].dim() == 2:
            return ops.edge_product(weights, features, harmonics[0], *self._table(graph)), (weights, features)
        at_slots = pairs_to_slots(weights, graph), senders_to_slots(features, graph)
        return self._sum(*at_slots, harmonics)

    def adjoint(
        self, g: list[Tensor], saved: tuple[Tensor, ...], harmonics: list[Tensor], graph: Graph, need_features: bool
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Gradients by weights (P, paths, C), features (N, sum of 2l+1, C; if needed) and harmonics."""
        if len(saved) == 2:
            factors = *saved, harmonics[0], *self._table(graph)
            g_weights, g_features, g_values = ops.edge_product_adjoint(g, *factors, need_features, True)
            return g_weights, g_features if need_features else None, [g_values]
        parts = [x.unflatten(2, (-1, saved[0].shape[2])) for x in g]
        g_weights, g_slots, g_harmonics = self._sum_adjoint(parts, saved, harmonics, need_features)
        g_features = None if g_slots is None else slots_to_senders(g_slots, graph)
        return slots_to_pairs(g_weights, graph), g_features, g_harmonics

    # -- plain PyTorch, on the slots of the neighbour table ----------------------------------------------------

    def _sum(
        self, weights: Tensor, features: Tensor, harmonics: list[Tensor]
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Messages from weights (N K, paths, C) and features (N K, sum of 2l+1, C) of the slots."""
        w = dict(zip(self.paths, weights.unsqueeze(2).unbind(1), strict=True))
        h = dict(zip(self.feature_degrees, split_degrees(features, self.feature_degrees), strict=True))
        n, k = harmonics[0].shape[0], harmonics[0].shape[1]
        sums: dict[Path, Tensor] = {}
        edges: list[Tensor] = []
        for l2, paths in enumerate(self.by_harmonic):
            x = torch.cat([w[p] * h[p.feature] for p in paths], 1)
            edges.append(x.flatten(1).unflatten(0, (n, k)))
            z = torch.bmm(harmonics[l2].transpose(1, 2), edges[-1]).unflatten(2, (x.shape[1], x.shape[2]))
            sums.update(zip(paths, z.split([2 * p.feature + 1 for p in paths], 2), strict=True))
        messages = []
        for l3 in range(self.max_degree + 1):
            parts = [self._couple(p, sums[p]) for p in self.paths if p.message == l3]
            messages.append(torch.cat(parts, 2))
        return messages, (weights, features, *edges)

    def _sum_adjoint(
        self, g: list[Tensor], saved: tuple[Tensor, ...], harmonics: list[Tensor], need_features: bool
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Gradients by the slots' weights, features (if needed) and harmonics from those by the messages."""
        weights, features, *edges = saved
        w = dict(zip(self.paths, weights.unsqueeze(2).unbind(1), strict=True))
        h = dict(zip(self.feature_degrees, split_degrees(features, self.feature_degrees), strict=True))
        by_path: dict[Path, Tensor] = {}
        for l3, part in enumerate(g):
            by_path.update(zip([p for p in self.paths if p.message == l3], part.unbind(2), strict=True))
        g_weight: dict[Path, Tensor] = {}
        g_feature: dict[int, Tensor] = {}
        g_harmonic: list[Tensor] = []
        for l2, paths in enumerate(self.by_harmonic):
            z = torch.cat([self._uncouple(p, by_path[p]) for p in paths], 2).flatten(2)
            g_harmonic.append(torch.bmm(edges[l2], z.transpose(1, 2)))
            x = torch.bmm(harmonics[l2], z).flatten(0, 1).unflatten(1, (-1, weights.shape[2]))
            for p, gx in zip(paths, x.split([2 * p.feature + 1 for p in paths], 1), strict=True):
                g_weight[p] = (gx * h[p.feature]).sum(1)
                if need_features:
                    part = gx * w[p]
                    g_feature[p.feature] = g_feature[p.feature] + part if p.feature in g_feature else part
        stacked = torch.stack([g_weight[p] for p in self.paths], 1)
        joined = torch.cat([g_feature[l] for l in self.feature_degrees], 1) if need_features else None
        return stacked, joined, g_harmonic

    def _couple(self, p: Path, z: Tensor) -> Tensor:
        """(N, m2, m1, C) -> (N, m3, C)."""
        if p.harmonic == 0:
            return z.squeeze(1)
        if p.feature == 0:
            return z.squeeze(2)
        return torch.matmul(getattr(self, self._name(p)), z.flatten(1, 2))

    def _uncouple(self, p: Path, g: Tensor) -> Tensor:
        """Adjoint of `_couple`: (N, m3, C) -> (N, m2, m1, C)."""
        if p.harmonic == 0:
            return g.unsqueeze(1)
        if p.feature == 0:
            return g.unsqueeze(2)
        z = torch.matmul(getattr(self, self._name(p)).T, g)
        return z.unflatten(1, (2 * p.harmonic + 1, 2 * p.feature + 1))
