"""Symmetric contraction: the invariant and equivariant polynomials of an atom's own features (MACE's product basis)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from forgefield.kernels.choice import compiled
from forgefield.kernels.operators import ops
from forgefield.kernels.polynomials import polynomial_plan
from forgefield.models.blocks.coupling import TINY, independent_paths, monomials, symmetric_paths
from forgefield.models.blocks.grouped import contract_by_element


class Contraction(nn.Module):
    """Polynomials of degree 1..correlation of the features, coupled to the wanted degrees.

    The features split by parity, and so do the monomials. For each parity block one table gives, per path, the
    gradient of the polynomial by each feature and its value from the terms below the highest order:
    with V = sum of V_order, `correlation V = sum_i A_i dV/dA_i + sum_order (correlation - order) V_order`.
    So one product by element yields the value and everything the adjoint needs.

    Args:
        max_degree: highest degree of the features.
        degrees: degrees of the output.
        correlation: highest order.
        channels: C.
        n_elements: rows of weights; 1 = the same for all elements.
        reduced: give weights to independent paths only.
    """

    def __init__(
        self,
        max_degree: int,
        degrees: list[int],
        correlation: int,
        channels: int,
        n_elements: int,
        reduced: bool = False,
    ) -> None:
        super().__init__()
        self.degrees, self.correlation, self.max_degree = degrees, correlation, max_degree
        self._held: Tensor | None = None
        self.n_outputs = sum(2 * l + 1 for l in degrees)
        self.weights = nn.ParameterDict()
        degree_of = np.concatenate([[l] * (2 * l + 1) for l in range(max_degree + 1)])
        members = [np.flatnonzero(degree_of % 2 == p) for p in (0, 1)]
        self._buffer("even", members[0])
        self._buffer("odd", members[1])
        self._buffer("sorting", np.argsort(np.concatenate(members)))
        for degree in degrees:
            self._add_degree(degree, members, channels, n_elements, reduced)
        self._add_monomials(degree_of)
        self._add_plan(reduced)

    def _buffer(self, name: str, value: np.ndarray) -> None:
        self.register_buffer(name, torch.as_tensor(value), persistent=False)

    def _add_degree(self, degree: int, members: list, channels: int, n_elements: int, reduced: bool) -> None:
        """Weights and the two parity tables of one output degree."""
        blocks: list[list[np.ndarray]] = [[], []]
        for order in range(1, self.correlation + 1):
            paths = symmetric_paths(self.max_degree, degree, order)
            if not len(paths):
                continue
            rows, combine = independent_paths(paths)
            n_weights = len(rows) if reduced else len(paths)
            weight = torch.randn(n_elements, n_weights, channels) / n_weights
            self.weights[f"{degree}_{order}"] = nn.Parameter(weight)
            combine = np.eye(len(rows)) if reduced else combine
            self._buffer(f"combine_{degree}_{order}", combine.T)
            for parity in (0, 1):
                blocks[parity].append(self._table(paths[rows], degree, order, parity, members))
        for parity in (0, 1):
            self._buffer(f"table_{degree}_{parity}", np.concatenate(blocks[parity], 0))

    def _table(self, paths: np.ndarray, degree: int, order: int, parity: int, members: list) -> np.ndarray:
        """Table (k, rows, Q) of one order: rows are (M, i) and, where parities agree, M of the lower value."""
        inputs = members[(degree + parity) % 2]
        columns = self._columns(parity)
        place = {m: q for q, m in enumerate(columns)}
        row_of = {i: k for k, i in enumerate(inputs)}
        n_m, with_value = 2 * degree + 1, degree % 2 == parity
        gradient = np.zeros((len(paths), n_m, len(inputs), len(columns)))
        value = np.zeros((len(paths), n_m if with_value else 0, len(columns)))
        for q, m in enumerate(monomials((self.max_degree + 1) ** 2, order)):
            coefficient = paths[:, :, q]
            if not coefficient.any():
                continue
            for i in set(m):
                rest = list(m)
                rest.remove(i)
                if tuple(rest) in place and i in row_of:
                    gradient[:, :, row_of[i], place[tuple(rest)]] += m.count(i) * coefficient
            if with_value and order < self.correlation:
                value[:, :, place[m]] += (self.correlation - order) * coefficient
        return np.concatenate([gradient.reshape(len(paths), n_m * len(inputs), len(columns)), value], 1)

    def _columns(self, parity: int) -> list[tuple[int, ...]]:
        """Monomials of one parity, of degree 0 to correlation - 1."""
        n = (self.max_degree + 1) ** 2
        odd = [int(np.sqrt(i)) % 2 for i in range(n)]
        degrees = range(self.correlation)
        return [m for d in degrees for m in monomials(n, d) if sum(odd[i] for i in m) % 2 == parity]

    def _add_monomials(self, degree_of: np.ndarray) -> None:
        """Index lists that build the monomials of each degree from those below, and pick each parity's."""
        n = len(degree_of)
        every = [m for d in range(self.correlation) for m in monomials(n, d)]
        place = {m: k for k, m in enumerate(every)}
        for parity in (0, 1):
            self._buffer(f"pick_{parity}", np.array([place[m] for m in self._columns(parity)], dtype=np.int64))
        for d in range(2, self.correlation):
            below = {m: k for k, m in enumerate(monomials(n, d - 1))}
            self._buffer(f"left_{d}", np.array([below[m[:-1]] for m in monomials(n, d)]))
            self._buffer(f"right_{d}", np.array([m[-1] for m in monomials(n, d)]))

    def _add_plan(self, reduced: bool) -> None:
        """Plan of the compiled operators; the table (terms, weights) turns weights into their coefficients."""
        n, first, sizes = (self.max_degree + 1) ** 2, 0, [w.shape[1] for w in self.weights.values()]
        terms: list[tuple[int, tuple[int, ...]]] = []
        rows: list[np.ndarray] = []
        for name, size in zip(self.weights, sizes, strict=True):
            degree, order = map(int, name.split("_"))
            paths = symmetric_paths(self.max_degree, degree, order)
            paths = paths[independent_paths(paths)[0]] if reduced else paths
            start = sum(2 * l + 1 for l in self.degrees[: self.degrees.index(degree)])
            for q, m in enumerate(monomials(n, order)):
                for k in np.flatnonzero(np.abs(paths[:, :, q]).max(0) > TINY):
                    terms.append((start + int(k), m))
                    rows.append(np.zeros(sum(sizes)))
                    rows[-1][first : first + size] = paths[:, k, q]
            first += size
        plan, order = polynomial_plan(terms, n, self.n_outputs)
        self._buffer("plan", plan)
        self._buffer("expand", np.array(rows)[order])

    def _monomials(self, features: Tensor) -> list[Tensor]:
        """Monomials of both parities, (Q, C, N) each."""
        powers = [torch.ones_like(features[:1])]
        if self.correlation > 1:
            powers.append(features)
        for d in range(2, self.correlation):
            left = powers[-1].index_select(0, getattr(self, f"left_{d}"))
            powers.append(left * features.index_select(0, getattr(self, f"right_{d}")))
        every = torch.cat(powers, 0)
        return [every.index_select(0, self.pick_0), every.index_select(0, self.pick_1)]

    def _path_weights(self) -> Tensor:
        """Weights of the independent paths of all degrees and orders, (Z, K, C)."""
        parts = []
        for name, weight in self.weights.items():
            combine = getattr(self, f"combine_{name}")
            parts.append(torch.matmul(combine, weight))
        return torch.cat(parts, 1)

    def forward(self, features: Tensor, species: Tensor, counts: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Evaluate the polynomials.

        Args:
            features: A, (N, (max_degree+1)^2, C).
            species: index of each atom's element, (N,), ascending.
            counts: atoms of each element, on the CPU.

        Returns:
            values: (N, sum of 2l+1 over the degrees, C).
            saved: what `adjoint` needs.
        """
        if compiled(features):
            coefficients = self._coefficients()
            sets = species if coefficients.shape[0] > 1 else torch.zeros_like(species)
            values = ops.contraction(features, coefficients, sets, self.plan, self.n_outputs)
            return values, [features, coefficients, sets]
        return self._values(features, counts)

    def _coefficients(self) -> Tensor:
        """Coefficients of the plan's terms, (Z, terms, C)."""
        if self._held is not None:
            return self._held
        return torch.matmul(self.expand, torch.cat(list(self.weights.values()), 1))

    @torch.no_grad()
    def hold(self) -> None:
        """Compute the coefficients once and for all; later changes of the weights have no effect."""
        self._held = None
        self._held = self._coefficients()

    def adjoint(self, g: Tensor, saved: list[Tensor]) -> Tensor:
        """Gradient by the features (N, (max_degree+1)^2, C) from the gradient by the values."""
        if not saved[-1].is_floating_point():
            return ops.contraction_adjoint(g, *saved, self.plan, False)[0]
        return self._values_adjoint(g, saved)

    # -- plain PyTorch: one product by element gives values and slopes -------------------------------------------

    def _values(self, features: Tensor, counts: Tensor) -> tuple[Tensor, list[Tensor]]:
        a = features.permute(1, 2, 0).contiguous()
        weights, blocks = self._path_weights(), self._monomials(a)
        halves = [a.index_select(0, self.even).transpose(0, 1), a.index_select(0, self.odd).transpose(0, 1)]
        total: list[Tensor] = [a.new_zeros(0)] * len(self.degrees)
        slopes: list[Tensor] = []
        for parity in (0, 1):
            tables = [getattr(self, f"table_{l}_{parity}") for l in self.degrees]
            rows = contract_by_element(weights, tables, blocks[parity], counts)
            pieces = rows.split([t.shape[1] for t in tables], 1)
            for k, (degree, piece) in enumerate(zip(self.degrees, pieces, strict=True)):
                half = halves[(degree + parity) % 2].unsqueeze(1)
                n_m, n_i = 2 * degree + 1, half.shape[2]
                low = degree % 2 == parity
                slope, value = piece.split([n_m * n_i, n_m if low else 0], 1)
                slope = slope.unflatten(1, (n_m, n_i))
                part = (slope * half).sum(2)
                part = part + value if low else part
                total[k] = part if parity == 0 else total[k] + part
                slopes.append(slope)
        return torch.cat(total, 1).permute(2, 1, 0) * (1.0 / self.correlation), slopes

    def _values_adjoint(self, g: Tensor, slopes: list[Tensor]) -> Tensor:
        parts = g.permute(2, 1, 0).split([2 * l + 1 for l in self.degrees], 1)
        halves: list[list[Tensor]] = [[], []]
        for parity in (0, 1):
            for k, (degree, part) in enumerate(zip(self.degrees, parts, strict=True)):
                slope = slopes[parity * len(self.degrees) + k]
                halves[(degree + parity) % 2].append((part.unsqueeze(2) * slope).sum(1))
        joined = torch.cat([torch.stack(h).sum(0) if len(h) > 1 else h[0] for h in halves], 1)
        return joined.index_select(1, self.sorting).permute(2, 1, 0)
