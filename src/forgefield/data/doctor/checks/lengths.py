"""Distances: overlapping and lone atoms, cells that do not fit, positions in bohr or nm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.lengths import units_of
from forgefield.data.doctor.survey import Survey, by_value

OVERLAP = 0.5  # of the sum of covalent radii
IMAGE_OVERLAP = 0.6  # the same, of images
DENSE, WIDE = 0.72, 1.1  # volume over the usual one; spread of the atoms over the cell's length
DENSER, BEYOND = 0.8, 0.88  # volume, where the closest image is nearer than this times the closest atoms of the cell
SQUEEZED, FAR_BEYOND = 0.72, 0.75  # of the sum of covalent radii, of the closest atoms of the cell


def examine(survey: Survey) -> Iterator[Finding]:
    """Look at the nearest distances of every structure."""
    wrong_unit = np.zeros(len(survey), dtype=bool)
    for part, level, rows in survey.sources:
        found = units_of(survey, rows)
        if found is not None:
            wrong_unit[rows] = True
            ratio, unit = found
            text = (
                f"{survey.title(part, level)}: nearest neighbours are {ratio:.2f} times as far apart as usual bonds: "
                f"positions in {unit}?"
            )
            mend = f"data.length_unit: {'Ang' if unit.startswith('Å') else unit}"
            yield Finding("length_unit", "severe", text, (), mend)
    yield from _overlaps(survey, ~wrong_unit)
    yield from _lone(survey, ~wrong_unit)


def _overlaps(survey: Survey, rest: np.ndarray) -> Iterator[Finding]:
    closest, own = survey.numbers["closest"], survey.numbers["closest_own"]
    short = rest & (closest < OVERLAP)
    image = rest & (closest < IMAGE_OVERLAP) & (own > np.maximum(1.3 * closest, OVERLAP))
    image |= rest & _too_dense(survey)
    for name, chosen, text, mend in (
        (
            "overlapping_atoms",
            np.flatnonzero(short & ~image),
            "have atoms closer than half the sum of their covalent radii",
            "forgefield data doctor FILE --fix clean.xyz (leaves them out)",
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


def _too_dense(survey: Survey) -> np.ndarray:
    """Whether a cell is smaller than those of its formula, and its atoms are not: they reach beyond it, or images do.

    In a crystal that is compressed as a whole, atoms of one cell come closer as their images do. Returns (S,).
    """
    share = _share(survey)
    closest, own, wide = survey.numbers["closest"], survey.numbers["closest_own"], survey.numbers["width"] > WIDE
    apart = np.isfinite(own)
    found = wide & (share < DENSE)
    found |= wide & (share < DENSER) & apart & (closest < BEYOND * own)
    return found | ((share < DENSE) & apart & (closest < SQUEEZED) & (closest < FAR_BEYOND * own))


def _share(survey: Survey) -> np.ndarray:
    """Volume per atom over the median of those of the same formula, (S,); NaN without a volume."""
    share = np.full(len(survey), np.nan)
    formulas = survey.composition // np.gcd.reduce(survey.composition, axis=1)[:, None]
    codes = np.unique(formulas, axis=0, return_inverse=True)[1].reshape(-1)
    filled = np.flatnonzero(survey.volume > 0)
    for places in by_value(codes[filled]):
        rows = filled[places]
        each = survey.volume[rows] / survey.atoms[rows]
        share[rows] = each / np.median(each)
    return share


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
