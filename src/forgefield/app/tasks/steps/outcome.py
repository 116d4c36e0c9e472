"""What a task hands back, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class TaskResult:
    """What a task did.

    Args:
        title: heading of the summary.
        rows: name and value, in the order they are shown.
        files: files written, the most useful first.
        next_commands: what one may want to do next: what it does, and the command.
        metrics: errors by data set, as in metrics.json; empty where nothing was compared.
    """

    title: str
    rows: list[tuple[str, str]]
    files: list[Path]
    next_commands: list[tuple[str, str]] = field(default_factory=list)
    metrics: Mapping[str, Any] = field(default_factory=dict)


def show(result: TaskResult, console: Console) -> TaskResult:
    """Print the summary, the files and the next commands; return the result."""
    table = Table(title=result.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in result.rows:
        table.add_row(name, value)
    console.print(table)
    say(console, "Files:")
    for path in result.files:
        say(console, f"  {short(path)}")
    if result.next_commands:
        say(console, "Next:")
        for what, command in result.next_commands:
            say(console, f"  {command}\n      {what}")
    return result


def say(console: Console, text: str) -> None:
    """Print a line as it is: no markup, no colours, not broken."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def short(path: Path) -> str:
    """Return a path as seen from the current folder, if it is below it."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
