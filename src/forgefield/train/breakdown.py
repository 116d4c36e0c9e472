"""One validation broken down: errors by head and element, in training and validation, and rates by parameter group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forgefield.train.sink import PLACE_COLUMNS, Part, part_columns_with
from forgefield.train.tally import Sums, errors_of


def breakdown(
    place: Mapping[str, int],
    sums: Sums,
    metrics: Mapping[str, Any],
    rates: Mapping[str, float],
    further: Sequence[str] = (),
) -> list[Part]:
    """Return the rows of a breakdown.

    Args:
        place: cycle, epoch and update of the validation.
        sums: errors of the training predictions since the last validation, see `tally.Tally`.
        metrics: of the validation, with `by_head` and `by_element`.
        rates: learning rate of each parameter group in the last update.
        further: names of the quantities beside energy, forces and stress.
    """
    columns = part_columns_with(further)[len(PLACE_COLUMNS) :]

    def row(part: str, group: str, name: str, values: Mapping[str, Any]) -> Part:
        return {**place, "set": part, "group": group, "name": name, **{key: values.get(key) for key in columns}}

    trained = errors_of(sums)
    rows = [row("train", "parameters", name, {"lr": rate}) for name, rate in rates.items()]
    for group in ("head", "element"):
        rows += [row("train", group, name, errors) for name, errors in trained.get(group, {}).items()]
        judged: Mapping[str, Mapping[str, Any]] = metrics.get(f"by_{group}", {})
        rows += [row("val", group, name, errors) for name, errors in judged.items()]
    return rows
