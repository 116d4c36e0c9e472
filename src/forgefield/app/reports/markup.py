"""Pieces of the page: tables, cards, numbers with units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MINUS = "\N{MINUS SIGN}"


def significant(value: float | None, digits: int = 3, *, pad: bool = False) -> str:
    """Return a number with so many significant digits; `pad` keeps trailing zeros, for columns."""
    if value is None or value != value:
        return "\N{EN DASH}"
    if value == 0:
        return "0"
    text = f"{value:#.{digits}g}".rstrip(".") if pad else f"{value:.{digits}g}"
    if "e" in text:
        text = f"{value:,.0f}" if abs(value) >= 1 else f"{value:.2e}"
    elif abs(value) >= 10**digits:
        text = f"{value:,.0f}"
    return text.replace("-", MINUS)


def milli(value: float | None, digits: int = 3) -> str:
    """Return an energy-like number in thousandths of its unit (eV -> meV)."""
    return significant(None if value is None else 1000.0 * value, digits, pad=True)


def file_size(n_bytes: int) -> str:
    """Return a size in kB or MB."""
    return f"{n_bytes / 1e6:.2f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB"


def duration(seconds: float | None) -> str:
    """Return a time as people say it: 0.8 s, 47 s, 2 min 13 s, 3 h 05 min."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """Return a table. Cells are HTML already; columns in `numeric` are set flush right."""
    kind = [' class="n"' if k in numeric else "" for k in range(len(head))]
    top = "".join(f"<th{kind[k]}>{name}</th>" for k, name in enumerate(head))
    body = "".join(f"<tr>{''.join(map(_cell, row, kind))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(content: str, kind: str) -> str:
    """Return one table cell; what is a cell already stays as it is."""
    return content if content.startswith("<td") else f"<td{kind}>{content}</td>"


def bar_cell(share: float) -> str:
    """Return a table cell that shows a share of the largest value, 0 to 1, as a bar."""
    return f'<td class="bar"><i style="width:{100 * min(max(share, 0.0), 1.0):.0f}%"></i></td>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return a two-column table of names and values. Values are HTML already."""
    body = "".join(f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in rows)
    return f'<div class="scroll"><table class="facts"><tbody>{body}</tbody></table></div>'


def figure(value: str, unit: str, label: str, *, main: bool = False) -> str:
    """Return one of the key numbers on top of the page."""
    return (
        f'<div class="figure{" main" if main else ""}"><b>{value} <small>{escape(unit)}</small></b>'
        f"<span>{escape(label)}</span></div>"
    )


def card(title: str, inside: str, note: str = "", beside: str = "") -> str:
    """Return a framed block with a heading, something beside it, and an optional remark below."""
    remark = f"<p>{note}</p>" if note else ""
    return f'<div class="card"><h3>{escape(title)}{beside}</h3>{inside}{remark}</div>'


def section(name: str, title: str, *parts: str) -> str:
    """Return a section of the page, or nothing if it has no content."""
    inside = "".join(parts)
    return f'<section id="{name}"><h2>{escape(title)}</h2>{inside}</section>' if inside else ""


def side_by_side(*parts: str, columns: int = 2) -> str:
    """Return blocks beside each other, two or three to a row, where there is room."""
    inside = "".join(parts)
    return f'<div class="grid{columns}">{inside}</div>' if inside else ""


def code(text: str) -> str:
    """Return a block of code."""
    return f"<pre>{escape(text.rstrip())}</pre>"
