"""The charts of the report: learning curves, parity, and how errors are distributed."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from forgefield.app.reports.contents import Contents, Predictions
from forgefield.app.reports.markup import card, significant
from forgefield.app.reports.plot import Axis, Chart, axis_over
from forgefield.app.tasks.steps.further import names_in, unit_of
from forgefield.core.units import factor

MANY = 700
"""Above so many points a scatter chart becomes shaded cells."""
LEVEL_STYLES = ("a", "b", "c", "d", "e", "f")
"""Colours of the lines of so many levels of theory; more are told in the table alone."""
GPA_PER_UNIT = 1.0 / factor("stress", "GPa")
"""GPa in one eV/Å^3."""


def learning_curves(contents: Contents) -> list[str]:
    """Return cards with the loss, the validation errors and the learning rate as training went on."""
    name, x = _progress(contents)
    if len(x) == 0:
        return []
    rows = [k for k, row in enumerate(contents.history) if row.get("best")]
    axis = Axis(name, float(x.min()) - 0.5, float(x.max()) + 0.5, whole=True)
    best = float(x[rows[-1]]) if rows else None
    lines = [("a", "training", contents.series("train_loss")), ("b", "validation", contents.series("val_loss"))]
    cards = [_curve_card("Loss", "loss", axis, x, lines, best)]
    for title, column, unit, factor_ in (
        ("Validation force error", "val_forces_{}", "meV/Å", 1e3),
        ("Validation energy error", "val_energy_{}_per_atom", "meV per atom", 1e3),
        ("Validation stress error", "val_stress_{}", "GPa", GPA_PER_UNIT),
    ):
        kinds = [("b", "RMSE", column.format("rmse")), ("c", "MAE", column.format("mae"))]
        lines = [(style, kind, factor_ * contents.series(key)) for style, kind, key in kinds]
        cards.append(_curve_card(title, unit, axis, x, lines, best))
    cards += [_target_curve(contents, name, axis, x, best) for name in names_of_history(contents.history)]
    cards += _level_curves(contents, axis, x, best)
    rate = contents.series("lr")
    if len(np.unique(rate[np.isfinite(rate)])) > 1:
        cards.append(_curve_card("Learning rate", "learning rate", axis, x, [("a", "", rate)], None))
    return [made for made in cards if made]


def names_of_history(history: list[dict[str, Any]]) -> list[str]:
    """Return the quantities beside energy, forces and stress that were validated."""
    last = {key.removeprefix("val_"): value for key, value in history[-1].items() if key.startswith("val_")}
    return [name for name in names_in(last) if not name.startswith(("energy", "forces", "stress"))]


def _target_curve(contents: Contents, name: str, axis: Axis, x: np.ndarray, best: float | None) -> str:
    """Return the validation error of one more quantity."""
    kinds = [("b", "RMSE", f"val_{name}_rmse"), ("c", "MAE", f"val_{name}_mae")]
    lines = [(style, kind, contents.series(key)) for style, kind, key in kinds]
    units = contents.judged.metrics.get("about", {}).get("units", {}) if contents.judged else {}
    return _curve_card(f"Validation error of {escape(name)}", unit_of(name, units) or "error", axis, x, lines, best)


def _level_curves(contents: Contents, axis: Axis, x: np.ndarray, best: float | None) -> list[str]:
    """Return the validation errors of each level of theory, where there are several."""
    rows = [row for row in contents.breakdown if row.get("group") == "head" and row.get("set") == "val"]
    names = list(dict.fromkeys(str(row["name"]) for row in rows))
    if not 2 <= len(names) <= len(LEVEL_STYLES):
        return []
    place = {row.get("update"): k for k, row in enumerate(contents.history)}
    cards = []
    for title, key, unit in (
        ("Validation force error by level", "forces_rmse", "RMSE, meV/Å"),
        ("Validation energy error by level", "energy_rmse_per_atom", "RMSE, meV per atom"),
    ):
        lines = []
        for style, name in zip(LEVEL_STYLES, names, strict=False):
            y = np.full(len(x), np.nan)
            for row in rows:
                if str(row["name"]) == name and row.get("update") in place and row.get(key) is not None:
                    y[place[row["update"]]] = 1e3 * float(row[key])
            lines.append((style, name, y))
        cards.append(_curve_card(title, unit, axis, x, lines, best))
    return cards


def _progress(contents: Contents) -> tuple[str, np.ndarray]:
    """Return what training is counted in: epochs, or cycles where an epoch has several."""
    epochs = contents.series("epoch")
    if len(np.unique(epochs)) == len(epochs):
        return "epoch", epochs
    return "cycle", contents.series("cycle")


def _curve_card(
    title: str, unit: str, axis: Axis, x: np.ndarray, lines: list[tuple[str, str, np.ndarray]], best: float | None
) -> str:
    """Return one learning curve on a logarithmic axis, or nothing where no number was recorded."""
    lines = [(style, name, y) for style, name, y in lines if np.isfinite(y).any() and np.nanmax(y) > 0]
    if not lines:
        return ""
    chart = Chart(axis, axis_over(unit, np.concatenate([y for _, _, y in lines]), log=True), title, height=300)
    if best is not None:
        chart.upright(best, "best")
    for style, name, y in lines:
        chart.line(x, y, style, name)
    return card(title, chart.svg(), beside=chart.key())


def parity(predictions: Predictions) -> list[str]:
    """Return cards that set predictions against references: energy per atom, forces, stress."""
    cards = []
    known = np.isfinite(predictions.energy_label)
    if known.any():
        counts, base = predictions.n_atoms[known], predictions.baseline[known]
        x, y = (predictions.energy_label[known] - base) / counts, (predictions.energy[known] - base) / counts
        hints = [f"{predictions.origin[k]}: {1000 * (b - a):+.1f} meV/atom"
                 for k, a, b in zip(np.flatnonzero(known), x, y, strict=True)]  # fmt: skip
        note = "Energies are counted from free atoms. Points on the dashed line are right."
        cards.append(parity_card("Energy per atom", "eV per atom", x, y, hints, note))
    keep = predictions.has_forces
    if keep.any():
        x, y = predictions.forces_label[keep].ravel(), predictions.forces[keep].ravel()
        cards.append(parity_card("Force components", "eV/Å", x, y, None, f"{len(x):,} components."))
    known = np.isfinite(predictions.stress_label).all(axis=(1, 2)) if predictions.stress.size else np.zeros(0, bool)
    if known.any():
        x, y = (GPA_PER_UNIT * s[known].reshape(-1) for s in (predictions.stress_label, predictions.stress))
        cards.append(parity_card("Stress components", "GPa", x, y, None, "Positive is tensile."))
    return cards


def parity_card(title: str, unit: str, x: np.ndarray, y: np.ndarray, hints: list[str] | None, note: str) -> str:
    """Return one parity chart: dots for few points, shaded cells for many."""
    both = np.concatenate([x, y])
    labels = [f"{word}, {unit}" if unit else word for word in ("reference", "predicted")]
    chart = Chart(axis_over(labels[0], both), axis_over(labels[1], both), f"Parity of {title}")
    chart.diagonal()
    if len(x) > MANY:
        chart.density(x, y)
        note += " The stronger the colour, the more points (logarithmic)."
    else:
        chart.dots(x, y, "a", hints)
    return card(title, chart.svg(), note)


def error_histograms(predictions: Predictions) -> list[str]:
    """Return cards with the distribution of energy and force errors."""
    cards = []
    known = np.isfinite(predictions.energy_label)
    if known.sum() >= 5:
        errors = 1000 * (predictions.energy - predictions.energy_label)[known] / predictions.n_atoms[known]
        note = f"Mean {significant(float(errors.mean()), 2)} meV per atom: a mean far from 0 is a common offset."
        cards.append(_histogram_card("Energy errors", "predicted \N{MINUS SIGN} reference, meV per atom", errors, note))
    keep = predictions.has_forces
    if keep.sum() >= 5:
        errors = 1000 * np.linalg.norm((predictions.forces - predictions.forces_label)[keep], axis=1)
        median, far = np.percentile(errors, [50, 99])
        note = f"Half of the atoms are below {significant(median)} meV/Å, 99 % below {significant(far)} meV/Å."
        cards.append(_histogram_card("Force errors per atom", "length of the error vector, meV/Å", errors, note, 0.0))
    return cards


def _histogram_card(title: str, label: str, errors: np.ndarray, note: str, start: float | None = None) -> str:
    """Return one histogram over the central 99.8 % of the errors."""
    low, high = np.percentile(errors, [0.1, 99.9])
    low = start if start is not None else low
    if high <= low:
        high = low + 1.0
    heights, edges = np.histogram(np.clip(errors, low, high), bins=min(60, max(8, len(errors) // 6)), range=(low, high))
    chart = Chart(Axis(label, low, high), Axis("count", 0.0, 1.08 * float(heights.max())), title, height=300)
    chart.bars(edges, heights, "a")
    return card(title, chart.svg(), note)
