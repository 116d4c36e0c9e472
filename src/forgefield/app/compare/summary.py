"""From the rows of runs to the table of a comparison: one line per candidate and limit, mean and spread over seeds."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forgefield.app.reports.markup import significant
from forgefield.app.tasks.steps.further import STANDARD, unit_of
from forgefield.core.units import factor

_FIXED = {
    "energy_rmse_per_atom": ("E RMSE / atom", 1e3, "meV"),
    "energy_mae_per_atom": ("E MAE / atom", 1e3, "meV"),
    "forces_rmse": ("F RMSE", 1e3, "meV/Å"),
    "forces_mae": ("F MAE", 1e3, "meV/Å"),
    "stress_rmse": ("stress RMSE", 1.0 / factor("stress", "GPa"), "GPa"),
    "stress_mae": ("stress MAE", 1.0 / factor("stress", "GPa"), "GPa"),
}


@dataclass(frozen=True)
class Value:
    """Mean over seeds, its standard deviation (None for one seed), and how many there are."""

    mean: float
    spread: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Value | None:
        """Return it for the values that are there; None if none is."""
        there = [float(value) for value in values if value is not None]
        if not there:
            return None
        return cls(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))

    def times(self, by: float) -> Value:
        """Return it in another unit."""
        return Value(by * self.mean, None if self.spread is None else by * self.spread, self.count)

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {significant(self.spread, 2)}"
        return f"{significant(self.mean, pad=True)}{spread}"


@dataclass(frozen=True)
class Metric:
    """One error: key of metrics.json, heading, factor to the unit it is shown in, and that unit."""

    key: str
    title: str
    by: float
    unit: str


@dataclass
class Line:
    """A candidate at a limit: its runs together.

    Args:
        rows: those that are done.
        failed: messages of the others.
        values: means over the runs by name: parameters, minutes, times per atom, memory.
        errors: by set and metric, in the units of metrics.json.
    """

    candidate: str
    minutes: float
    rows: list[dict[str, Any]]
    failed: list[str]
    values: dict[str, Value | None] = field(default_factory=dict)
    errors: dict[str, dict[str, Value]] = field(default_factory=dict)


NUMBERS = {
    "parameters": "parameters", "epochs": "epochs", "cpu_minutes": "CPU min", "wall_minutes": "wall min",
    "batch_us_per_atom": "batch, µs/atom", "step_us_per_atom": "MD step, µs/atom",
    "training_memory_mib": "memory, training, MiB", "inference_memory_mib": "inference, MiB",
}  # fmt: skip
"""Numbers of a candidate beside its errors, and their headings."""


def lines_of(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Return one line for each candidate and limit, in the order of the rows."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["candidate"], row["minutes"]), []).append(dict(row))
    found = []
    for (name, minutes), members in groups.items():
        done = [row for row in members if row["status"] == "done"]
        line = Line(name, minutes, done, [row["message"] for row in members if row["status"] != "done"])
        flat = [numbers_of(row) for row in done]
        line.values = {key: Value.of(one[key] for one in flat) for key in NUMBERS}
        for title in dict.fromkeys(t for row in done for t in row["errors"]):
            keys = dict.fromkeys(key for row in done for key in row["errors"].get(title, {}))
            values = {key: Value.of(row["errors"].get(title, {}).get(key) for row in done) for key in keys}
            line.errors[title] = {key: value for key, value in values.items() if value is not None}
        found.append(line)
    return found


def numbers_of(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers of a finished run by the names of `NUMBERS`."""
    times = row["inference"]
    memory = {name: value for name, value in (row["training_memory_mib"] or {}).items()}
    device = [value for name, value in memory.items() if name != "process"]
    return {
        "parameters": row["parameters"], "epochs": row["epochs"],
        "cpu_minutes": row["cpu_minutes"], "wall_minutes": row["wall_minutes"],
        "batch_us_per_atom": _micro(times["batch_seconds_per_atom"]),
        "step_us_per_atom": _micro(times["step_seconds_per_atom"]),
        "training_memory_mib": device[0] if device else memory.get("process"),
        "inference_memory_mib": times["memory_mib"],
    }  # fmt: skip


def _micro(seconds: float | None) -> float | None:
    return None if seconds is None else 1e6 * seconds


