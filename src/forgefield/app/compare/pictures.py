"""The charts of a comparison: accuracy against training time, and against inference time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from forgefield.app.compare.summary import Line, Metric, metrics_of, shown_sets, units_in
from forgefield.app.folder import RunFolder
from forgefield.app.reports.plot import WIDTH, Chart, axis_over
from forgefield.train.recorder import read_history

STYLES = ("a", "b", "c", "d", "e", "f")


@dataclass(frozen=True)
class Picture:
    """A chart with its heading and a remark."""

    name: str
    title: str
    chart: Chart
    note: str


def style_of(lines: Sequence[Line], name: str) -> str:
    """Return the colour of a candidate; after six they begin again, names stand at the points."""
    names = list(dict.fromkeys(line.candidate for line in lines))
    return STYLES[names.index(name) % len(STYLES)]


def pictures(lines: Sequence[Line], rows: Sequence[Mapping[str, Any]], folders: Mapping[str, Path]) -> list[Picture]:
    """Return all charts: learning curves by validation, then two for every test set and kind of error.

    Args:
        lines: the table.
        rows: of single runs.
        folders: of the runs, by candidate and seed as in `Trial.label`.
    """
    units = units_in(rows)
    found: list[Picture] = []
    for title in shown_sets(lines):
        for metric in metrics_of(lines, title, units)[:2]:
            found += against_training(lines, title, metric)
            found += against_inference(lines, title, metric)
    return [*found, *learning(lines, rows, folders)]


def against_training(lines: Sequence[Line], title: str, metric: Metric) -> list[Picture]:
    """Return the error of a set against the time trained, where there are points."""
    return _scatter(lines, title, metric, _trained(lines), "training", "against training time")


def against_inference(lines: Sequence[Line], title: str, metric: Metric) -> list[Picture]:
    """Return the error of a set at the last limit against the time of a prediction."""
    last = {line.candidate: line for line in lines if line.rows}
    key = ("batch_us_per_atom", "time per atom in a batch, µs")
    return _scatter(list(last.values()), title, metric, key, "inference", "against inference time", of=lines)


def _trained(lines: Sequence[Line]) -> tuple[str, str]:
    wall = any(row["minutes_of"] == "minutes" for line in lines for row in line.rows)
    return ("wall_minutes", "training time, minutes") if wall else ("cpu_minutes", "training time, CPU minutes")


def _scatter(
    lines: Sequence[Line], title: str, metric: Metric, across: tuple[str, str], kind: str, words: str,
    of: Sequence[Line] | None = None,
) -> list[Picture]:  # fmt: skip
    key, label = across
    points = []
    for line in lines:
        x, y = line.values.get(key), line.errors.get(title, {}).get(metric.key)
        if x is not None and y is not None and x.mean > 0 and y.mean > 0:
            points.append((line.candidate, x, y.times(metric.by)))
    if not points:
        return []
    spans = [
        np.array([[v.mean - (v.spread or 0), v.mean + (v.spread or 0)] for v in (p[k] for p in points)]) for k in (1, 2)
    ]
    unit = f"{metric.title}{f', {metric.unit}' if metric.unit else ''}"
    axes = [
        axis_over(text, span.ravel(), log=True, margin=0.15) for text, span in zip((label, unit), spans, strict=True)
    ]
    chart = Chart(*axes, f"{title}: {unit} {words}")
    for name in dict.fromkeys(point[0] for point in points):
        style, own = style_of(of or lines, name), [point for point in points if point[0] == name]
        chart.line(np.array([p[1].mean for p in own]), np.array([p[2].mean for p in own]), style, name)
        for _, x, y in own:
            chart.crossed(x.mean, y.mean, x.spread, y.spread, style, f"{name}: {y} at {x}")
    note = "Lower and further left is better."
    if any(y.spread for _, _, y in points):
        note += " Bars: one standard deviation over the seeds."
    return [Picture(f"{kind}-{title}-{metric.key}", f"{title}: {metric.title} {words}", chart, note)]


def learning(lines: Sequence[Line], rows: Sequence[Mapping[str, Any]], folders: Mapping[str, Path]) -> list[Picture]:
    """Return the lowest validation error so far of each run, along its training."""
    wall = any(row["minutes_of"] == "minutes" for row in rows)
    time_key, label = ("total_seconds", "minutes") if wall else ("cpu_seconds", "CPU minutes")
    known = {line.candidate for line in lines}  # a run that is tried again has a history before it has a result
    for key, unit in (("val_forces_rmse", "F RMSE, meV/Å"), ("val_energy_rmse_per_atom", "E RMSE / atom, meV")):
        curves = []
        for label_of_run, folder in folders.items():
            candidate = label_of_run.rpartition("-seed-")[0]
            if candidate not in known:
                continue
            history = read_history(RunFolder(folder).history) if RunFolder(folder).history.is_file() else []
            seen = [(row[time_key] / 60, 1e3 * row[key]) for row in history if row.get(key) and row.get(time_key)]
            if seen:
                x, y = np.array(seen, dtype=np.float64).T
                curves.append((candidate, x, np.minimum.accumulate(y)))
        if curves:
            return [_curves(lines, curves, label, unit)]
    return []


def _curves(
    lines: Sequence[Line], curves: Sequence[tuple[str, np.ndarray, np.ndarray]], label: str, unit: str
) -> Picture:
    x, y = (np.concatenate([curve[k] for curve in curves]) for k in (1, 2))
    chart = Chart(
        axis_over(f"training time, {label}", x, log=True), axis_over(unit, y, log=True), "validation along training"
    )
    named: set[str] = set()
    for name, across, down in curves:
        chart.line(across, down, style_of(lines, name), "" if name in named else name)
        named.add(name)
    return Picture("validation", "Validation error along training", chart, "The lowest so far; one line for each run.")


def as_file(picture: Picture) -> str:
    """Return a chart as an SVG file of its own: with its style, a white ground, and the names of the candidates."""
    css = files("forgefield.app.reports").joinpath("report.css").read_text(encoding="utf-8")
    root = (
        css[css.index(":root{") : css.index("@media")].replace(":root", "svg").replace("color-scheme:light dark;", "")
    )
    rules = css[css.index("svg text{") : css.index(".scroll{")]
    text = picture.chart.svg()
    start, rest = text.split(">", 1)
    height = picture.chart.height
    names = "".join(
        f'<line class="line {style}" x1="{WIDTH - 130}" x2="{WIDTH - 112}" y1="{30 + 16 * k}" y2="{30 + 16 * k}"/>'
        f'<text class="tick" x="{WIDTH - 106}" y="{34 + 16 * k}">{escape(name)}</text>'
        for k, (style, name) in enumerate(picture.chart.legend)
    )
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    size = f' xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif"'
    return f"{start}{size}><style>{root}{rules}</style>{ground}{names}{rest}\n"
