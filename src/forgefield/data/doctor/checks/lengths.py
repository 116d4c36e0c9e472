"""Distances: overlapping and lone atoms, cells that do not fit, positions in bohr or nm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.survey import Survey

OVERLAP = 0.5  # of the sum of covalent radii
MERGED = 0.3  # Å: two atoms in one place
NOBLE = {2, 10, 18, 36, 54, 86}
BOHR_READ_AS_ANGSTROM, ANGSTROM_READ_AS_BOHR, NANOMETRES = (1.55, 2.4), (0.40, 0.64), (0.05, 0.2)


def examine(survey: Survey) -> Iterator[Finding]:
    """Look at the nearest distances of every structure."""
    wrong_unit = np.zeros(len(survey), dtype=bool)
    for part, level, rows in survey.sources:
        found = _unit(survey, rows)
        if found is not None:
            wrong_unit[rows] = True
            ratio, unit = found
            text = (
                f"{survey.title(part, level)}: nearest neighbours are {ratio:.2f} times as far apart as usual bonds: "
                f"positions in {unit}?"
            )
            mend = f"data.length_unit: {'Ang' if unit.startswith('Å') else unit}"
            yield Finding("length_unit", "severe", text, survey.places(rows[:1]), mend)
    yield from _overlaps(survey, ~wrong_unit)
    yield from _lone(survey, ~wrong_unit)


def _unit(survey: Survey, rows: np.ndarray) -> tuple[float, str] | None:
    noble = np.isin(survey.elements, list(NOBLE))
    rows = rows[(survey.atoms[rows] > 1) & (survey.composition[rows][:, noble].sum(axis=1) == 0)]
    typical = survey.numbers["typical"][rows]
    if not len(rows):
        return None
    middle = float(np.median(typical))
    for (low, high), unit in (
        (BOHR_READ_AS_ANGSTROM, "bohr"),
        (ANGSTROM_READ_AS_BOHR, "Å, but read as bohr"),
        (NANOMETRES, "nm"),
    ):
        if low < middle < high and np.mean((typical > low) & (typical < high)) > 0.7:
            return middle, unit
    return None


def _overlaps(survey: Survey, rest: np.ndarray) -> Iterator[Finding]:
    closest, own = survey.numbers["closest"], survey.numbers["closest_own"]
    short = rest & (closest < OVERLAP)
    image = short & (own > np.maximum(1.3 * closest, OVERLAP))
    for name, chosen, text, mend in (
        (
            "overlapping_atoms",
            np.flatnonzero(short & ~image),
            "have atoms closer than half the sum of their covalent radii",
            "forgefield data doctor FILE --fix OUT (leaves them out)",
        ),
        (
            "cell_too_small",
            np.flatnonzero(image),
            "have atoms that overlap with periodic images of others: the cell is too small for its atoms",
            "check the Lattice and data.length_unit; set pbc to F F F for molecules",
        ),
    ):
        if chosen.size:
            least = float(survey.numbers["closest_length"][chosen].min())
            text = f"{len(chosen)} structures {text} (the closest: {least:.3f} Å)"
            yield Finding(name, "severe", text, survey.places(chosen), mend)


def _lone(survey: Survey, rest: np.ndarray) -> Iterator[Finding]:
    many = survey.atoms > 1
    lone = np.flatnonzero(rest & many & (survey.numbers["loneliest"] > survey.cutoff))
    if lone.size:
        text = (
            f"{len(lone)} structures have an atom without any neighbour within {survey.cutoff:g} Å: a model sees it as "
            "free, and the structure may have flown apart"
        )
        yield Finding("lone_atoms", "warning", text, survey.places(lone), "check these frames; or raise model.cutoff")


ENTRY = Entry(Settings, examine, "atoms too close or too far apart")
