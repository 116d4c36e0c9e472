"""What the numbers mean, in plain sentences. Every threshold stands here."""

from __future__ import annotations

from typing import Any

import numpy as np

from forgefield.app.reports.contents import Contents, Evaluated
from forgefield.app.reports.markup import milli, significant
from forgefield.app.reports.properties import property_sentences

SCALE = (
    (0.03, "This is tight: close to what good models reach on such data."),
    (
        0.10,
        "Good enough to try molecular dynamics near the training data; check the quantities that you need.",
    ),
    (0.25, "Rough: useful to sample new structures, not yet for quantitative results."),
    (float("inf"), "Not usable yet: train longer, give more data, or look at the worst structures below."),
)
"""Judgement by the ratio of force RMSE to the root mean square of the reference forces."""


def force_share(metrics: dict[str, float | None]) -> float | None:
    """Return force RMSE / root mean square of the reference forces, or None without forces."""
    error, typical = metrics.get("forces_rmse"), metrics.get("forces_rms_label")
    return error / typical if error is not None and typical else None


def sentences(contents: Contents) -> list[str]:
    """Return the reading of a run: errors, learning, generalisation, weakest element."""
    judged = contents.judged
    found = [] if judged is None else [_of_forces(judged), _of_energies(judged), _of_elements(judged)]
    found += [] if judged is None else property_sentences(judged)
    found += [_of_learning(contents), _of_start(contents), _of_generalisation(contents.evaluated)]
    return [text for text in found if text]


def _of_forces(judged: Evaluated) -> str:
    share = force_share(judged.overall)
    if share is None:
        return ""
    error, typical = milli(judged.overall["forces_rmse"]), milli(judged.overall["forces_rms_label"])
    verdict = next(text for bound, text in SCALE if share <= bound)
    return (
        f"On {_set_name(judged)} the force error is <b>{error} meV/Å</b>, "
        f"{significant(100 * share, 2, pad=True)} % of the typical force ({typical} meV/Å). {verdict}"
    )


def _of_energies(judged: Evaluated) -> str:
    per_atom = judged.overall.get("energy_rmse_per_atom")
    predictions = judged.predictions
    if per_atom is None or predictions is None:
        return ""
    text = f"Energies are off by <b>{milli(per_atom)} meV per atom</b>"
    known = np.isfinite(predictions.energy_label)
    if known.sum() >= 5:
        each = (predictions.energy_label - predictions.baseline)[known] / predictions.n_atoms[known]
        spread, errors = float(each.std()), (predictions.energy - predictions.energy_label)[known]
        offset = float((errors / predictions.n_atoms[known]).mean())
        if spread > 0:
            text += f"; the energies themselves spread over {milli(spread)} meV per atom"
        if abs(offset) > 0.8 * per_atom:
            text += f". Most of it is one common offset ({milli(offset)}), which does not change forces"
    return text + "."


def _of_elements(judged: Evaluated) -> str:
    errors = {name: _rmse(values) for name, values in judged.metrics.get("by_element", {}).items()}
    errors = {name: error for name, error in errors.items() if error is not None}
    overall = judged.overall.get("forces_rmse")
    if len(errors) < 2 or not overall:
        return ""
    worst = max(errors, key=lambda name: errors[name])
    ratio = errors[worst] / overall
    if ratio < 1.25:
        return "Force errors are spread evenly over the elements."
    times = significant(ratio, 2)
    return f"Forces are worst on {worst}: {milli(errors[worst])} meV/Å, {times} times the average."


def _of_learning(contents: Contents) -> str:
    fit = contents.record.get("fit") or {}
    best, done = fit.get("best_epoch"), fit.get("epochs_done")
    if best is None or done is None:
        return ""
    done = max(best, done)  # a time limit may end training within an epoch
    if best >= done - max(1, done // 20):
        return f"The best epoch was {best} of {done}: it was still improving, so more epochs should help."
    return f"The best epoch was {best} of {done}; later epochs did not improve on it."


def _of_start(contents: Contents) -> str:
    before = (contents.record.get("start") or {}).get("errors_before", {}).get("forces_rmse")
    after = next((one.overall.get("forces_rmse") for one in contents.evaluated if one.name in ("val", "train")), None)
    if before is None or after is None:
        return ""
    word = "lowered" if after < before else "did not lower"
    return (
        f"Fine-tuning {word} the force error on the validation part: {milli(before)} meV/Å with the loaded model, "
        f"{milli(after)} now."
    )


def _of_generalisation(evaluated: list[Evaluated]) -> str:
    named = {one.name: one.overall.get("forces_rmse") for one in evaluated}
    val = named.pop("val", None)
    if not val:
        return ""
    far = [
        f"{name} ({significant(error / val, 2)} times)" for name, error in named.items() if error and error > 1.5 * val
    ]
    if not far:
        return ""
    return (
        f"Force errors are larger than on the validation part for {', '.join(far)}: "
        "these structures differ from those trained on."
    )


def _rmse(values: dict[str, Any]) -> float | None:
    error = values.get("forces_rmse")
    return float(error) if error is not None else None


def _set_name(judged: Evaluated) -> str:
    count = judged.overall.get("n_structures")
    kind = "the validation part" if judged.name == "val" else judged.name
    return f"{kind} ({count:,.0f} structures)" if count else kind
