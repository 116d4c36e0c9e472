"""forgefield data stats: what a model is told about its training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgefield.app.commands.execution import console, say, show_table
from forgefield.app.commands.flags import FormatOption, OnErrorOption, SetOption
from forgefield.core.errors import ConfigError

SHOWN = 6  # components of a label

if TYPE_CHECKING:
    from forgefield.core.quantities import Quantity
    from forgefield.data.dataset import Dataset
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
    float64. By head, where frames name heads. Of other labels (charges,
    dipoles, targets of your own) mean and standard deviation.

    [bold]Examples[/bold]

      forgefield data stats train.xyz

      forgefield data stats train.xyz --cutoff 6 --e0 least_squares

      forgefield data stats train.xyz --json > statistics.json

      forgefield data stats id_prop.csv --cutoff 8
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
    heads = dataset.heads() or ["default"]
    if len(heads) > 1 and any(s.level is None for s in dataset):
        raise ConfigError("some frames name a head and some do not", dataset.name, "name one in every frame")
    has_energies = any("energy" in kind.labels for kind in dataset.survey.present())
    others = _other_labels(dataset)
    energies = has_energies or not others
    found = measure(dataset, cutoff, reference_setting(settings), heads, energies=energies, targets=others)
    if as_json:
        typer.echo(found.to_json())
        return
    _show(found, dataset.name, energies=energies)
    for note in found.notes:
        say(note, "note")


def _other_labels(dataset: Dataset) -> list[Quantity]:
    """What labels beside energy, forces and stress are."""
    import numpy as np

    from forgefield.core.quantities import QUANTITIES

    survey = dataset.survey
    names = {name for kind in survey.present() for name in kind.labels} - {"energy", "forces", "stress"}
    found: list[Quantity] = []
    for name in sorted(names):
        first = int(np.flatnonzero(survey.where(name in kind.labels for kind in survey.kinds))[0])
        found.append(QUANTITIES.get(name) or dataset[first].declared[name])
    return [quantity for quantity in found if quantity.kind == "number"]


def _show(found: Statistics, name: str, *, energies: bool) -> None:
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
    if found.targets:
        moments = [(name, _few(row["mean"]), _few(row["std"])) for name, row in found.targets.items()]
        out.print()
        show_table("Other labels", ("label", "mean", "standard deviation"), moments, out)
    if not energies:
        return
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


def _few(numbers: Sequence[float]) -> str:
    text = " ".join(f"{number:.5g}" for number in numbers[:SHOWN])
    return text + (f" ... ({len(numbers)} numbers)" if len(numbers) > SHOWN else "")


def _ev(value: float | None, unit: str) -> str:
    return "none" if value is None else f"{value:.4f} {unit}".strip()
