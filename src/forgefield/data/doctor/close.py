"""Pairs of structures that lie close together, and the energy difference that their forces and stresses foretell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from forgefield.core.structure import Structure
from forgefield.data.doctor.survey import Survey, by_value

FARTHEST = 0.5  # Å, of any atom
MOST_STRAIN = 0.08
NEAREST = 1e-4  # Å or strain: closer pairs hold no information
MOST_PAIRS = 1500  # per source
HALVES = 0.6  # of the logarithm of the slopes of two halves


class Work(NamedTuple):
    """Close pairs of one source, one row each (P rows)."""

    rows: np.ndarray  # (P, 2), of the survey
    rise: np.ndarray  # (P,), second energy minus first, eV; NaN without energies
    by_forces: np.ndarray  # (P,), minus mean force times displacement, eV; NaN without forces
    strain: np.ndarray  # (P, 3, 3), of the cell; zero without a cell
    stress: np.ndarray  # (P, 3, 3), mean of both, eV/Å^3; NaN without
    stress_rise: np.ndarray  # (P, 3, 3), second minus first
    volume: np.ndarray  # (P,), mean of both, Å^3
    stretch: np.ndarray  # (P,), root mean square displacement, Å
    follow: np.ndarray  # (P,), whether they are neighbours in a file


def close_pairs(survey: Survey, rows: np.ndarray) -> Work:
    """Return the closest pairs among these rows: neighbours in the file, and nearest by distances."""
    name = f"close {rows[0]} {rows[-1]} {len(rows)}"
    if name not in survey.memory:
        survey.memory[name] = _close_pairs(survey, rows)
    return survey.memory[name]


def _close_pairs(survey: Survey, rows: np.ndarray) -> Work:
    candidates = _candidates(survey, rows)
    found, follow = [], []
    for one, other, after in candidates:
        work = _work(survey.structure(one), survey.structure(other))
        if work is not None:
            found.append(((one, other), *work))
            follow.append(after)
        if len(found) >= MOST_PAIRS:
            break
    columns = list(zip(*found, strict=True)) if found else [[] for _ in range(8)]
    shapes = ((-1, 2), (-1,), (-1,), (-1, 3, 3), (-1, 3, 3), (-1, 3, 3), (-1,), (-1,))
    arrays = [np.asarray(c, dtype=np.float64).reshape(s) for c, s in zip(columns, shapes, strict=True)]
    rows, rise, by_forces, strain, stress, stress_rise, volume, stretch = arrays
    after = np.array(follow, dtype=bool)
    return Work(rows.astype(np.int64), rise, by_forces, strain, stress, stress_rise, volume, stretch, after)


def _candidates(survey: Survey, rows: np.ndarray) -> list[tuple[int, int, bool]]:
    """Pairs of rows, closest first, at most three times as many as are kept."""
    pairs: dict[tuple[int, int], bool] = {}
    kind = survey.kind
    for one, other in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True):
        if kind[one] == kind[other]:
            pairs[one, other] = True
    for places in by_value(kind[rows]):
        members = rows[places]
        if len(members) > 2 and survey.atoms[members[0]] > 1:
            points = survey.cloud[members]
            count = min(3, len(members))
            _, near = KDTree(points).query(points, k=count)
            ends = np.sort(members[np.stack([np.arange(len(members)).repeat(count), np.ravel(near)])], axis=0)
            for one, other in ends.T[ends[0] != ends[1]].tolist():
                pairs.setdefault((one, other), False)
    table = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    gaps = np.linalg.norm(survey.cloud[table[:, 0]] - survey.cloud[table[:, 1]], axis=1)
    order = np.argsort(gaps, kind="stable")[: 2 * MOST_PAIRS]
    follow = list(pairs.values())
    return [(int(table[k, 0]), int(table[k, 1]), follow[k]) for k in order.tolist()]


def _work(a: Structure, b: Structure) -> tuple | None:
    """Numbers of one pair, or None where it is not close or its atoms stand in another order."""
    if not np.array_equal(a.numbers, b.numbers) or not np.array_equal(a.pbc, b.pbc):
        return None
    moved = _moved_in_cell(a, b) if a.pbc.any() else _moved_freely(a, b)
    if moved is None:
        return None
    shift, strain, turn = moved
    if np.abs(shift).max() > FARTHEST or np.abs(strain).max() > MOST_STRAIN:
        return None
    stretch = float(np.sqrt((shift**2).sum(axis=1).mean()))
    if stretch < NEAREST and np.abs(strain).max() < NEAREST:
        return None
    rise = float(b.labels.get("energy", np.nan)) - float(a.labels.get("energy", np.nan))
    by_forces = np.nan
    if "forces" in a.labels and "forces" in b.labels:
        by_forces = -0.5 * float(((a.labels["forces"] @ turn.T + b.labels["forces"]) * shift).sum())
    nothing = np.full((3, 3), np.nan)
    one, other = a.labels.get("stress", nothing), b.labels.get("stress", nothing)
    return rise, by_forces, strain, 0.5 * (one + other), other - one, 0.5 * (a.volume + b.volume), stretch


def _moved_freely(a: Structure, b: Structure) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Displacements after the best rotation of a onto b, and that rotation."""
    one, other = a.positions - a.positions.mean(axis=0), b.positions - b.positions.mean(axis=0)
    if np.abs(np.sort((one**2).sum(axis=1)) - np.sort((other**2).sum(axis=1))).max() > 400.0:
        return None
    u, _, vt = np.linalg.svd(other.T @ one)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    turn = Rotation.from_matrix(u @ flip @ vt).as_matrix()
    return other - one @ turn.T, np.zeros((3, 3)), turn


