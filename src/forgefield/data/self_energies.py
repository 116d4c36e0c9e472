"""Self-atomic energies: what each element contributes to total energies, by least squares in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forgefield.core.elements import symbol

BLOCK = 65_536  # rows taken at a time where a table is too large to be held twice
LARGE = 20_000_000  # entries of a table from which it is
_TIED = 1e-8


class Fit(NamedTuple):
    """Energies of elements.

    Args:
        values: (Z,), eV; of equally good solutions that of smallest norm.
        rank: how many of them the compositions determine.
        tied: columns that cannot be told apart, group by group.
        used: rows that were fitted, (S,).
        rms: root mean square of what is left, per atom, of the rows fitted, eV.
    """

    values: np.ndarray
    rank: int
    tied: list[list[int]]
    used: np.ndarray
    rms: float


def fit_energies(counts: np.ndarray, energies: np.ndarray, percentiles: tuple[float, float] | None = None) -> Fit:
    """Fit energy = sum over elements of count x value.

    Args:
        counts: atoms of each element in each structure, (S, Z).
        energies: (S,), eV, float64.
        percentiles: fit a second time without the structures whose residual lies outside of these percentiles.
    """
    values, rank = solve(counts, energies)
    used = np.ones(len(energies), dtype=bool)
    if percentiles is not None:
        rest = energies - counts @ values
        low, high = np.percentile(rest, percentiles)
        used = (rest >= low) & (rest <= high)
        left_out = counts[:, counts[used].sum(axis=0) == 0].any(axis=1)
        used |= left_out  # an element that only outliers have is still needed
        values, rank = solve(counts[used], energies[used])
    rest = (energies[used] - counts[used] @ values) / counts[used].sum(axis=1)
    return Fit(values, rank, tied_columns(counts[used]), used, float(np.sqrt(np.mean(rest**2))))


def solve(counts: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the least squares solution of smallest norm, (Z,), and the rank.

    A large table is reduced block by block by QR, which keeps all digits, so that no copy of it is made.
    """
    if counts.size <= LARGE:
        values, _, rank, _ = np.linalg.lstsq(counts.astype(np.float64), energies, rcond=None)
        return values, int(rank)
    n = counts.shape[1]
    reduced: np.ndarray = np.zeros((0, n + 1))
    for start in range(0, len(counts), BLOCK):
        rows = np.column_stack([counts[start : start + BLOCK], energies[start : start + BLOCK]])
        reduced = np.asarray(np.linalg.qr(np.concatenate([reduced, rows]), mode="r"))
    limit = np.finfo(np.float64).eps * len(counts)
    values, _, rank, _ = np.linalg.lstsq(reduced[:, :n], reduced[:, n], rcond=limit)
    return values, int(rank)


def tied_columns(counts: np.ndarray) -> list[list[int]]:
    """Return the elements whose values the compositions do not determine, those that depend on each other together."""
    counts = counts.astype(np.float64)
    scale = np.sqrt((counts**2).sum(axis=0))
    scale[scale == 0] = 1.0
    scaled = counts / scale
    strength, vectors = np.linalg.eigh(scaled.T @ scaled)
    free = vectors[:, strength < _TIED * max(float(strength.max(initial=0.0)), 1e-30)]
    links = np.abs(free @ free.T) > 1e-6
    left, groups = set(np.flatnonzero(links.diagonal()).tolist()), []
    while left:
        group, wave = set[int](), {min(left)}
        while wave:
            group |= wave
            wave = {int(k) for j in wave for k in np.flatnonzero(links[j])} - group
        groups.append(sorted(group))
        left -= group
    return groups


def explain_ties(tied: Sequence[Sequence[int]], elements: Sequence[int]) -> str:
    """Return which elements cannot be told apart, and which are determined."""
    loose = {k for group in tied for k in group}
    parts = [
        f"{symbol(elements[group[0]])} is in no structure" if len(group) == 1
        else f"{', '.join(symbol(elements[k]) for k in group)} cannot be told apart (their numbers of atoms depend on "
        "each other in all structures)"
        for group in tied
    ]  # fmt: skip
    firm = [symbol(z) for k, z in enumerate(elements) if k not in loose]
    return "; ".join([*parts, *([f"{', '.join(firm)} {'is' if len(firm) == 1 else 'are'} determined"] if firm else [])])
