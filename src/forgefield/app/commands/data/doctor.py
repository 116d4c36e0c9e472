"""forgefield data doctor: look for what would poison a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgefield.app.commands import flags as f
from forgefield.app.commands.execution import USER_ERROR, console, say_notes
from forgefield.core.errors import ConfigError

if TYPE_CHECKING:
    from forgefield.data.dataset import Dataset
    from forgefield.data.doctor.finding import Finding

_STYLES = {"severe": "bold red", "warning": "yellow", "info": "cyan"}


def command(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Training structures, of any format.")
    ] = None,
    val: f.ValOption = None,
    test: f.TestOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="YAML", help="Read the data that this run.yaml names.")
    ] = None,
    run: f.RunOption = None,
    energy_key: f.EnergyKeyOption = None,
    forces_key: f.ForcesKeyOption = None,
    stress_key: f.StressKeyOption = None,
    format: f.FormatOption = None,
    on_error: f.OnErrorOption = None,
    overrides: f.SetOption = None,
    cutoff: Annotated[
        float, typer.Option("--cutoff", min=0.1, help="Of the model, Å: for atoms without neighbours.")
    ] = 5.0,
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all findings with all indices; - prints them.")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            "--fix", metavar="OUT", help="Write FILE as extxyz without copies, broken and unlabelled structures."
        ),
    ] = None,
) -> None:
    """Look for what would poison a model.

    Duplicates and leaks between training and test, wrong units and signs
    (Ha, kcal/mol, bohr, gradients, GPa, virials), energies that do not belong
    to the forces, outliers, two levels of theory in one file, rounded and
    missing labels, overlapping and lone atoms.

    Each finding says which structures it is about and how to mend it. The
    exit code is 2 if one is severe: it would stop training too, unless
    data.accept names it. docs/doctor.md explains every finding.

    [bold]Examples[/bold]

      forgefield data doctor train.xyz --test test.xyz

      forgefield data doctor --config run.yaml --json findings.json

      forgefield data doctor old.xyz --set data.energy_unit=Ha --on-error skip

      forgefield data doctor train.xyz --fix clean.xyz
    """
    from forgefield.data.doctor.examine import examine

    if bool(files) == (config is not None):
        raise ConfigError("give files or --config, one of them", "data doctor", "forgefield data doctor train.xyz")
    if fix is not None and not files:
        raise ConfigError(
            "--fix needs the file to mend", "data doctor", "forgefield data doctor train.xyz --fix clean.xyz"
        )
    keys = {"energy_key": energy_key, "forces_key": forces_key, "stress_key": stress_key}
    keys |= {"format": format, "on_error": on_error}
    given = {name: value for name, value in keys.items() if value is not None}
    if config is not None:
        if val or test or given:
            raise ConfigError("--val, --test, keys and format stand in the YAML file", "--config", "remove them")
        parts = _parts_of(config, run, overrides or ())
    else:
        parts = _parts({"train": files, "val": val, "test": test}, given, overrides or ())
    for dataset in parts.values():
        say_notes(dataset)
    found = _with_progress(parts, lambda advance: examine(parts, cutoff, advance))
    if as_json is not None:
        _write_json(found, parts, as_json)
    if as_json is None or str(as_json) != "-":
        _show(found, parts)
    if fix is not None:
        _fix(parts["train"], found, fix)
    if any(finding.level == "severe" for finding in found):
        raise typer.Exit(USER_ERROR)


def _parts(
    files: dict[str, Sequence[Path] | None], keys: dict[str, str], overrides: Sequence[str]
) -> dict[str, Dataset]:
    from forgefield.app.data_block import data_block
    from forgefield.data.sources import open_sources

    settings = data_block((), keys, overrides)
    return {part: open_sources(tuple(paths), settings) for part, paths in files.items() if paths}


def _parts_of(path: Path, names: Sequence[str] | None, overrides: Sequence[str]) -> dict[str, Dataset]:
    from forgefield.app.run import load_run
    from forgefield.data.parts import open_part, open_training

    config = load_run(path, names, overrides)[0]
    settings = config.data
    if not settings.train:
        name = "lmdb" if settings.lmdb else "test"
        return {"test": open_part(settings, name, active=True)}
    data = open_training(settings)
    parts = {"train": data.measured}
    if data.val is not None:
        parts["val"] = data.val
    if settings.test:
        parts["test"] = open_part(settings, "test")
    return parts


def _with_progress(parts: dict[str, Dataset], work: Any) -> list[Finding]:
    from rich.progress import Progress

    total = sum(map(len, parts.values()))
    with Progress(transient=True, disable=total < 2000) as progress:
        task = progress.add_task("looking at structures", total=total)
        return work(lambda n: progress.advance(task, n))


def _show(found: Sequence[Finding], parts: dict[str, Dataset]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    sizes = ", ".join(f"{len(dataset):,} {part}" for part, dataset in parts.items())
    if not found:
        out.print(f"nothing found in {sizes} structures", highlight=False)
        return
    table = Table("", "finding", "what, where, how to mend it", box=None, pad_edge=False)
    for finding in found:
        text = Text(finding.text)
        if finding.places:
            text.append(f"\n{finding.where()}", style="dim")
        if finding.mend:
            text.append(f"\nmend: {finding.mend}", style="green")
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), finding.name, text)
    out.print(table)
    count = {level: sum(x.level == level for x in found) for level in _STYLES}
    words = ", ".join(f"{number} {level}" for level, number in count.items() if number)
    out.print(f"\n{words}, in {sizes} structures. docs/doctor.md explains each.", highlight=False)


def _write_json(found: Sequence[Finding], parts: dict[str, Dataset], path: Path) -> None:
    from forgefield.core.disk import write_atomic

    content = {
        "schema_version": "forgefield-doctor-1",
        "structures": {part: len(dataset) for part, dataset in parts.items()},
        "findings": [finding.to_json() for finding in found],
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if str(path) == "-":
        typer.echo(text, nl=False)
    else:
        write_atomic(path, text)


def _fix(train: Dataset, found: Sequence[Finding], path: Path) -> None:
    from forgefield.data.doctor.mending import write_mended

    left_out = write_mended(train, found, path)
    console().print(f"written: {path}, {len(train) - len(left_out)} of {len(train)} structures", highlight=False)
