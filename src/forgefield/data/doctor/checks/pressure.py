"""Stress: its sign, unit and order, from energies of strained cells."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.core.units import GPA
from forgefield.data.doctor.close import Work, close_pairs, weighted_slope
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.lengths import units_of
from forgefield.data.doctor.survey import Survey

CLEAR = 0.5  # misfit: below, a reading explains the energies
BETTER = 0.6  # of the misfit of the file's own order
TOLERANCE = 0.35  # of the logarithm of a factor
FEWEST = 5
STRAINED = 1e-3
PLAIN = ((1, 2), (0, 2), (0, 1))  # yz, xz, xy
ORDERS = {perm: " ".join(("yz", "xz", "xy")[k] for k in perm) for perm in permutations(range(3))}
SIZES = {"eV/Ang^3": 1.0, "GPa": GPA, "kbar": GPA / 10.0}


class Reading(NamedTuple):
    """One way to understand the stress: order of its off-diagonal components, virial or not; slope and misfit."""

    order: tuple[int, ...]
    virial: bool
    slope: float
    left: float


def examine(survey: Survey) -> Iterator[Finding]:
    """Judge every source on its own."""
    for part, level, rows in survey.sources:
        if np.isfinite(survey.stress[rows]).all(axis=(1, 2)).sum() >= FEWEST:
            if units_of(survey, rows) is not None or f"unit of energy {part} {level}" in survey.memory:
                continue
            work = close_pairs(survey, rows[survey.atoms[rows] > 1])
            yield from _judge(survey, survey.title(part, level), rows, work)


def _judge(survey: Survey, where: str, rows: np.ndarray, work: Work) -> Iterator[Finding]:
    strained = (np.abs(work.strain).max(axis=(1, 2)) > STRAINED) & np.isfinite(work.stress).all(axis=(1, 2))
    rise = work.rise - np.nan_to_num(work.by_forces)
    strained &= np.isfinite(rise)
    if strained.sum() < FEWEST:
        return
    plain = _read(work, rise, strained, (0, 1, 2), virial=False)
    best = plain
    for order in ORDERS:
        for virial in (False, True):
            trial = _read(work, rise, strained, order, virial=virial)
            if trial.left < BETTER * best.left:
                best = trial
    if best.left > CLEAR or not np.isfinite(best.slope):
        return
    first = ()
    if best.order != (0, 1, 2):
        order = ORDERS[best.order]
        text = f"{where}: energies of strained cells fit the stress only if its off-diagonal components are {order}"
        mend = "reorder the six components: ForgeField reads xx yy zz yz xz xy; VASP writes xx yy zz xy yz zx"
        yield Finding("stress_order", "severe", text, first, mend)
    yield from _size(
        where, best, first, _modulus(work, strained), float(np.median(survey.volume[rows])), work, rise, strained
    )


def _read(work: Work, rise: np.ndarray, chosen: np.ndarray, order: tuple[int, ...], *, virial: bool) -> Reading:
    stress = work.stress[chosen].copy()
    off = np.array([stress[:, i, j] for i, j in PLAIN])
    for place, (i, j) in enumerate(PLAIN):
        stress[:, i, j] = stress[:, j, i] = off[order.index(place)]
    foretold = (stress * work.strain[chosen]).sum(axis=(1, 2))
    if not virial:
        foretold = foretold * work.volume[chosen]
    slope, left = weighted_slope(rise[chosen], foretold)
    return Reading(order, virial, slope, left)


def _modulus(work: Work, chosen: np.ndarray) -> float:
    """How the pressure follows the volume, GPa, read as eV/Å^3; NaN where volumes do not change."""
    grown = np.trace(work.strain[chosen], axis1=1, axis2=2)
    pressed = np.trace(work.stress_rise[chosen], axis1=1, axis2=2) / 3.0
    good = np.abs(grown) > STRAINED
    if good.sum() < FEWEST:
        return np.nan
    return float(np.median(pressed[good] / grown[good])) / GPA


def _size(
    where: str,
    best: Reading,
    first: tuple,
    modulus: float,
    volume: float,
    work: Work,
    rise: np.ndarray,
    chosen: np.ndarray,
) -> Iterator[Finding]:
    """The stress is 1/slope times what it should be."""
    virial, slope = best.virial, best.slope
    other = _read(work, rise, chosen, best.order, virial=not virial)
    if other.left < 1.2 * best.left + 0.05:  # volumes are alike: a virial looks like a factor
        virial, slope = min((virial, slope), (other.virial, other.slope), key=lambda way: _strangeness(*way))
    unit, off = _unit(1.0 / slope)
    if virial:
        sign = "" if slope < 0 else "; data.stress_sign: vasp"
        text = f"{where}: energies of strained cells fit if the stress is a virial, an energy (volume {volume:.0f} Å^3)"
        yield Finding("stress_is_virial", "severe", text, first, f"data.stress_quantity: virial{sign}")
        return
    if slope < 0:
        text = f"{where}: energies of strained cells fall where the stress says they rise: its sign is opposite"
        yield Finding("stress_sign", "severe", text, first, "data.stress_sign: vasp")
    if abs(np.log(abs(slope))) > TOLERANCE:
        implausible = not 0.2 < abs(modulus) < 1500.0 if np.isfinite(modulus) else off < TOLERANCE
        size = f"{abs(1 / slope):.3g} times what energies of strained cells say"
        whose = f": {unit}?" if off < TOLERANCE else ""
        if implausible or off < TOLERANCE:
            yield Finding(
                "stress_unit", "severe", f"{where}: the stress is {size}{whose}", first, f"data.stress_unit: {unit}"
            )
        else:
            text = f"{where}: the stress is {size}, yet of a usual size ({modulus:.0f} GPa): the energies are wrong"
            yield Finding("energy_unit", "severe", text, first, "check data.energy_unit")


def _strangeness(virial: bool, slope: float) -> float:
    """By how much (log) a slope misses what it should be: one of the units, or 1 for a virial."""
    if not np.isfinite(slope) or slope == 0:
        return np.inf
    return abs(np.log(abs(slope))) if virial else _unit(1.0 / slope)[1]


def _unit(measured: float) -> tuple[str, float]:
    """The unit in which a stress would be `measured` times its value in eV/Å^3, and by how much it misses (log)."""
    if not np.isfinite(measured) or measured == 0:
        return "eV/Ang^3", np.inf
    gaps = {name: abs(np.log(abs(measured) * size)) for name, size in SIZES.items()}
    unit = min(gaps, key=lambda name: gaps[name])
    return unit, float(gaps[unit])


ENTRY = Entry(Settings, examine, "sign, unit and order of the stress")
