"""forgefield data stats: what a model is told about its training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgefield.app.commands.execution import console, say, say_notes, show_table
from forgefield.app.commands.flags import FormatOption, OnErrorOption, SetOption
from forgefield.core.errors import ConfigError

if TYPE_CHECKING:
    from forgefield.data.statistics import Statistics


def command(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files or folders of any format.")],
    cutoff: Annotated[
        float, typer.Option("--cutoff", min=0.1, help="Of the neighbours, Å; model.r_max of a run.")
    ] = 5.0,
    e0: Annotated[str | None, typer.Option("--e0", help="auto, isolated, least_squares, a file, '{H: -13.6}'.")] = None,
    format: FormatOption = None,
    on_error: OnErrorOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print plain JSON, with all digits.")] = False,
    overrides: SetOption = None,
) -> None:
    """Measure a data set: reference energies, neighbours, scales of energies and forces.

    The same numbers a training run measures, from one pass over the file, in
    float64. By head, where frames name heads.

    [bold]Examples[/bold]

      forgefield data stats train.xyz

      forgefield data stats train.xyz --cutoff 6 --e0 least_squares

      forgefield data stats train.xyz --json > statistics.json
    """
    from forgefield.app.data_block import data_block
    from forgefield.app.run import parse_override
    from forgefield.data.parts import reference_setting
    from forgefield.data.sources import open_sources
    from forgefield.data.statistics import measure

    flags: dict[str, Any] = {
        "format": format,
        "on_error": on_error,
        "e0": None if e0 is None else parse_override(f"x={e0}").plain()["x"],
    }
    settings = data_block(paths, flags, overrides or ())
    dataset = open_sources(settings.lmdb, settings)
    say_notes(dataset)
    heads = dataset.heads() or ["default"]
    if len(heads) > 1 and any(s.level is None for s in dataset):
        raise ConfigError("some frames name a head and some do not", dataset.name, "name one in every frame")
    found = measure(dataset, cutoff, reference_setting(settings), heads)
    if as_json:
        typer.echo(found.to_json())
        return
    _show(found, dataset.name)
    for note in found.notes:
        say(note, "note")


def _show(found: Statistics, name: str) -> None:
    from forgefield.core.elements import symbol

    out = console()
    rows = [
        ("structures", f"{found.n_structures:,}, {found.n_atoms:,} atoms; {found.n_isolated} frames of one free atom"),
        ("neighbours", f"{found.avg_num_neighbors:.2f} on average within {found.cutoff:g} Å, at most "
         f"{found.max_num_neighbors}"),
        ("forces, RMS", _ev(found.force_rms, "eV/Å")),
        ("energy - E0 per atom", _ev(found.energy_mean_per_atom, "eV")),
        ("its spread", _ev(found.energy_std_per_atom, "eV")),
    ]  # fmt: skip
    show_table(name, ("what", "measured"), rows, out)
    names = list(found.reference_energies)
    table = [(symbol(z), *(json.dumps(found.reference_energies[head][z]) for head in names)) for z in found.elements]
    columns = ["eV"] if len(names) == 1 else [f"{head}, eV" for head in names]
    out.print()
    show_table(f"Reference energies ({found.reference_source})", ("element", *columns), table, out)
    if len(names) > 1:
        parts = [
            (head, _ev(row["force_rms"], ""), _ev(row["energy_mean_per_atom"], ""), _ev(row["energy_std_per_atom"], ""))
            for head, row in found.by_head.items()
        ]
        out.print()
        show_table("By head", ("head", "forces, RMS, eV/Å", "energy - E0 per atom, eV", "spread, eV"), parts, out)


def _ev(value: float | None, unit: str) -> str:
    return "none" if value is None else f"{value:.4f} {unit}".strip()
