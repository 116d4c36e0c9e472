"""What the data doctor found before training."""

from __future__ import annotations

from html import escape

from forgefield.app.reports.contents import Contents
from forgefield.app.reports.markup import table

STATES = {"severe": "severe, accepted", "warning": "warning"}


def doctor_table(contents: Contents) -> str:
    """Return a table of findings that are more than information; nothing where there are none."""
    found = (contents.record.get("doctor") or {}).get("findings", [])
    rows = [
        (STATES[f["level"]], f["name"], escape(f["text"]), escape(f["mend"])) for f in found if f["level"] in STATES
    ]
    return table(("", "finding", "what", "how to mend it"), rows) if rows else ""
