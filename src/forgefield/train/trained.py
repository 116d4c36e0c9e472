"""The table of what is trained: groups, parameters, rates, decay, and what is frozen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import nn

from forgefield.core.disk import write_atomic

FILE = "trained.json"
FROZEN = "frozen"
_SHOWN = 3  # names of parameters in a row of the table


def describe_groups(model: nn.Module, groups: Sequence[dict[str, Any]], lr: float) -> list[dict[str, Any]]:
    """Describe each parameter group, and what belongs to none because it is not trained.

    Args:
        model: whose parameters.
        groups: as made by `groups.parameter_groups`.
        lr: rate of groups that name none.

    Returns:
        For each group: its name, how many numbers its parameters hold, initial rate, weight decay (both None for what
        is frozen), and the names of the parameters.
    """
    rows: list[dict[str, Any]] = [
        {
            "group": group["name"],
            "numbers": sum(parameter.numel() for parameter in group["params"]),
            "lr": group.get("lr", lr),
            "weight_decay": group["weight_decay"],
            "parameters": list(group["names"]),
        }
        for group in groups
    ]
    frozen = [(name, parameter) for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if frozen:
        numbers = sum(parameter.numel() for _, parameter in frozen)
        names = [name for name, _ in frozen]
        rows.append({"group": FROZEN, "numbers": numbers, "lr": None, "weight_decay": None, "parameters": names})
    return rows


def write_groups(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows to `trained.json`."""
    write_atomic(folder / FILE, json.dumps(list(rows), indent=1) + "\n")


def groups_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rows as a table for the terminal."""
    table = Table(title="what is trained", title_justify="left", box=None, pad_edge=False)
    table.add_column("group")
    for title in ("parameters", "numbers", "lr", "decay"):
        table.add_column(title, justify="right")
    table.add_column("names")
    for row in rows:
        names = [name.removeprefix("architecture.") for name in row["parameters"]]
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        rate = "" if row["lr"] is None else f"{row['lr']:.3g}"
        decay = "" if row["weight_decay"] is None else f"{row['weight_decay']:.3g}"
        table.add_row(row["group"], str(len(names)), f"{row['numbers']:,}", rate, decay, shown)
    return table
