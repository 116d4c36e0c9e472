"""What composition and distances explain of the energies: a robust linear fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from forgefield.data.doctor.survey import Survey

ROUNDS = 12
FAR = 5.0  # scales: such rows leave the fit
ROWS_PER_COLUMN = 4
NEIGHBOURS = 8
MOST_JUMPS = 200_000


class Residuals(NamedTuple):
    """Of the structures of one source that have energies (R rows).

    Args:
        rows: of the survey, (R,).
        value: energy per atom that the fit does not explain, eV, (R,).
        surprise: the same, less the median of the nearest structures, over what is usual; (R,).
        local: that difference, eV/atom, (R,).
        jumps: places (not rows) of two near structures of one composition, and the energy between them that their
            distances do not explain, eV/atom; three arrays (J,).
    """

    rows: np.ndarray
    value: np.ndarray
    surprise: np.ndarray
    local: np.ndarray
    jumps: tuple[np.ndarray, np.ndarray, np.ndarray]


def residuals(survey: Survey, rows: np.ndarray) -> Residuals | None:
    """Fit the energies of one source; None for fewer than 20."""
    rows = rows[np.isfinite(survey.energy[rows]) & (survey.atoms[rows] > 1)]
    name = f"residuals {rows[:1].tolist()} {len(rows)}"
    if name not in survey.memory:
        survey.memory[name] = _residuals(survey, rows) if len(rows) >= 20 else None
    return survey.memory[name]


def _residuals(survey: Survey, rows: np.ndarray) -> Residuals:
    n = survey.atoms[rows].astype(np.float64)
    shares = survey.composition[rows] / n[:, None]
    energy = survey.energy[rows] / n
    left = _fit(shares, energy)
    columns = survey.cloud[rows]
    width = min(columns.shape[1], max(0, len(rows) // ROWS_PER_COLUMN - shares.shape[1]))
    if len(rows) >= ROWS_PER_COLUMN * (survey.descriptor.shape[1] + shares.shape[1]):
        columns, width = survey.descriptor[rows], survey.descriptor.shape[1]
    if width:
        left = _fit(np.concatenate([shares, columns[:, :width] - columns[:, :width].mean(axis=0)], axis=1), energy)
    nearest, gaps = _nearest(survey, rows)
    local = left.copy()
    found = (nearest >= 0).sum(axis=1) >= 3
    around = np.where(nearest >= 0, left[nearest], np.nan)
    if found.any():
        local[found] = left[found] - np.nanmedian(around[found], axis=1)
    usual = np.median(gaps[found]) if found.any() else 1.0
    strange = np.where(found, np.clip(gaps / max(usual, 1e-9), 1.0, 10.0), 3.0)
    scale = 1.4826 * np.median(np.abs(local)) + 1e-6
    return Residuals(rows, left, np.abs(local) / (scale * strange), local, _jumps(survey, rows, energy, nearest))


def _fit(columns: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Residuals of least squares that leaves far rows out, round by round."""
    keep = np.ones(len(energy), dtype=bool)
    left = energy - np.median(energy)
    size = np.linalg.norm(columns, axis=0)
    scaled = columns / np.where(size > 0, size, 1.0)
    centre = float(np.median(energy))
    for _ in range(ROUNDS):
        weights, *_ = np.linalg.lstsq(scaled[keep], energy[keep] - centre, rcond=1e-10)
        left = energy - centre - scaled @ weights
        scale = 1.4826 * float(np.median(np.abs(left))) + 1e-9
        new = np.abs(left) < FAR * scale
        if new.sum() < 2 * columns.shape[1] or (new == keep).all():
            break
        keep = new
    return left


def _jumps(
    survey: Survey, rows: np.ndarray, energy: np.ndarray, nearest: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energy differences of near structures, less what a fit of differences by distances explains."""
    one, column = np.nonzero(nearest >= 0)
    other = nearest[one, column]
    keep = np.unique(np.sort(np.stack([one, other], axis=1), axis=1), axis=0)
    if len(keep) > MOST_JUMPS:
        keep = keep[np.random.default_rng(0).choice(len(keep), MOST_JUMPS, replace=False)]
    one, other = keep[:, 0], keep[:, 1]
    rise = energy[one] - energy[other]
    columns = survey.cloud[rows[one]] - survey.cloud[rows[other]]
    if len(rise) > ROWS_PER_COLUMN * survey.descriptor.shape[1]:
        columns = survey.descriptor[rows[one]] - survey.descriptor[rows[other]]
    return one, other, _fit(columns, rise) if len(rise) > 2 * columns.shape[1] else rise


def _nearest(survey: Survey, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the nearest structures of each one's composition, and the median distance to them."""
    near, gaps = np.full((len(rows), NEIGHBOURS), -1), np.full(len(rows), np.nan)
    kinds = survey.kind[rows]
    order = np.argsort(kinds, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1):
        if len(members) < 4:
            continue
        points = survey.cloud[rows[members]]
        points = points + np.random.default_rng(0).normal(0, 1e-9, points.shape)  # copies: not all in one leaf
        count = min(NEIGHBOURS + 1, len(members))
        found, places = map(np.asarray, KDTree(points).query(points, k=count))
        near[members, : count - 1] = members[places[:, 1:]]
        gaps[members] = np.median(found[:, 1:], axis=1)
    return near, gaps
