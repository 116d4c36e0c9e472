"""Delta-learning in words and tables: the base alone beside the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from forgefield.app.reports.contents import Contents
from forgefield.app.reports.markup import card, milli, significant, table

FIGURES = (
    ("energy RMSE per atom", "energy_rmse_per_atom", "meV"),
    ("force RMSE", "forces_rmse", "meV/Å"),
    ("stress RMSE", "stress_rmse", "meV/Å³"),
)


def baseline_rows(name: str, metrics: Mapping[str, Any], level: str) -> list[tuple[str, str]]:
    """Return the line of the summary that tells the errors of the base alone."""
    alone = metrics.get("baseline")
    if not alone:
        return []
    parts = [f"{what} {milli(alone[key])} {unit}" for what, key, unit in FIGURES if alone.get(key) is not None]
    label = "validation" if name == "val" else name
    return [(f"{label}: base alone", f"{level}: {', '.join(parts)}")] if parts else []


def baseline_card(contents: Contents) -> str:
    """Return the errors of the base alone beside those of base and correction, for every evaluated set."""
    rows = []
    for one in contents.evaluated:
        alone = one.metrics.get("baseline") or {}
        for what, key, unit in FIGURES:
            before, after = alone.get(key), one.overall.get(key)
            if before is None or after is None:
                continue
            left = f"{significant(100 * after / before, 2)} %" if before else "\N{EN DASH}"
            rows.append([escape(one.name), f"{what}, {unit}", milli(before), milli(after), left])
    if not rows:
        return ""
    levels = [one.metrics.get("about", {}).get("baseline") for one in contents.evaluated]
    level = escape(next((str(name) for name in levels if name), "the base"))
    note = (
        "The model gives a correction to a cheaper level of theory; all errors in this report are of both together. "
        "Energies of the base alone are taken with the model's reference energies."
    )
    head = ["set", "", f"{level} alone", "with the correction", "left"]
    return card("What the correction is worth", table(head, rows, numeric=(2, 3, 4)), note)


def composition_part(energies: np.ndarray, numbers: Sequence[np.ndarray]) -> np.ndarray:
    """Return the part of energies, (S,), eV, that a sum over the atoms of each structure explains, by least squares."""
    elements = np.unique(np.concatenate(list(numbers)))
    counts = np.array([[np.count_nonzero(z == e) for e in elements] for z in numbers], dtype=np.float64)
    return counts @ np.linalg.lstsq(counts, energies, rcond=None)[0]
