"""forgefield explain: what a key of run.yaml means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forgefield.app.commands.execution import console, show_table

if TYPE_CHECKING:
    from rich.console import Console

    from forgefield.app.settings_help import FieldHelp


def command(
    key: Annotated[
        str, typer.Argument(metavar="[KEY]", help="A key (train.lr), a block (train), or an architecture (model.mace).")
    ] = "",
) -> None:
    """Explain a key of run.yaml: meaning, default, what it accepts, other names.

    Without a key it lists the top level. A last word alone is found anywhere.

    [bold]Examples[/bold]

      forgefield explain train.lr

      forgefield explain train

      forgefield explain model.mace

      forgefield explain e0
    """
    from forgefield.app.reference import keys_of, look_up

    out = console()
    if not key.strip("."):
        list_keys("run.yaml", keys_of(""), out)
        return
    for index, help in enumerate(look_up(key)):
        if index:
            out.print()
        describe(help, out)
        if help.block is not None:
            out.print()
            list_keys("", keys_of(help.path), out)


def describe(help: FieldHelp, out: Console) -> None:
    """Print everything about one key."""
    from forgefield.app.reference import written

    key = written(help.path)
    title = key if key == help.path else f"{key}  (with backend: {help.path.split('.')[1]})"
    out.print(title, style="bold", highlight=False, markup=False)
    for name, value in (
        ("meaning", help.description), ("accepts", help.expects if help.block is None else "a block of keys"),
        ("default", help.default), ("also called", ", ".join(help.aliases)),
    ):  # fmt: skip
        if value:
            out.print(f"  {name:12}{value}", highlight=False, markup=False, soft_wrap=True)


def list_keys(title: str, keys: list[FieldHelp], out: Console) -> None:
    """Print a table of keys."""
    from rich.markup import escape

    from forgefield.app.reference import written
    from forgefield.app.settings_help import first_sentence

    rows = [
        (escape(written(help.path)), escape(_brief(help)), escape(first_sentence(help.description))) for help in keys
    ]
    show_table(title, ("key", "default", "meaning"), rows, out)


def _brief(help: FieldHelp) -> str:
    if help.block is not None:
        return "a block"
    return help.default if len(help.default) <= 24 else help.default[:21] + "..."