def metrics_of(lines: Sequence[Line], title: str, units: Mapping[str, str], *, all_kinds: bool = False) -> list[Metric]:
    """Return the errors that a set is judged by, the most telling first: of forces, then energies, then what else.

    Args:
        lines: of the comparison.
        title: name of the set.
        units: of further quantities, from metrics.json.
        all_kinds: mean absolute errors too.
    """
    keys = list(dict.fromkeys(key for line in lines for key in line.errors.get(title, {})))
    order = ("forces_rmse", "energy_rmse_per_atom", "stress_rmse", "forces_mae", "energy_mae_per_atom", "stress_mae")
    found = [Metric(key, *_FIXED[key]) for key in order if key in keys and (all_kinds or "rmse" in key)]
    for key in keys:
        name, _, kind = key.rpartition("_")
        if kind in ("rmse", "mae") and name not in STANDARD and (all_kinds or kind == "rmse"):
            found.append(Metric(key, f"{name} {kind.upper()}", 1.0, unit_of(name, units)))
        elif kind in ("accuracy", "auc") and name not in STANDARD:
            found.append(Metric(key, f"{name} {kind}", 1.0, ""))
    return found


def sets_of(lines: Sequence[Line]) -> list[str]:
    """Return the evaluated sets, tests first and what chose the best weights last."""
    names = list(dict.fromkeys(name for line in lines for name in line.errors))
    return sorted(names, key=lambda name: name in ("val", "train"))


def shown_sets(lines: Sequence[Line]) -> list[str]:
    """Return the sets that the table and the charts are of: tests, or what is there where there is none."""
    names = sets_of(lines)
    return [name for name in names if name not in ("val", "train")] or names


def units_in(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the units of further quantities that the runs have written."""
    return {name: unit for row in rows for name, unit in row.get("units", {}).items()}


def table_of(lines: Sequence[Line], rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return heading and cells of the table: the errors on every set, then what they cost."""
    numbers = [key for key in NUMBERS if any(line.values.get(key) for line in lines)]
    units = units_in(rows)
    columns = [(title, metric) for title in shown_sets(lines) for metric in metrics_of(lines, title, units)]
    several = any(len(line.rows) + len(line.failed) > 1 for line in lines)
    heads = ["model", "limit", *(["seeds"] if several else [])]
    heads += [f"{title}: {metric.title}{f', {metric.unit}' if metric.unit else ''}" for title, metric in columns]
    heads += [NUMBERS[key] for key in numbers]
    body = []
    for line in lines:
        cells = [line.candidate, f"{line.minutes:g}", *([str(len(line.rows))] if several else [])]
        for title, metric in columns:
            value = line.errors.get(title, {}).get(metric.key)
            cells.append("failed" if not line.rows else "\N{EN DASH}" if value is None else str(value.times(metric.by)))
        body.append([*cells, *(_cell(key, line.values.get(key)) for key in numbers)])
    return heads, body


def _cell(key: str, value: Value | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    if key in ("parameters", "epochs") or key.endswith("_mib"):
        return f"{value.mean:,.0f}"
    return significant(value.mean, pad=True) if key.endswith("_minutes") else str(value)


def remarks(lines: Sequence[Line], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what must be known to read the table, one sentence each."""
    found = []
    for line in lines:
        for message in dict.fromkeys(line.failed):
            found.append(f"{line.candidate}, {line.minutes:g} minutes: {line.failed.count(message)} failed: {message}")
    for row in rows:
        who = f"{row['candidate']}, seed {row['seed']}, {row['minutes']:g} minutes"
        if row["status"] == "done" and "minutes" not in str(row["ended"]):
            used = row["cpu_minutes"] if row["minutes_of"].startswith("CPU") else row["wall_minutes"]
            found.append(f"{who}: {row['ended']}, after {significant(used)} {row['minutes_of']}")
    crowded = {f"{row['candidate']} seed {row['seed']}" for row in rows if row.get("inference", {}).get("crowded")}
    if crowded:
        found.append(f"other programs computed while predictions were timed: {', '.join(sorted(crowded))}")
    for what in ("threads", "device", "dtype"):
        seen = {str(row[what]) for row in rows if row["status"] == "done"}
        if len(seen) > 1:
            found.append(f"the runs differ in {what}: {', '.join(sorted(seen))}")
    return found


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one row per run with all numbers, errors in eV, Å and the units of metrics.json."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    words = ("candidate", "seed", "backend", "minutes", "minutes_of", "status", "message")
    found = {name: row[name] for name in words}
    if row["status"] != "done":
        return found
    more = ("ended", "best_epoch", "updates", "threads", "device", "dtype", "allocator")
    found |= {name: row[name] for name in more} | numbers_of(row)
    return found | {f"{title}_{key}": value for title, errors in row["errors"].items() for key, value in errors.items()}


def markdown(heads: Sequence[str], body: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Return the table as Markdown, remarks below."""
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in body]
    return "\n".join([*lines, "", *(f"* {note}" for note in notes)]).rstrip() + "\n"
