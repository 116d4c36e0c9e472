"""Records as JSON lines: history.jsonl and breakdown.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgefield.core.catalog import Entry
from forgefield.core.disk import disk_errors, write_atomic
from forgefield.core.settings import Settings
from forgefield.train.sink import Origin, Part, Row, Sink

HISTORY, BREAKDOWN = "history.jsonl", "breakdown.jsonl"


class JsonlSettings(Settings):
    """JSON lines have no settings."""


class Jsonl(Sink):
    """`history.jsonl` gets one line per validation; `breakdown.jsonl` one per head, element and parameter group.

    Lines later than the checkpoint that is continued are taken out first.
    """

    def __init__(self, settings: JsonlSettings, origin: Origin) -> None:
        self.history, self.breakdown = origin.folder / HISTORY, origin.folder / BREAKDOWN
        for path in (self.history, self.breakdown):
            rows = [row for row in read_history(path) if row["update"] <= origin.update]
            write_atomic(path, _lines(rows))

    def validation(self, row: Row, parts: Sequence[Part]) -> None:
        """Append to both files."""
        for path, rows in ((self.history, [row]), (self.breakdown, parts)):
            with disk_errors(path), open(path, "a", encoding="utf-8") as file:
                file.write(_lines(rows))


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a `history.jsonl` or `breakdown.jsonl`; a last line that was cut off is left out."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows)


ENTRY = Entry(JsonlSettings, Jsonl, "history.jsonl and breakdown.jsonl, which the report reads")
