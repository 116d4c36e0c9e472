"""Energies and forces that stand out, two levels of theory in one source, energies per atom."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.data.doctor.close import broken_rows, close_pairs
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.lengths import units_of
from forgefield.data.doctor.regression import Residuals, residuals
from forgefield.data.doctor.smooth import left_by_others
from forgefield.data.doctor.survey import Survey

SURPRISING, TAIL = 6.0, 3.2  # usual deviations; times what 96 % of the structures stay below
NOTABLE = 0.02  # eV/atom: smaller ones are not told
MOST_OUTLIERS = 0.05
VALLEY, BROAD = 0.15, 1.25  # jumps within this factor of the border, over those beyond it
MINORITY, FEWEST_MIXED = 0.05, 40
ROUNDS, SMOOTH = 10, 8.0  # of the sorting into two groups; neighbours that count as much as a fit of all
PER_ATOM = 0.1
FORCE_FACTOR, FORCE_LEAST = 6.0, 5.0  # times the next usual, eV/Å
UNSQUEEZED = 0.75
STRAINED = 10.0  # times the usual deviation that strong forces or stress may explain at most
HARDEST, STEEPEST = 90.0, 0.1  # eV/Å², of any bond; Å: an energy over the force of the steepest wall


def examine(survey: Survey) -> Iterator[Finding]:
    """Judge every source on its own."""
    for part, level, rows in survey.sources:
        where = survey.title(part, level)
        if units_of(survey, rows) is not None:
            continue
        each = list(_per_atom(survey, where, rows))
        yield from each
        if each:
            survey.memory[f"unit of energy {part} {level}"] = True
        sound = not each and f"unit of energy {part} {level}" not in survey.memory
        found = residuals(survey, rows) if sound else None
        mixed = np.zeros(0, dtype=np.int64)
        if found is not None:
            mixed, step = _second_group(survey, found)
            if mixed.size:
                text = (
                    f"{where}: energies of {len(mixed)} of {len(found.rows)} structures lie about {step:.3g} "
                    "eV/atom apart from those of structures like them: two levels of theory in one source?"
                )
                mend = "give each level its own file and data.head_key, or leave one out"
                yield Finding("mixed_theory", "severe", text, survey.places(found.rows[mixed]), mend)
            yield from _spikes(survey, where, rows[survey.atoms[rows] > 1], found, mixed)
        yield from _strong(survey, where, rows, found)


def _per_atom(survey: Survey, where: str, rows: np.ndarray) -> Iterator[Finding]:
    """Energies per atom do not grow with the number of atoms."""
    rows = rows[np.isfinite(survey.energy[rows])]
    atoms = survey.atoms[rows].astype(np.float64)
    if len(rows) < 10 or np.std(np.log(atoms)) < 0.1:
        return
    shares, energy = survey.composition[rows] / atoms[:, None], survey.energy[rows]
    if np.std(energy) < 1e-9:
        return
    whole, each = (_spread(shares, energy / atoms), _spread(shares, energy))
    if each < PER_ATOM * whole:
        text = f"{where}: energies do not grow with the number of atoms ({int(atoms.min())} to {int(atoms.max())})"
        mend = "multiply the energies by the number of atoms, or data.energy_per: atom"
        yield Finding("energy_per_atom", "severe", f"{text}: they are per atom", (), mend)


def _spread(columns: np.ndarray, values: np.ndarray) -> float:
    """What a fit leaves, over the size of what is fitted."""
    weights, *_ = np.linalg.lstsq(columns, values, rcond=None)
    return float(np.median(np.abs(values - columns @ weights)) / max(np.median(np.abs(values)), 1e-12)) + 1e-9


def _second_group(survey: Survey, found: Residuals) -> tuple[np.ndarray, float]:
    """Places of the smaller of two groups between which energies jump, and the jump; nothing where one group is all."""
    nothing = np.zeros(0, dtype=np.int64), 0.0
    one, other, jumps = found.jumps
    if len(jumps) < 100 or len(found.rows) < FEWEST_MIXED:
        return nothing
    border = _valley(np.abs(jumps))
    if border is None:
        return nothing
    size = len(found.rows)
    up = np.bincount(one, jumps > border, size) + np.bincount(other, jumps < -border, size)
    down = np.bincount(one, jumps < -border, size) + np.bincount(other, jumps > border, size)
    score = np.sign(up - down)
    calm = np.abs(jumps) <= border
    for _ in range(5):  # those without a jump side with the structures like them
        lent = np.bincount(one[calm], score[other[calm]], size) + np.bincount(other[calm], score[one[calm]], size)
        score = np.where(score == 0, np.sign(lent), score)
    score = _settled(survey, found, _lonely(survey, found, score))
    upper, lower = np.flatnonzero(score > 0), np.flatnonzero(score < 0)
    smaller = upper if len(upper) <= len(lower) else lower
    if len(smaller) < max(3, MINORITY * size):
        return nothing
    return smaller, float(np.median(np.abs(jumps)[~calm]))


def _lonely(survey: Survey, found: Residuals, score: np.ndarray) -> np.ndarray:
    """Side of those that have no structure like them: the one on which a fit of the others fits them better."""
    known, lone = np.flatnonzero(score), np.flatnonzero(score == 0)
    columns, energy = _columns(survey, found, score)
    if not len(lone) or len(known) < 2 * columns.shape[1]:
        return score
    weights, *_ = np.linalg.lstsq(columns[known], energy[known], rcond=1e-10)
    left = energy - columns @ weights
    return np.where(score == 0, np.where(left * weights[-1] >= 0, 1.0, -1.0), score)


def _columns(survey: Survey, found: Residuals, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a fit of both groups goes by, the side last, and the energies per atom."""
    n = survey.atoms[found.rows].astype(np.float64)
    shares = survey.composition[found.rows] / n[:, None]
    columns = np.concatenate([shares, survey.cloud[found.rows], score[:, None]], axis=1)
    return columns, survey.energy[found.rows] / n


