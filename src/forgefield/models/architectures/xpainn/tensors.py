"""Vectors and tensors of atoms from their equivariant features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from e3nn import o3
from torch import Tensor, nn

from forgefield.models.architectures.xpainn.dense import Mix, Network, soft_lengths, times
from forgefield.models.architectures.xpainn.irreps import Irreps

HIGHEST_RANK = 4
TURNING = (1, 2)  # degrees whose products are pseudovectors here


def degrees_of(rank: int) -> tuple[int, ...]:
    """Degrees of the harmonics that a symmetric tensor is made of: rank, rank - 2, ... down to 1 or 0."""
    return tuple(range(rank % 2, rank + 1, 2))


@cache
def tensor_basis(rank: int) -> tuple[Tensor, ...]:
    """Orthonormal symmetric tensors that turn as the harmonics of each degree, (2l+1, 3^rank), ascending degrees.

    On the unit sphere a harmonic of degree l is a product of `rank` coordinates contracted with a tensor; of all such
    tensors the shortest is symmetric.
    """
    points = np.random.default_rng(5).normal(size=(40 * rank, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    products = points
    for _ in range(rank - 1):
        products = (products[:, :, None] * points[:, None, :]).reshape(len(points), -1)
    found = []
    for degree in degrees_of(rank):
        values = o3.spherical_harmonics(degree, torch.as_tensor(points), normalize=True, normalization="component")
        tensors = np.linalg.lstsq(products, values.numpy(), rcond=None)[0].T
        found.append(torch.as_tensor(tensors / np.linalg.norm(tensors, axis=1, keepdims=True)))
    return tuple(found)


class TensorHead(nn.Module):
    """A symmetric tensor of each atom.

    Features are mixed, gated by their own lengths, mixed to one of each degree, times numbers that a network makes of
    the scalars.

    Args:
        width: scalar features.
        irreps: equivariant features.
        rank: 1: a vector, 2: a matrix, up to 4.
        hidden: width of the network.
        between: channels of each degree between the two mixtures.
        activation: of the network.
        softness: of the lengths.
    """

    def __init__(
        self, width: int, irreps: Irreps, rank: int, hidden: int, between: Irreps, activation: str, softness: float
    ) -> None:
        super().__init__()
        self.rank, self.softness, self.given, self.between = rank, softness, irreps, between
        degrees = degrees_of(rank)
        self.places = [irreps.degrees.index(l) for l in degrees]
        self.first = Mix(irreps.only(degrees), between.channels, bias=True)
        self.second = Mix(between, [1] * len(degrees), bias=True)
        self.network = Network([width, hidden, len(degrees)], activation)
        for l, basis in zip(degrees, tensor_basis(rank), strict=True):
            self.register_buffer(f"basis_{l}", basis, persistent=False)

    def forward(self, s: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Tensors (N, 3, 3, ...) of atoms with scalars (N, C) and features (N, 2l+1, C) of each degree."""
        mixed = self.first([parts[k] for k in self.places])
        gates = torch.sigmoid(soft_lengths(mixed, self.softness)).split(list(self.between.channels), 1)
        last = self.second([x * g.unsqueeze(1) for x, g in zip(mixed, gates, strict=True)])
        factors = self.network(s).split(1, 1)
        found = [
            (x.squeeze(2) * f) @ getattr(self, f"basis_{l}")
            for l, x, f in zip(self.between.degrees, last, factors, strict=True)
        ]
        return torch.stack(found).sum(0).unflatten(1, (3,) * self.rank) if self.rank > 1 else found[0]


def coupling(degree: int) -> Tensor:
    """Pseudovectors that two features of one degree make, (2l+1, 2l+1, 3); of even parity, antisymmetric.

    Degree 1: the cross product; degree 2: the commutator of two symmetric matrices. Of a feature of variance 1 and one
    of length 1, without preferred direction, the pseudovector has variance 1.
    """
    return o3.wigner_3j(degree, degree, 1, dtype=torch.float64) * math.sqrt(3.0 * (2 * degree + 1))


def antisymmetric_basis() -> Tensor:
    """Orthonormal antisymmetric matrices that turn as the harmonics of degree 1, but do not change sign in a mirror."""
    levi = torch.zeros(3, 3, 3, dtype=torch.float64)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        levi[i, j, k], levi[j, i, k] = 1.0, -1.0
    return tensor_basis(1)[0] @ levi.reshape(3, 9) / math.sqrt(2.0)


class TurnHead(nn.Module):
    """The antisymmetric part of a matrix of each atom, made of products of two mixes of the features.

    One mix is gated by its own lengths, the other divided by them, so that all grows as the features do; the products
    are mixed to one, times a number that a network makes of the scalars.

    Args:
        width: scalar features.
        irreps: equivariant features.
        hidden: width of the network.
        between: channels of each degree that makes products.
        activation: of the network.
        softness: of the lengths.
    """

    def __init__(
        self, width: int, irreps: Irreps, hidden: int, between: Irreps, activation: str, softness: float
    ) -> None:
        super().__init__()
        self.softness, self.between = softness, between
        self.places = [irreps.degrees.index(l) for l in between.degrees]
        self.first = Mix(irreps.only(between.degrees), between.channels, bias=False)
        self.other = Mix(irreps.only(between.degrees), between.channels, bias=False)
        self.last = nn.Parameter(torch.randn(between.count, 1) / math.sqrt(between.count))
        self.network = Network([width, hidden, 1], activation)
        for l in between.degrees:
            self.register_buffer(f"coupling_{l}", coupling(l), persistent=False)
        self.register_buffer("basis", antisymmetric_basis(), persistent=False)

    def forward(self, s: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Antisymmetric matrices (N, 3, 3) of atoms with scalars (N, C) and features (N, 2l+1, C) of each degree."""
        given = [parts[k] for k in self.places]
        channels, mixed, other = list(self.between.channels), self.first(given), self.other(given)
        gates = torch.sigmoid(soft_lengths(mixed, self.softness)).split(channels, 1)
        lengths = (soft_lengths(other, self.softness) + self.softness).split(channels, 1)
        found = [
            torch.einsum("nac,nbc,abk->nkc", x * g.unsqueeze(1), y / r.unsqueeze(1), getattr(self, f"coupling_{l}"))
            for l, x, g, y, r in zip(self.between.degrees, mixed, gates, other, lengths, strict=True)
        ]
        products = torch.cat(found, 2)  # (N, 3, C)
        last = times(products.flatten(0, 1), self.last).unflatten(0, products.shape[:2]).squeeze(2)
        return ((last * self.network(s)) @ self.basis).unflatten(1, (3, 3))
