"""The command line of data sets: `forgefield data COMMAND`."""

from __future__ import annotations

import importlib
import pkgutil

import typer

from forgefield.app.commands import data
from forgefield.app.commands.execution import guarded

ORDER = ("info", "doctor", "stats", "view", "convert", "split", "sae")
"""Order of the commands in --help; others follow."""

app = typer.Typer(
    name="data",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _names() -> list[str]:
    """Return the commands there are: the files of the folder."""
    found = [module.name for module in pkgutil.iter_modules(data.__path__)]
    return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


for _name in _names():
    _module = importlib.import_module(f"{data.__name__}.{_name}")
    app.command(_name, no_args_is_help=True)(guarded(_module.command))


@app.callback()
def root() -> None:
    """Look at data sets, check them, convert, split and measure them.

    Every format that ForgeField reads is recognised by what the file holds.
    """