def _moved_in_cell(a: Structure, b: Structure) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Displacements in the mean cell, shortest images, and the strain of the cell."""
    if abs(np.linalg.det(a.cell)) < 1e-6 or abs(np.linalg.det(b.cell)) < 1e-6:
        return None
    grown = np.linalg.solve(a.cell, b.cell) - np.eye(3)
    mean = 0.5 * (a.cell + b.cell)
    steps = np.linalg.solve(b.cell.T, b.positions.T).T - np.linalg.solve(a.cell.T, a.positions.T).T
    steps -= np.where(a.pbc, np.round(steps - steps[0]) + 0.0, 0.0)
    steps -= steps.mean(axis=0)
    steps -= np.where(a.pbc, np.round(steps), 0.0)
    steps -= steps.mean(axis=0)
    return steps @ mean, 0.5 * (grown + grown.T), np.eye(3)


def weighted_slope(rise: np.ndarray, work: np.ndarray) -> tuple[float, float]:
    """Return the slope of rise against work, robustly, and what it leaves unexplained (0 to about 1)."""
    good = np.isfinite(rise) & np.isfinite(work) & (np.abs(work) > 1e-9)
    if good.sum() < 5:
        return np.nan, 1.0
    ratio, weight = rise[good] / work[good], np.abs(work[good])
    order = np.argsort(ratio)
    passed = np.cumsum(weight[order])
    slope = float(ratio[order][np.searchsorted(passed, 0.5 * passed[-1])])
    return slope, misfit(rise[good], slope * work[good])


def agreeing(rise: np.ndarray, work: np.ndarray) -> bool:
    """Return whether two halves of the pairs give nearly the same slope."""
    good = np.flatnonzero(np.isfinite(rise) & np.isfinite(work) & (np.abs(work) > 1e-9))
    halves = [weighted_slope(rise[good[k::2]], work[good[k::2]])[0] for k in (0, 1)]
    return bool(halves[0] * halves[1] > 0 and abs(np.log(halves[0] / halves[1])) < HALVES)


def misfit(rise: np.ndarray, foretold: np.ndarray) -> float:
    """Return the mean error of a forecast over the mean size of what is forecast."""
    return float(np.abs(rise - foretold).mean() / max(np.abs(rise).mean(), 1e-12))


BROKEN = 8.0  # times the usual error of the forecast
NOTABLE = 0.02  # eV/atom
HONEST = 0.25  # error of the forecast over the usual difference, of most pairs


def broken_rows(survey: Survey, work: Work) -> np.ndarray:
    """Return rows whose energies break with all structures close to them, though forces and stress foretell others."""
    strained = np.abs(work.strain).max(axis=(1, 2)) > 1e-3
    by_stress = work.volume * (work.stress * work.strain).sum(axis=(1, 2))
    foretold = np.nan_to_num(work.by_forces) + np.where(strained, by_stress, 0.0)
    known = np.isfinite(work.rise) & np.isfinite(foretold) & (np.isfinite(work.by_forces) | strained)
    if known.sum() < 20:
        return np.zeros(0, dtype=np.int64)
    atoms = survey.atoms[work.rows[known, 0]]
    rise, foretold, rows = work.rise[known] / atoms, foretold[known] / atoms, work.rows[known]
    error = np.abs(rise - foretold)
    usual = np.median(error)
    if usual > HONEST * np.median(np.abs(rise)):
        return np.zeros(0, dtype=np.int64)
    bad = error > np.maximum(np.maximum(BROKEN * usual, NOTABLE), np.abs(foretold))
    size = len(survey)
    times, times_bad = np.bincount(rows.ravel(), minlength=size), np.bincount(rows[bad].ravel(), minlength=size)
    return np.flatnonzero((times_bad >= 2) & (times_bad > 0.7 * times))
