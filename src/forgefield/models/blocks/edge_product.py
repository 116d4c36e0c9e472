"""Sum over neighbours of (radial weight x sender's features x harmonics), coupled to all output degrees."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from forgefield.models.blocks.coupling import clebsch_gordan


class Path(NamedTuple):
    """One coupling: degree of the sender's feature, of the harmonic, and of the message."""

    feature: int
    harmonic: int
    message: int


def coupling_paths(feature_degrees: list[int], max_degree: int) -> list[Path]:
    """All natural-parity couplings of the features with harmonics up to `max_degree`, ordered by message degree."""
    found = [
        Path(l1, l2, l3)
        for l1 in feature_degrees
        for l2 in range(max_degree + 1)
        for l3 in range(abs(l1 - l2), min(l1 + l2, max_degree) + 1)
        if (l1 + l2 + l3) % 2 == 0
    ]
    return sorted(found, key=lambda p: (p.message, p.feature, p.harmonic))


def split_degrees(x: Tensor, degrees: list[int]) -> list[Tensor]:
    """Split axis 1 of (N, sum of 2l+1, ...) by degree."""
    return list(x.split([2 * l + 1 for l in degrees], 1))


class EdgeProduct(nn.Module):
    """Message passing through tensor products, summed before they are coupled.

    For each harmonic degree one batched product over the neighbour table sums weight x feature x harmonic; the
    coupling to the message degree acts on the sum, once per atom instead of once per edge.

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

    @staticmethod
    def _name(p: Path) -> str:
        return f"couple_{p.feature}_{p.harmonic}_{p.message}"

    def n_paths(self, message: int) -> int:
        """Number of paths that end in a message degree."""
        return sum(p.message == message for p in self.paths)

    def forward(
        self, weights: Tensor, features: Tensor, harmonics: list[Tensor]
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Sum the messages of all neighbours.

        Args:
            weights: per edge slot and path, (N K, paths, C).
            features: of the sender, (N K, sum of 2l+1, C).
            harmonics: masked harmonics of each degree, (N, K, 2l+1).

        Returns:
            messages: per degree (N, 2l+1, paths, C).
            saved: what `adjoint` needs.
        """
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
            messages.append(torch.stack(parts, 2))
        return messages, (weights, features, *edges)

    def adjoint(
        self, g: list[Tensor], saved: tuple[Tensor, ...], harmonics: list[Tensor], need_features: bool
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Gradients by weights, features (if needed) and harmonics from those by the messages."""
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
