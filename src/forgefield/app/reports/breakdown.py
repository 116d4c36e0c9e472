"""The table of errors by head and by element, in training and in validation, of the best weights."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from forgefield.app.reports.contents import Contents
from forgefield.app.reports.markup import card, milli, significant, table
from forgefield.app.tasks.steps.further import names_in
from forgefield.core.units import factor

_TITLES = {"head": "By head, while training", "element": "By element, while training"}
_COLUMNS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("E RMSE / atom", "energy_rmse_per_atom", milli),
    ("F RMSE", "forces_rmse", milli),
    ("stress RMSE", "stress_rmse", lambda value: significant(_gpa(value), pad=True)),
)


def errors_at_best(contents: Contents) -> list[str]:
    """Return a card for heads and one for elements, where there is more than one, at the best validation."""
    update = next((row["update"] for row in reversed(contents.history) if row.get("best") and "update" in row), None)
    rows = [row for row in contents.breakdown if row.get("update") == update]
    return [made for group, title in _TITLES.items() if (made := _card(rows, group, title))]


def _card(rows: list[dict[str, Any]], group: str, title: str) -> str:
    members: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row.get("group") == group:
            members.setdefault(str(row["name"]), {})[str(row["set"])] = row
    if len(members) < 2:
        return ""
    columns: dict[str, list[str]] = {"": [escape(name) for name in members]}
    further = dict.fromkeys(name for sets in members.values() for row in sets.values() for name in names_in(row))
    own = ((f"{escape(name)} RMSE", f"{name}_rmse", _number) for name in further)
    for heading, key, shown in (*_COLUMNS, *own):
        for part, word in (("train", "training"), ("val", "validation")):
            values = [sets.get(part, {}).get(key) for sets in members.values()]
            if any(value is not None for value in values):
                columns[f"{heading}, {word}"] = [shown(value) for value in values]
    if len(columns) == 1:
        return ""
    note = (
        "At the best validation. Training errors are those of the raw weights on the way, since the validation before. "
        "Energies in meV, forces in meV/Å, stress in GPa."
    )
    body = list(zip(*columns.values(), strict=True))
    return card(title, table(list(columns), body, numeric=range(1, len(columns))), note)


def _number(value: float | None) -> str:
    return significant(value, pad=True)


def _gpa(stress: float | None) -> float | None:
    """Return a stress given in eV/Å^3 in GPa."""
    return None if stress is None else stress / factor("stress", "GPa")
