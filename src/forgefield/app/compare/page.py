"""comparison.html: one page with the table and the charts, which stands on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from forgefield.app.compare.pictures import Picture
from forgefield.app.reports.markup import card, code, facts, section, side_by_side, table


def page(
    title: str,
    heads: Sequence[str],
    body: Sequence[Sequence[str]],
    notes: Sequence[str],
    charts: Sequence[Picture],
    about: Mapping[str, Any],
) -> str:
    """Return the page as text.

    Args:
        title: heading.
        heads: of the table.
        body: its cells.
        notes: remarks below it.
        charts: all charts.
        about: what was compared: budget, data, machine, command.
    """
    style = files("forgefield.app.reports").joinpath("report.css").read_text(encoding="utf-8")
    cells = [[escape(cell) for cell in row] for row in body]
    remarks = "".join(f"<p>{escape(note)}</p>" for note in notes)
    reading = f'<div class="reading">{remarks}</div>' if remarks else ""
    shown = [card(one.title, one.chart.svg(), escape(one.note), beside=one.chart.key()) for one in charts]
    parts = [
        section("results", "Results", table([escape(head) for head in heads], cells, range(1, len(heads))), reading),
        section("charts", "Accuracy and cost", side_by_side(*shown)),
        section("how", "How it was compared", facts([(k, escape(str(v))) for k, v in about["facts"].items()])),
        section("reproduce", "Reproduce", code(about["command"])),
    ]
    lead = escape(about["lead"])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · ForgeField comparison</title><style>{style}</style></head><body><main>"
        f'<header><p class="brand">ForgeField comparison</p><h1>{escape(title)}</h1><p class="lead">{lead}</p></header>'
        f"{''.join(parts)}<footer>Written by ForgeField. RMSE: root mean square error.</footer></main></body></html>\n"
    )