def _settled(survey: Survey, found: Residuals, score: np.ndarray) -> np.ndarray:
    """Each structure on the side that its energy suits better: beside the structures like it, and in a fit of all."""
    one, other, jumps = found.jumps
    size = len(score)
    for _ in range(ROUNDS):
        across = score[one] * score[other] < 0
        if not across.any():
            break
        half = 0.5 * float(np.median(np.abs(jumps[across])))
        left = _left(survey, found, score, half)
        costs = []
        for side in (1.0, -1.0):
            own = np.abs(jumps - half * (side - score[other]))
            their = np.abs(jumps - half * (score[one] - side))
            votes = np.bincount(one, own, size) + np.bincount(other, their, size)
            costs.append(votes / SMOOTH + np.abs(left - half * side))
        new = np.where(costs[0] < costs[1], 1.0, -1.0)
        if (new == score).all():
            break
        score = new
    return score


def _left(survey: Survey, found: Residuals, score: np.ndarray, half: float) -> np.ndarray:
    """What all others leave of each energy, the gap between the groups included."""
    columns, energy = _columns(survey, found, score)
    flat = energy - half * score
    left = left_by_others(survey.cloud[found.rows], columns[:, : survey.composition.shape[1]], flat)
    if left is None:
        weights, *_ = np.linalg.lstsq(columns[:, :-1], flat, rcond=1e-10)
        left = flat - columns[:, :-1] @ weights
    return left + half * score


def _valley(jumps: np.ndarray) -> float | None:
    """A size that hardly any jump has, though many are smaller and many larger; None without one."""
    ordered = np.sort(jumps)
    best, least = None, VALLEY
    for trial in np.geomspace(NOTABLE, max(ordered[-1], 1.01 * NOTABLE), 80):
        below, low, high = np.searchsorted(ordered, (trial, trial / BROAD, trial * BROAD)) / len(ordered)
        above = 1.0 - below
        if min(above, below) < MINORITY * 1.5:
            continue
        depth = float((high - low) / min(above, below))
        if depth < least:
            best, least = float(trial), depth
    return best


def _spikes(survey: Survey, where: str, rows: np.ndarray, found: Residuals, mixed: np.ndarray) -> Iterator[Finding]:
    surprise = found.surprise / _strain(survey, found)
    border = max(SURPRISING, TAIL * float(np.percentile(surprise, 96)))
    odd = (surprise > border) & (np.abs(found.local) > NOTABLE)
    odd |= np.isin(found.rows, broken_rows(survey, close_pairs(survey, rows)))
    odd[mixed] = False
    if not odd.any() or odd.mean() > MOST_OUTLIERS:
        return
    rows = found.rows[odd]
    most = float(np.abs(found.local[odd]).max())
    text = (
        f"{where}: energies of {len(rows)} structures are up to {most:.3g} eV/atom from those of structures like them"
    )
    mend = "look at these calculations: not converged, another spin state?"
    yield Finding("outlier_energies", "warning", text, survey.places(rows), mend)


def _strain(survey: Survey, found: Residuals) -> np.ndarray:
    """How much higher than usual an energy may lie where forces or stress are strong too."""
    forces = survey.numbers["force_rms"][found.rows]
    stress = np.sqrt((survey.stress[found.rows] ** 2).mean(axis=(1, 2)))
    allowed = np.ones(len(found.rows))
    for size in (forces, stress):
        if np.isfinite(size).any():
            times = np.nan_to_num(size / max(float(np.nanmedian(size)), 1e-3), nan=1.0)
            allowed = np.maximum(allowed, np.clip(times, 1.0, STRAINED))
    return np.where(found.local > 0, allowed, 1.0)


def _strong(survey: Survey, where: str, rows: np.ndarray, found: Residuals | None) -> Iterator[Finding]:
    """Largest forces far beyond those of the rest, without short distances or high energies that would explain them."""
    largest = survey.numbers["force_max"][rows]
    there = np.isfinite(largest)
    if there.sum() < 10:
        return
    usual = float(np.percentile(largest[there], 95))
    odd = there & (largest > np.maximum(FORCE_FACTOR * usual, FORCE_LEAST))
    odd &= survey.numbers["closest"][rows] > UNSQUEEZED * np.median(survey.numbers["closest"][rows])
    if found is not None:
        odd &= ~np.isin(rows, found.rows[_explained(survey, found)])
    if odd.any():
        text = (
            f"{where}: {int(odd.sum())} structures have forces up to {float(largest[odd].max()):.3g} eV/Å, though no "
            f"atoms are squeezed; 95 % of the others stay below {usual:.3g}"
        )
        mend = "look at these calculations, and leave them out"
        yield Finding("outlier_forces", "warning", text, survey.places(rows[odd]), mend)


def _explained(survey: Survey, found: Residuals) -> np.ndarray:
    """Whether an energy is high enough for the largest force, (R,): a bond that pulls so strongly holds that much."""
    force = np.nan_to_num(survey.numbers["force_max"][found.rows])
    needed = force * np.minimum(STEEPEST, force / (2.0 * HARDEST))
    height = np.maximum(found.local, found.value) * survey.atoms[found.rows]
    return (found.surprise > SURPRISING / 3) & (found.local > 0) & (height > needed)


ENTRY = Entry(Settings, examine, "labels that stand out")
