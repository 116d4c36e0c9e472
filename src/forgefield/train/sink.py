"""What a sink of records is: a place where the numbers of a fit are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

Row = dict[str, float | int | bool | None]
Part = dict[str, float | int | str | None]

COLUMNS = (
    "cycle", "epoch", "update", "seconds", "total_seconds", "cpu_seconds", "lr", "grad_norm",
    "train_loss", "train_energy", "train_forces", "train_stress",
    "val_loss", "val_energy", "val_forces", "val_stress",
    "val_energy_mae_per_atom", "val_energy_rmse_per_atom", "val_forces_mae", "val_forces_rmse",
    "val_stress_mae", "val_stress_rmse",
    "structures_per_second", "peak_memory_mib", "skipped_updates", "best", "partial",
)  # fmt: skip
PLACE_COLUMNS = ("cycle", "epoch", "update", "set", "group", "name")
PART_COLUMNS = (
    *PLACE_COLUMNS, "lr",
    "energy_mae_per_atom", "energy_rmse_per_atom", "forces_mae", "forces_rmse", "stress_mae", "stress_rmse",
)  # fmt: skip


def columns_with(further: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a row for a fit that has further quantities in its loss."""
    place = COLUMNS.index("structures_per_second")
    own = (f"{prefix}_{name}{word}" for name in further for prefix, word in _OWN)
    return (*COLUMNS[:place], *own, *COLUMNS[place:])


def part_columns_with(further: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a breakdown for such a fit."""
    return (*PART_COLUMNS, *(f"{name}_{word}" for name in further for word in ("mae", "rmse")))


_OWN = (("train", ""), ("val", ""), ("val", "_mae"), ("val", "_rmse"))


@dataclass(frozen=True)
class Origin:
    """Where a fit stands when its records are opened.

    Args:
        folder: the run folder.
        update: updates done before; what later ones left behind, before their checkpoint, is taken out.
        train: the `train` block as plain values.
        further: names of the quantities beside energy, forces and stress that have columns.
    """

    folder: Path
    update: int
    train: Mapping[str, Any]
    further: tuple[str, ...] = ()


class Sink(ABC):
    """One place where records go. It is made by `build(settings, origin)` before the first update."""

    needs: ClassVar[str | None] = None
    """The package that has to be installed, if it is not one of ours."""

    def update(self, number: int, values: Mapping[str, float]) -> None:  # noqa: B027, most sinks keep validations only
        """Write what one update did; called every `train.log_every` updates."""

    @abstractmethod
    def validation(self, row: Row, parts: Sequence[Part]) -> None:
        """Write one validation.

        Args:
            row: keys `columns_with(further)`; eV per atom, eV/Å, eV/Å^3, further quantities in their own units.
            parts: the same broken down, keys `part_columns_with(further)`: by head and by element, in training and in
                validation, and the learning rate of each parameter group.
        """

    def close(self) -> None:  # noqa: B027, most sinks have nothing to close
        """End the records of this attempt."""


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row under the names that curves get: `train/loss`, `validation/forces_rmse`, `run/lr`."""
    return {_tag(name): value for name, value in row.items() if value is not None and not isinstance(value, bool)}


def numbers_of_parts(parts: Iterable[Part]) -> dict[str, float]:
    """Return the numbers of a breakdown as curves, `validation/element/C/forces_rmse`, without groups of one member."""
    parts = list(parts)
    members: dict[tuple[Any, Any], int] = {}
    for part in parts:
        key = (part["set"], part["group"])
        members[key] = members.get(key, 0) + 1
    found: dict[str, float] = {}
    for part in parts:
        if members[part["set"], part["group"]] < 2 and part["group"] != "parameters":
            continue
        place = f"{_SECTIONS[str(part['set'])]}/{part['group']}/{part['name']}"
        for name, value in part.items():
            if name not in PLACE_COLUMNS and value is not None:
                found[f"{place}/{name}"] = float(value)
    return found


_SECTIONS = {"train": "train", "val": "validation"}


def _tag(column: str) -> str:
    for prefix, section in (("train_", "train/"), ("val_", "validation/")):
        if column.startswith(prefix):
            return section + column.removeprefix(prefix)
    return "run/" + column
