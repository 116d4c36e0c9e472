"""Charts of what a model predicts beside energy, forces and stress: parity of numbers, curves of classes."""

from __future__ import annotations

from html import escape

import numpy as np

from forgefield.app.reports.charts import parity_card
from forgefield.app.reports.contents import Evaluated, Property
from forgefield.app.reports.markup import card, significant, table
from forgefield.app.reports.plot import Axis, Chart
from forgefield.app.tasks.steps.further import unit_of
from forgefield.train.classes import BORDER, curve


def property_cards(judged: Evaluated) -> list[str]:
    """Return cards for each labelled quantity beside energy, forces and stress."""
    if judged.predictions is None:
        return []
    units = judged.metrics.get("about", {}).get("units", {})
    cards: list[str] = []
    for name, found in judged.predictions.further.items():
        if not found.known.any():
            continue
        if found.kind == "class":
            cards += _class_cards(name, found)
        else:
            cards.append(_parity(name, found, unit_of(name, units), judged))
    return cards


def property_sentences(judged: Evaluated) -> list[str]:
    """Return in words how good the numbers of the user's own are: errors beside the spread of the labels."""
    found: list[str] = []
    units = judged.metrics.get("about", {}).get("units", {})
    for name, part in judged.predictions.further.items() if judged.predictions else ():
        if part.kind != "number" or part.known.sum() < 2:
            continue
        label, value = part.label[part.known], part.value[part.known]
        error, spread = np.abs(value - label).mean(), np.abs(label - label.mean(0)).mean()
        if spread > 0:
            unit = escape(unit_of(name, units))
            found.append(
                f"<b>{escape(name)}</b> is off by {significant(float(error))} {unit} on average; "
                f"always answering the mean would be off by {significant(float(spread))}."
            )
    return found


def _parity(name: str, found: Property, unit: str, judged: Evaluated) -> str:
    x, y = found.label[found.known].ravel(), found.value[found.known].ravel()
    hints = None
    predictions = judged.predictions
    if predictions is not None and found.per == "structure" and found.value.shape[1] == 1:
        rows = np.flatnonzero(found.known)
        hints = [f"{predictions.origin[k]}: {b - a:+.4g} {unit}" for k, a, b in zip(rows, x, y, strict=True)]
    what = "structures" if found.per == "structure" else "atoms"
    n, width = int(found.known.sum()), found.value.shape[1]
    note = f"{n:,} {what}." if width == 1 else f"{width} components of {n:,} {what}."
    return parity_card(name, unit, x, y, hints, note)


def _class_cards(name: str, found: Property) -> list[str]:
    """Return the receiver operating characteristic and the confusion table of a class."""
    p, y = found.value[found.known, 0], found.label[found.known, 0] > BORDER
    called = p >= BORDER
    rows = []
    for word, which in (("1 (above the threshold)", y), ("0", ~y)):
        right = called[which].mean() if which.any() else float("nan")
        share = "\N{EN DASH}" if not which.any() else f"{significant(100 * (right if word[0] == '1' else 1 - right))} %"
        rows.append([word, f"{int((called & which).sum()):,}", f"{int((~called & which).sum()):,}", share])
    note = f"A structure counts as called 1 where its probability is {BORDER:g} or more."
    head = ["in truth", "called 1", "called 0", "right"]
    cards = [card(f"{escape(name)}: what was called what", table(head, rows, numeric=range(1, 4)), note)]
    points = curve(p, y)
    if points is not None:
        chart = Chart(Axis("false positives", 0.0, 1.0), Axis("true positives", 0.0, 1.0), f"Curve of {name}")
        chart.diagonal()
        chart.line(points.false_positive, points.true_positive, "a", "")
        area = float(np.trapezoid(points.true_positive, points.false_positive))
        text = f"Receiver operating characteristic. Area {significant(area)}: 1 is perfect, 0.5 is chance (dashed)."
        cards.append(card(f"{escape(name)}: telling 1 from 0", chart.svg(), text))
    return cards
