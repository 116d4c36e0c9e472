"""The command line: `forgefield COMMAND`. Heavy imports wait until a command needs them, so that --help is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Annotated, Any

import typer

from forgefield.app import data_cli
from forgefield.app.commands import (
    check,
    compare,
    evaluate,
    explain,
    export,
    finetune,
    import_model,
    infer,
    init,
    resume,
    run,
    schema,
    train,
    translate,
)
from forgefield.app.commands.execution import DEBUG, guarded

app = typer.Typer(
    name="forgefield",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

START, FILES, FLAGS, LOOK = "Begin here", "From a file", "Without a file", "Look things up"
COMMANDS: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("init", init.command, START),
    ("check", check.command, START),
    ("translate", translate.command, START),
    ("run", run.command, FILES),
    ("train", train.command, FLAGS),
    ("finetune", finetune.command, FLAGS),
    ("resume", resume.command, FLAGS),
    ("evaluate", evaluate.command, FLAGS),
    ("infer", infer.command, FLAGS),
    ("export", export.command, FLAGS),
    ("import", import_model.command, FLAGS),
    ("compare", compare.command, FLAGS),
    ("explain", explain.command, LOOK),
    ("schema", schema.command, LOOK),
)
for _name, _command, _panel in COMMANDS:
    app.command(
        _name, rich_help_panel=_panel, no_args_is_help=_name in ("init", "check", "run", "train", "resume", "compare")
    )(guarded(_command))

app.add_typer(data_cli.app, name="data", rich_help_panel=LOOK)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"forgefield {package_version('forgefield')}")
        except PackageNotFoundError:
            typer.echo("forgefield (from its source folder, not installed)")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Train, judge and hand out machine-learned interatomic potentials.

    [bold]From data to a model[/bold]

      forgefield init train.xyz      looks at the data, writes run.yaml

      forgefield check run.yaml      all that can be known before training

      forgefield run run.yaml        trains; the results stand in run_dir

      forgefield explain train.lr    what a key of run.yaml means

    [bold]Or without a file[/bold]

      forgefield train --data train.xyz --out runs/first

      forgefield evaluate --model runs/first --data test.xyz --out judged

    [bold]Memory[/bold]

    Training runs faster with tcmalloc or jemalloc: if one is installed, it is
    used, else glibc is told to keep memory. FORGEFIELD_ALLOCATOR in the
    environment says otherwise: tuned (preload nothing), system (leave all
    as it is), or the path of a library to preload.

    Exit codes: 0 done, 2 something to mend (one message says what), 1 a fault
    of ForgeField, 75 stopped by SIGTERM, SIGUSR1 or Ctrl-C while training, and
    saved: the same command goes on; 130 stopped by Ctrl-C at once.
    """
    DEBUG.set(debug)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; --debug may stand anywhere."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in words:
        words = ["--debug", *(word for word in words if word != "--debug")]
    app(words, prog_name="forgefield")


if __name__ == "__main__":
    main()
