"""Energies and forces that stand out, two levels of theory in one source, energies per atom."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.regression import Residuals, residuals
from forgefield.data.doctor.survey import Survey

SURPRISING = 15.0  # usual deviations
NOTABLE = 0.02  # eV/atom: smaller ones are not told
MOST_OUTLIERS = 0.05
GAP = 4.0  # largest over smallest, of neighbours' differences
MINORITY = 0.03
PER_ATOM = 0.1
FORCE_FACTOR, FORCE_LEAST = 6.0, 5.0  # times the next usual, eV/Å
UNSQUEEZED = 0.75


def examine(survey: Survey) -> Iterator[Finding]:
    """Judge every source on its own."""
    for part, level, rows in survey.sources:
        where = survey.title(part, level)
        yield from _per_atom(survey, where, rows)
        found = residuals(survey, rows)
        mixed = np.zeros(0, dtype=np.int64)
        if found is not None:
            mixed, step = _second_group(found)
            if mixed.size:
                text = (
                    f"{where}: the energies of {len(mixed)} of {len(found.rows)} structures lie about {step:.3g} eV/atom "
                    "apart from those of structures like them: two levels of theory, or two settings, in one source?"
                )
                mend = "give each level its own file and data.head_key, or leave one out"
                yield Finding("mixed_theory", "severe", text, survey.places(found.rows[mixed]), mend)
            yield from _spikes(survey, where, found, mixed)
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
        yield Finding("energy_per_atom", "severe", f"{text}: they are per atom", survey.places(rows[:1]), mend)


def _spread(columns: np.ndarray, values: np.ndarray) -> float:
    """What a fit leaves, over the size of what is fitted."""
    weights, *_ = np.linalg.lstsq(columns, values, rcond=None)
    return float(np.median(np.abs(values - columns @ weights)) / max(np.median(np.abs(values)), 1e-12)) + 1e-9


def _second_group(found: Residuals) -> tuple[np.ndarray, float]:
    """Places of the smaller of two groups between which energies jump, and the jump; nothing where there is one group."""
    near = found.nearest[:, :4]
    there = near >= 0
    if there.sum() < 20:
        return np.zeros(0, dtype=np.int64), 0.0
    jumps = np.abs(found.value[:, None] - found.value[near])[there]
    order = np.sort(jumps)
    low, high = int(0.4 * len(order)), int((1.0 - MINORITY) * len(order))
    ratio = order[low + 1 : high + 1] / np.maximum(order[low:high], 1e-7)
    at = low + int(ratio.argmax())
    small, large = float(order[at]), float(order[at + 1])
    if large < GAP * max(small, 1e-4) or large < NOTABLE:
        return np.zeros(0, dtype=np.int64), 0.0
    members = _minority(found, 0.5 * (small + large))
    if members.size < max(3, MINORITY * len(found.rows)):
        return np.zeros(0, dtype=np.int64), 0.0
    return members, float(np.median(order[at + 1 :]))


def _minority(found: Residuals, border: float) -> np.ndarray:
    """Walk from neighbour to neighbour; the side changes where the energy jumps. The smaller side is returned."""
    side = np.zeros(len(found.rows), dtype=np.int8)
    for start in range(len(side)):
        if side[start]:
            continue
        side[start], stack = 1, [start]
        component = [start]
        while stack:
            here = stack.pop()
            for other in found.nearest[here, :4].tolist():
                if other >= 0 and not side[other]:
                    same = abs(found.value[here] - found.value[other]) < border
                    side[other] = side[here] if same else 3 - side[here]
                    stack.append(other)
                    component.append(other)
        first = np.array(component)
        if (side[first] == 2).sum() * 2 > len(first):
            side[first] = 3 - side[first]
    return np.flatnonzero(side == 2)


def _spikes(survey: Survey, where: str, found: Residuals, mixed: np.ndarray) -> Iterator[Finding]:
    odd = (found.surprise / _strain(survey, found) > SURPRISING) & (np.abs(found.local) > NOTABLE)
    odd[mixed] = False
    if not odd.any() or odd.mean() > MOST_OUTLIERS:
        return
    rows = found.rows[odd]
    most = float(np.abs(found.local[odd]).max())
    text = f"{where}: the energies of {len(rows)} structures are up to {most:.3g} eV/atom from what structures like them have"
    mend = "look at these calculations (not converged, another spin state?); forgefield data doctor FILE --fix OUT"
    yield Finding("outlier_energies", "warning", text, survey.places(rows), mend)


def _strain(survey: Survey, found: Residuals) -> np.ndarray:
    """How much higher than usual an energy may lie where forces are strong too: as the square of the forces."""
    forces = survey.numbers["force_rms"][found.rows]
    if not np.isfinite(forces).any():
        return np.ones(len(forces))
    times = np.nan_to_num(forces / max(float(np.nanmedian(forces)), 1e-3), nan=1.0)
    return np.where(found.local > 0, np.clip(times**2, 1.0, 100.0), 1.0)


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
        high = found.rows[(found.surprise > SURPRISING / 3) & (found.local > 0)]
        odd &= ~np.isin(rows, high)
    if odd.any():
        text = (
            f"{where}: {int(odd.sum())} structures have forces up to {float(largest[odd].max()):.3g} eV/Å, though no atoms "
            f"are squeezed; 95 % of the others stay below {usual:.3g}"
        )
        mend = "look at these calculations; forgefield data doctor FILE --fix OUT (leaves them out)"
        yield Finding("outlier_forces", "warning", text, survey.places(rows[odd]), mend)


ENTRY = Entry(Settings, examine, "labels that stand out")
