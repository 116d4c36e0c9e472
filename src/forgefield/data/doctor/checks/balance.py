"""Forces that do not cancel: no energy gives them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.survey import Survey

FORCE = (0.02, 0.1)  # eV/Å, and times the root mean square force
TORQUE = (0.03, 0.04)  # of 728 frames of 3BPA and ethanol none is above 0.0011 and 0.0008


def examine(survey: Survey) -> Iterator[Finding]:
    """Look at the sum of the forces, and of a free molecule at their torque."""
    table = survey.numbers
    free = (survey.atoms > 1) & (table["n_fixed"] == 0)
    forced = free & (table["net_force"] > np.maximum(FORCE[0], FORCE[1] * table["force_rms"]))
    if forced.any():
        rows = np.flatnonzero(forced)
        text = (
            f"the forces of {len(rows)} structures do not sum to zero (up to "
            f"{float(table['net_force'][rows].max()):.3g} eV/Å per square root of the atoms)"
        )
        mend = "check these frames: an external field, a mixed-up order of atoms, or forces that are not converged"
        yield Finding("net_force", "warning", text, survey.places(rows), mend)
    turned = free & ~survey.periodic & (table["net_torque"] > np.maximum(TORQUE[0], TORQUE[1] * table["force_rms"]))
    rows = np.flatnonzero(turned & ~forced)
    if rows.size:
        text = f"the forces of {len(rows)} molecules turn them as a whole: positions and forces are not of one frame"
        mend = "check whether forces were rotated, or belong to another order of the atoms"
        yield Finding("net_torque", "warning", text, survey.places(rows), mend)


ENTRY = Entry(Settings, examine, "net force and torque")
