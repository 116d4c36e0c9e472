"""How commands end: runs are carried out in turn, and every error becomes one message and an exit code."""

from __future__ import annotations

import errno
import functools
import importlib
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

from forgefield.core.errors import ConfigError, ForgeError

if TYPE_CHECKING:
    from rich.console import Console

    from forgefield.app.run import RunConfig
    from forgefield.app.yaml_source import Node
    from forgefield.data.dataset import Dataset
    from forgefield.train.signals import Stopped

OK, INTERNAL_ERROR, USER_ERROR, SAVED, INTERRUPTED = 0, 1, 2, 75, 130
DEBUG: ContextVar[bool] = ContextVar("debug", default=False)
P = ParamSpec("P")
R = TypeVar("R")


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Return the command so that a user's error is one message (exit 2) and never a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            say("stopped by Ctrl-C", "interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except ForgeError as error:
            _trace()
            first, *others = str(error).splitlines() or [type(error).__name__]
            say(first)
            for line in others:
                # Several mistakes in a configuration are several errors; other messages may just be long.
                say(line) if isinstance(error, ConfigError) else typer.echo(line, err=True)
            raise typer.Exit(USER_ERROR) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if type(error).__module__.startswith(("typer.", "click.")):
                raise
            _trace()
            raise typer.Exit(_report_unexpected(error)) from None

    return run


def _report_unexpected(error: Exception) -> int:
    """Report what no check foresaw; memory and disk are still the user's to mend."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        say("out of memory. Fix: a smaller train.batch_size or data.batch_size, or a smaller model")
        return USER_ERROR
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        say(f"the disk is full: {error.filename or text}. Fix: free some space, then resume or repeat the run")
        return USER_ERROR
    hint = "" if DEBUG.get() else " Repeat the command with --debug to see where, and report it"
    say(f"{type(error).__name__}: {text}. This is a fault of ForgeField, not yours.{hint}", "internal error")
    return INTERNAL_ERROR


def say(text: str, kind: str = "error") -> None:
    """Print one line on stderr; its kind in colour on a terminal."""
    typer.secho(f"{kind}: ", fg=typer.colors.RED, bold=True, nl=False, err=True)
    typer.echo(text, err=True)


def say_notes(dataset: Dataset) -> None:
    """Print what the user should know about the sources of a data set."""
    for note in dataset.notes:
        say(note, "note")


def _trace() -> None:
    if DEBUG.get():
        traceback.print_exc(file=sys.stderr)


def console() -> Console:
    """Return the console that results are printed to."""
    from rich.console import Console

    return Console()


def carry_out(configs: Sequence[RunConfig], *, go_on: bool = False) -> None:
    """Carry out runs one after the other; the first error ends the list. With `go_on`, what is there is continued."""
    from forgefield.app.run_rules import given_settings_are_the_bundles
    from forgefield.app.tasks.steps.going_on import taken_up
    from forgefield.app.tasks.steps.together import together
    from forgefield.app.yaml_source import Node, Place
    from forgefield.kernels.choice import kernels
    from forgefield.train.signals import Stopped, obeyed

    out = console()
    for config in configs:
        if len(configs) > 1:
            out.rule(f"{config.name}: {config.task}")
        # A bundle made by an earlier run of the list could not be compared when the file was read.
        problems = list(given_settings_are_the_bundles(config, Node({}, Place(f"run {config.name}"))))
        if problems:
            raise ConfigError("\n".join(problems))
        try:
            with obeyed(), kernels(config.kernels), together(config, out) as (own, console_of_own):
                todo = taken_up(own, console_of_own) if go_on else own
                if todo is not None:
                    importlib.import_module(f"forgefield.app.tasks.{todo.task}").run_task(todo, console_of_own)
        except KeyboardInterrupt as error:
            if isinstance(error, Stopped):
                raise typer.Exit(_ended_by(error, config)) from None
            last = config.run_dir / "checkpoints" / "last" if config.run_dir is not None else None
            if last is not None and last.exists():
                say(f"continue with: forgefield resume {config.run_dir}", "stopped")
                raise typer.Exit(INTERRUPTED) from None
            raise


def _ended_by(error: Stopped, config: RunConfig) -> int:
    """Say that a signal ended the run; returns the exit code."""
    from forgefield.app.run_rules import TRAINING

    folder = config.run_dir
    if config.task in TRAINING and folder is not None and (folder / "checkpoints" / "last").exists():
        say(f"{error.name}; saved. Go on with the same command, or: forgefield resume {folder}", "stopped")
        return SAVED
    say(f"{error.name}; nothing was there to be saved", "stopped")
    return 128 + int(signal.Signals[error.name])


def carry_out_flags(tree: Node, overrides: Sequence[str] | None, *, go_on: bool = False) -> None:
    """Carry out the run that flags describe; relative paths are taken from the current folder."""
    carry_out([flags_config(tree, overrides)], go_on=go_on)


def flags_config(tree: Node, overrides: Sequence[str] | None, folder: Path | None = None) -> RunConfig:
    """Return the run that flags describe."""
    from forgefield.app.run import build_runs, parse_override

    return build_runs(tree, (folder or Path()).absolute(), (), [parse_override(text) for text in overrides or ()])[0]


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], out: Console) -> None:
    """Print a plain table whose last column takes the room that is left."""
    from rich.table import Table

    table = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    out.print(table)
