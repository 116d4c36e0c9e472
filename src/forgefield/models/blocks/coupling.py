"""Angular momentum coupling: Clebsch-Gordan tensors and symmetric polynomials of them.

The phase of each Clebsch-Gordan tensor is fixed here (its first non-zero entry is positive), because libraries
have changed theirs between versions and weights are only meaningful together with a phase.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from e3nn import o3

TINY = 1e-9


def natural(degree: int) -> int:
    """Return the parity (-1)^l of the spherical harmonics of this degree."""
    return -1 if degree % 2 else 1


@cache
def clebsch_gordan(l1: int, l2: int, l3: int) -> np.ndarray:
    """Return the real coupling tensor of l1 x l2 -> l3, component normalised: (2l1+1, 2l2+1, 2l3+1).

    Source:
        Wigner 3j symbols in the real basis (e3nn's ordering), times sqrt(2 l3 + 1).
    """
    tensor = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).numpy() * np.sqrt(2 * l3 + 1)
    values = tensor.ravel()
    return tensor * np.sign(values[np.abs(values) > TINY][0])


@cache
def monomials(n_variables: int, degree: int) -> tuple[tuple[int, ...], ...]:
    """Return all products of `degree` of the variables as sorted index tuples."""
    return tuple(itertools.combinations_with_replacement(range(n_variables), degree))


@cache
def _raise_table(n_variables: int, degree: int) -> np.ndarray:
    """Row of monomial times variable in the next degree's list: (n_monomials, n_variables)."""
    place = {m: k for k, m in enumerate(monomials(n_variables, degree + 1))}
    rows = [[place[tuple(sorted((*m, i)))] for i in range(n_variables)] for m in monomials(n_variables, degree)]
    return np.array(rows)


def _couple(left: np.ndarray, l_left: int, l_right: int, l_out: int, degree: int, n_variables: int) -> np.ndarray:
    """Couple polynomials (2l_left+1, monomials of `degree`) with the variables of degree l_right."""
    coupling = clebsch_gordan(l_left, l_right, l_out)
    first = l_right * l_right
    out = np.zeros((2 * l_out + 1, len(monomials(n_variables, degree + 1))))
    table = _raise_table(n_variables, degree)
    for k in range(2 * l_right + 1):
        part = np.einsum("am,aM->Mm", left, coupling[:, k, :])
        for row, target in zip(part, out, strict=True):
            np.add.at(target, table[:, first + k], row)
    return out


@cache
def _all_paths(max_degree: int, order: int, natural_only: bool) -> tuple[tuple[int, int, np.ndarray], ...]:
    """All sequential couplings of `order` features of degrees 0..max_degree, as (l, parity, polynomials)."""
    n = (max_degree + 1) ** 2
    if order == 1:
        eye = np.eye(n)
        return tuple((l, natural(l), eye[l * l : (l + 1) ** 2]) for l in range(max_degree + 1))
    found = []
    for l_left, parity, left in _all_paths(max_degree, order - 1, natural_only):
        for l_right in range(max_degree + 1):
            p = parity * natural(l_right)
            for l_out in range(abs(l_left - l_right), l_left + l_right + 1):
                if natural_only and p != natural(l_out):
                    continue
                found.append((l_out, p, _couple(left, l_left, l_right, l_out, order - 1, n)))
    return tuple(sorted(found, key=lambda item: item[:2]))


@cache
def symmetric_paths(max_degree: int, degree: int, order: int) -> np.ndarray:
    """Return the polynomials of `order` features that transform as `degree`, one per coupling path.

    Paths run over all sequences (l1, l2 -> l12, l3 -> ...) as in MACE, so that the number of weights is the same;
    paths that vanish because all features are the same are left out. From order 4 on, intermediate degrees are
    kept to natural parity.

    Returns:
        Coefficients (paths, 2 degree + 1, monomials).

    Source:
        Batatia et al., MACE (2022), equations 10 and 11.
    """
    found = [
        poly
        for l, parity, poly in _all_paths(max_degree, order, order >= 4)
        if l == degree and parity == natural(degree) and np.abs(poly).max() > TINY
    ]
    n = (max_degree + 1) ** 2
    return np.array(found).reshape(len(found), 2 * degree + 1, len(monomials(n, order)))


def independent_paths(paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split redundant paths into a basis and the combinations that give all of them.

    Args:
        paths: (K, ...).

    Returns:
        rows: indices of the first linearly independent paths, (r,).
        combine: (K, r) with paths = combine @ paths[rows].
    """
    flat = paths.reshape(len(paths), -1)
    rows: list[int] = []
    basis = np.zeros((0, flat.shape[1]))
    for k, row in enumerate(flat):
        rest = row - basis.T @ (basis @ row)
        rest -= basis.T @ (basis @ rest)
        size = np.linalg.norm(rest)
        if size > 1e-7 * np.linalg.norm(row):
            basis = np.vstack([basis, rest / size])
            rows.append(k)
    if not rows:
        return np.zeros(0, dtype=int), np.zeros((len(paths), 0))
    combine = np.linalg.lstsq(flat[rows].T, flat.T, rcond=None)[0].T
    return np.array(rows), combine
