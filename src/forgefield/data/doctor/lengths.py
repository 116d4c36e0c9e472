"""The unit of lengths, guessed from the nearest distances."""

from __future__ import annotations

import numpy as np

from forgefield.data.doctor.survey import Survey

NOBLE = {2, 10, 18, 36, 54, 86}
BOHR_READ_AS_ANGSTROM, ANGSTROM_READ_AS_BOHR, NANOMETRES = (1.55, 2.4), (0.40, 0.64), (0.05, 0.2)


def units_of(survey: Survey, rows: np.ndarray) -> tuple[float, str] | None:
    """Return the nearest distances over usual bonds, and the unit they are in; None where it is Å."""
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
