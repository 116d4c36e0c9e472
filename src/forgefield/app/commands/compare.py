"""forgefield compare: several models trained on the same data with the same budget, in one table and one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forgefield.app.commands import flags as f
from forgefield.app.commands.execution import SAVED, USER_ERROR, console, say, show_table
from forgefield.core.errors import ConfigError

if TYPE_CHECKING:
    from forgefield.app.compare.comparison import Request
    from forgefield.app.run import RunConfig

BUDGET = "Budget"


def command(
    configs: Annotated[
        list[Path] | None, typer.Argument(metavar="[CONFIG]...", help="run.yaml files, one for each candidate.")
    ] = None,
    minutes: Annotated[
        str, typer.Option("--minutes", rich_help_panel=BUDGET, help="Training of each run; 2,5,10: evaluated at each.")
    ] = "10",
    wall: Annotated[
        bool, typer.Option("--wall", rich_help_panel=BUDGET, help="Minutes of the clock, not of computing (for GPUs).")
    ] = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, rich_help_panel=BUDGET, help="Runs of each candidate.")] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, rich_help_panel=BUDGET, help="Threads of each process.")
    ] = None,
    keep_epochs: Annotated[
        bool,
        typer.Option("--keep-epochs", rich_help_panel=BUDGET, help="Train no longer than the epochs of the files."),
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the runs, table and page.")
    ] = Path("comparison"),
    backends: Annotated[
        str | None,
        typer.Option("--backends", rich_help_panel=f.MODEL, help="Without files: architectures, with their defaults."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", "-d", metavar="FILE", rich_help_panel=f.DATA, help="Without files: training data."),
    ] = None,
    val: f.ValOption = None,
    test: Annotated[
        list[Path] | None,
        typer.Option(
            "--test", metavar="FILE", rich_help_panel=f.DATA, help="Test data; each file is a set; repeatable."
        ),
    ] = None,
    val_fraction: f.ValFractionOption = None,
    energy_key: f.EnergyKeyOption = None,
    forces_key: f.ForcesKeyOption = None,
    stress_key: f.StressKeyOption = None,
    device: f.DeviceOption = None,
    overrides: f.SetOption = None,
) -> None:
    """Train several models alike and compare their accuracy and cost.

    Every candidate is trained on the same data, for the same time, by an
    ordinary run in its own process, one after the other; then each is
    evaluated on the same test sets, and its predictions are timed. Data that
    differ between candidates are refused. Writes comparison.html, .md, .csv
    and .json, and charts as SVG; the runs stand in runs/.

    The same command goes on where it was stopped: results that are there are
    kept, runs that failed are tried again. Exit code 2: some failed.

    [bold]Examples[/bold]

      forgefield compare mace.yaml aimnet2.yaml --minutes 10 --seeds 3

      forgefield compare -d train.xyz --test test.xyz --backends mace,aimnet2

      forgefield compare mace.yaml aimnet2.yaml --minutes 2,5,10 --threads 1
    """
    from forgefield.app.compare.candidates import Budget
    from forgefield.app.compare.comparison import Request

    flags = [
        ("task", "train", "train"), ("run_dir", out / "runs", "--out"), ("data.train", data, "--data"),
        ("data.val", val, "--val"), ("data.val_fraction", val_fraction, "--val-fraction"),
        ("data.energy_key", energy_key, "--energy-key"), ("data.forces_key", forces_key, "--forces-key"),
        ("data.stress_key", stress_key, "--stress-key"), ("device", device, "--device"),
    ]  # fmt: skip
    candidates = _candidates(configs or [], backends, flags, overrides or [])
    budget = Budget.read(minutes, wall)
    request = Request(
        candidates, budget, seeds, [path.absolute() for path in test or []], out.absolute(), threads, keep_epochs
    )
    _carry_out(request)


def _carry_out(request: Request) -> None:
    """Compare, show the table, and say what failed."""
    from forgefield.app.compare.comparison import compare
    from forgefield.app.tasks.steps.outcome import short
    from forgefield.train.signals import Stopped, obeyed

    screen = console()

    def tell(text: str) -> None:
        screen.print(text, markup=False, highlight=False, soft_wrap=True)

    try:
        with obeyed():
            found = compare(request, tell)
    except Stopped as error:
        say(f"{error}; saved. Go on with the same command", "stopped")
        raise typer.Exit(SAVED) from None
    models = [f"{row[0]}, {row[1]} min" for row in found.body]  # a column each: narrow screens have few, files all
    cells = zip(*(row[2:] for row in found.body), strict=True)
    show_table("", ["", *models], [[head, *row] for head, row in zip(found.heads[2:], cells, strict=True)], screen)
    for note in found.notes:
        tell(f"note: {note}")
    tell(f"Written: {', '.join(short(path) for path in found.files[:4])}, and charts/")
    if found.failed:
        for message in found.failed:
            say(message)
        count = len(request.configs) * request.seeds
        say(f"{len(found.failed)} of {count} runs failed; mend what is wrong and repeat the command", "failed")
        raise typer.Exit(USER_ERROR)


def _candidates(
    configs: list[Path], backends: str | None, flags: list[tuple[str, object, str]], overrides: list[str]
) -> list[RunConfig]:
    """Return what is compared: runs of files, or architectures on the data of the flags."""
    from forgefield.app.compare.candidates import from_backends, from_files

    given = [flag for key, value, flag in flags if value is not None and key.startswith("data.")]
    if configs:
        if backends is not None or given:
            what = f"{(given or ['--backends'])[0]} is for comparisons without files"
            raise ConfigError(what, "compare", "remove it; the files say it, or --set says it for all of them")
        device = [f"device={value}" for key, value, _ in flags if key == "device" and value is not None]
        return from_files(configs, [*device, *overrides])
    if backends is None or not any(key == "data.train" and value for key, value, _ in flags):
        raise ConfigError("nothing to compare", "compare", "give run.yaml files, or --data and --backends mace,aimnet2")
    names = [name.strip() for name in backends.split(",") if name.strip()]
    return from_backends(names, f.tree_of(flags), overrides)
