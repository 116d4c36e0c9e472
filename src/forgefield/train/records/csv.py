"""Records as tables: history.csv and breakdown.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgefield.core.catalog import Entry
from forgefield.core.disk import disk_errors, write_atomic
from forgefield.core.settings import Settings
from forgefield.train.sink import Origin, Part, Row, Sink, columns_with, part_columns_with


class CsvSettings(Settings):
    """Tables have no settings."""


class Csv(Sink):
    """`history.csv` gets one row per validation, `breakdown.csv` one per head, element and parameter group.

    Rows later than the checkpoint that is continued are taken out first.
    """

    def __init__(self, settings: CsvSettings, origin: Origin) -> None:
        self.tables = {
            origin.folder / "history.csv": columns_with(origin.further),
            origin.folder / "breakdown.csv": part_columns_with(origin.further),
        }
        for path, columns in self.tables.items():
            write_atomic(path, _text([columns, *_kept(path, columns, origin.update)]))

    def validation(self, row: Row, parts: Sequence[Part]) -> None:
        """Append to both tables."""
        for (path, columns), rows in zip(self.tables.items(), ([row], parts), strict=True):
            with disk_errors(path), open(path, "a", encoding="utf-8") as file:
                file.write(_text([_cells(each, columns) for each in rows]))


def _kept(path: Path, columns: Sequence[str], update: int) -> list[list[str]]:
    """Return the rows of a table up to an update; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    return [[row.get(name, "") for name in columns] for row in rows if int(row["update"]) <= update]


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    return [_cell(row[name]) for name in columns]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return value if isinstance(value, str) else repr(value)


def _text(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


ENTRY = Entry(CsvSettings, Csv, "history.csv and breakdown.csv")
