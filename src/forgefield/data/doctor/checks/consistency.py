"""Do energies and forces belong together, and in which units are they? Bonds, close frames, atoms' total energies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.core.units import BOHR, HARTREE, KCAL_PER_MOL, KJ_PER_MOL
from forgefield.data.doctor.atoms import all_electron
from forgefield.data.doctor.close import Work, agreeing, close_pairs, weighted_slope
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.geometry import Bonds, spring
from forgefield.data.doctor.lengths import units_of
from forgefield.data.doctor.survey import Survey

HYDROGEN = {6: 31.0, 7: 42.0, 8: 48.0}
"""Usual spring constants of bonds with hydrogen by the other element, eV/Å²."""
AGREES = 0.5
STIFF, SOFT = 12.0, 0.06  # times the usual constant: beyond, the unit is wrong
HARDEST, HARDEST_HEAVY = 90.0, 25.0  # eV/Å², of any bond; of bonds between atoms beyond neon
SAME_ENERGY = 0.02
EXACT, CLEAR, VAGUE = 0.25, 0.5, 0.85  # misfits of close frames
NAMED = 0.7  # of the logarithm of a factor: units farther from what was measured are not named
MOST_PER_ATOM = 20.0  # eV: binding energies and valence energies of plane wave codes lie below

ENERGY_UNITS = {"Ha": HARTREE, "kcal/mol": KCAL_PER_MOL, "kJ/mol": KJ_PER_MOL, "meV": 1e-3}
FORCE_UNITS = {
    "Ha/bohr": HARTREE / BOHR,
    "Ha/Ang": HARTREE,
    "kcal/mol/Ang": KCAL_PER_MOL,
    "kJ/mol/Ang": KJ_PER_MOL,
    "eV/bohr": 1.0 / BOHR,
    "meV/Ang": 1e-3,
    "kcal/mol/bohr": KCAL_PER_MOL / BOHR,
    "kJ/mol/nm": KJ_PER_MOL / 10.0,
}


class Bonding(NamedTuple):
    """What bonds say about the forces.

    Args:
        ratio: spring constants of bonds with hydrogen over the usual ones; NaN without such bonds.
        sign: -1 where most bonds push the wrong way, 1 where the right way, 0 unknown.
        hardest: whether a bond is harder than any real one.
    """

    ratio: float
    sign: int
    hardest: bool


def examine(survey: Survey) -> Iterator[Finding]:
    """Judge every source on its own."""
    for part, level, rows in survey.sources:
        rows = rows[survey.atoms[rows] > 1]
        if len(rows) and units_of(survey, rows) is None:
            found = list(_judge(survey, part, level, rows))
            if any(f.name in ("energy_unit", "energy_per_atom") for f in found):
                survey.memory[f"unit of energy {part} {level}"] = True
            yield from found


def _judge(survey: Survey, part: str, level: str, rows: np.ndarray) -> Iterator[Finding]:
    where = survey.title(part, level)
    bonding = look_at_bonds(survey.bonds[part, level])
    work = close_pairs(survey, rows)
    still = np.abs(work.strain).max(axis=(1, 2)) < 1e-3
    slope, left = weighted_slope(work.rise[still], work.by_forces[still])
    count = int(np.isfinite(work.rise[still] * work.by_forces[still]).sum())
    sure = (left < CLEAR and count >= 16) or (left < VAGUE and count >= 60)
    sure = sure and agreeing(work.rise[still], work.by_forces[still])
    unit, why = _energy_unit(survey, rows)
    named = set[str]()
    if unit is not None:
        named.add(unit[0])
        yield _unit_of_energy(where, *unit, why, survey, rows)
    off = _force_factor(bonding)
    turned = bonding.sign < 0 or (bonding.sign == 0 and sure and left < CLEAR and slope < 0)
    if turned:
        what = "bonds pull atoms apart when stretched" if bonding.sign < 0 else "energies rise along the forces"
        text = f"{where}: {what}, so forces have the opposite sign: they are gradients of the energy"
        yield Finding("forces_sign", "severe", text, (), f"{_minus_one()}")
    if off is not None:
        text = f"{where}: bonds with hydrogen are {bonding.ratio:.3g} times as stiff as they should be"
        yield _unit_of_forces(text, off)
    if sure and np.isfinite(slope) and slope != 0:
        yield from _slope_findings(
            survey, where, rows, abs(slope), left, off, bonding, "energy_unit" in named or bool(named)
        )
    if not named and not turned and off is None and sure and left < CLEAR:
        yield from _misfits(survey, where, work, still)


def look_at_bonds(bonds: Bonds) -> Bonding:
    """Return what the bonds of a source say."""
    ratios, signs, hard = [], [], []
    for (light, heavy), sums in bonds.items():
        found = spring(sums)
        if found is None or abs(found.agreement) < AGREES:
            continue
        if light == 1 and heavy in HYDROGEN:
            ratios.append(found.constant / HYDROGEN[heavy])
        if found.count >= 100 and found.force > 0.1:
            signs.append((np.sign(found.constant), sums[0]))
        hard.append(abs(found.constant) > (HARDEST_HEAVY if light > 10 else HARDEST))
    weight = sum(n for _, n in signs)
    mean = sum(s * n for s, n in signs) / weight if weight else 0.0
    return Bonding(
        float(np.median(np.abs(ratios))) if ratios else np.nan, int(np.sign(mean)) if abs(mean) > 0.6 else 0, any(hard)
    )


def _force_factor(bonding: Bonding) -> float | None:
    """How many times too large the forces are by their bonds, or None where they look right."""
    ratio = bonding.ratio
    return ratio if np.isfinite(ratio) and (ratio > STIFF or ratio < SOFT) else None


def _energy_unit(survey: Survey, rows: np.ndarray) -> tuple[tuple[str, str] | None, str]:
    """Compare total energies with those of free atoms with all their electrons: (finding, unit), and why."""
    rows = rows[np.isfinite(survey.energy[rows])]
    if not len(rows):
        return None, ""
    expected = survey.composition[rows] @ np.array([all_electron(z) for z in survey.elements])
    ratio = survey.energy[rows] / expected
    for name, size in ENERGY_UNITS.items():
        if np.mean(np.abs(ratio * size - 1.0) < SAME_ENERGY) > 0.8 and not (survey.atoms[rows] == 1).all():
            why = f"{np.median(ratio):.4g} times the energy of the free atoms in eV"
            if name == "Ha" and np.mean(np.abs(ratio * survey.atoms[rows] - 1.0) < SAME_ENERGY) > 0.8:
                why += "; they may also be per atom, of 27 atoms"
            return ("energy_unit", name), why
    if np.mean(np.abs(ratio * survey.atoms[rows] - 1.0) < SAME_ENERGY) > 0.8 and np.median(survey.atoms[rows]) > 1.5:
        return ("energy_per_atom", "atom"), f"{np.median(ratio):.4f} of the free atoms' energies, one over the atoms"
    return None, ""


def _unit_of_energy(where: str, name: str, unit: str, why: str, survey: Survey, rows: np.ndarray) -> Finding:
    if name == "energy_per_atom":
        mend = "multiply the energies by the number of atoms, or data.energy_per: atom"
        return Finding(name, "severe", f"{where}: energies seem to be per atom ({why})", (), mend)
    text = f"{where}: energies seem to be in {unit}, not in eV ({why})"
    return Finding(name, "severe", text, (), f"data.energy_unit: {unit}")


def _slope_findings(
    survey: Survey,
    where: str,
    rows: np.ndarray,
    slope: float,
    left: float,
    off: float | None,
    bonding: Bonding,
    known: bool,
) -> Iterator[Finding]:
    """Energies over forces are `slope` times what they should be."""
    allowed = 0.3 if left < EXACT else (1.0 if left < CLEAR else 1.8)
    energies = slope * (off or 1.0)  # how many times too large the energies are, if the bonds are right about forces
    if abs(np.log(slope)) < allowed or known or (off is not None and abs(np.log(energies)) < max(allowed, 0.8)):
        return
    rows = rows[np.isfinite(survey.energy[rows])]
    odd_energy = np.median(np.abs(survey.energy[rows] / survey.atoms[rows])) > MOST_PER_ATOM and slope > 1
    n = float(np.median(survey.atoms[rows]))
    known_unit = abs(np.log(slope * HARTREE)) < abs(np.log(slope * n))
    forces_fine = np.isfinite(bonding.ratio) and off is None
    if slope < 1 and off is None and abs(np.log(slope * n)) < 0.1 + 0.3 * left and not (bonding.hardest or known_unit):
        text = f"{where}: energy differences are 1/{1 / slope:.1f} of those the forces foretell: per atom ({n:g} atoms)"
        yield Finding("energy_per_atom", "severe", text, (), "data.energy_per: atom")
    elif (forces_fine or odd_energy or off is not None) and not bonding.hardest:
        text = f"{where}: energy differences are {energies:.3g} times those the forces foretell"
        yield _named("energy_unit", text, "energies", "energy_unit", units_near(energies, ENERGY_UNITS))
    else:
        text = f"{where}: forces are {1 / slope:.3g} times what energy differences of close frames say"
        yield _unit_of_forces(text, 1 / slope)


def _misfits(survey: Survey, where: str, work: Work, still: np.ndarray) -> Iterator[Finding]:
    """Close frames that do not obey the rule which the others obey."""
    follow = still & np.isfinite(work.rise) & np.isfinite(work.by_forces) & (work.stretch < 0.1)
    if follow.sum() < 20:
        return
    error = np.abs(work.rise[follow] - work.by_forces[follow])
    scale = np.maximum(np.abs(work.by_forces[follow]), 3.0 * np.median(error)) + 2e-3
    bad = error / scale > 5.0
    if 0 < bad.sum() <= 0.5 * follow.sum():
        rows, times = np.unique(work.rows[follow][bad], return_counts=True)
        pairs = np.unique(work.rows[follow])
        chosen = rows[times >= 2] if (times >= 2).any() else rows
        text = (
            f"{where}: {int(bad.sum())} of {int(follow.sum())} close pairs of frames differ in energy by far more than "
            f"their forces foretell ({len(pairs)} frames compared)"
        )
        yield Finding(
            "energy_force_mismatch", "warning", text, survey.places(chosen), "look at these frames; leave them out"
        )


def units_near(measured: float, table: Mapping[str, float]) -> list[str]:
    """Return the units in which a number would be about `measured` times its value in eV (and Å), the closest first."""
    gaps = {name: abs(np.log(measured * size)) for name, size in table.items()}
    return sorted((name for name in gaps if gaps[name] < NAMED), key=lambda name: gaps[name])


def _unit_of_forces(text: str, measured: float) -> Finding:
    return _named("forces_unit", text, "forces", "forces_unit", units_near(measured, FORCE_UNITS))


def _named(name: str, text: str, what: str, key: str, units: list[str]) -> Finding:
    """A finding that names the units that fit, or says that none does."""
    if not units:
        mend = f"find out in which unit the {what} were written: data.{key}; or they belong to other structures"
        return Finding(name, "severe", f"{text}, which fits no unit that is known here", (), mend)
    told = " or ".join(units)
    return Finding(name, "severe", f"{text}: {what} in {told}?", (), f"data.{key}: {told}")


def _minus_one() -> str:
    return "multiply the forces by -1, or read another key: data.forces_key"


ENTRY = Entry(Settings, examine, "units and signs of energies and forces")
