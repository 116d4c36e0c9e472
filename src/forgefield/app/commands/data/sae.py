"""forgefield data sae: self-atomic energies, fitted and written as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forgefield.app.commands.execution import console, say, say_notes, show_table
from forgefield.app.commands.flags import FormatOption, OnErrorOption, SetOption
from forgefield.core.errors import ConfigError

if TYPE_CHECKING:
    from forgefield.data.energy_table import FittedTable


def command(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files or folders of any format.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="YAML file to write.")] = None,
    percentiles: Annotated[
        tuple[float, float],
        typer.Option("--percentiles", help="Residuals outside are left out of a second fit; 0 100 keeps all."),
    ] = (2.0, 98.0),
    by: Annotated[
        str, typer.Option("--by", help="One table for each: fidelity, head, config_type, or all for a single one.")
    ] = "auto",
    given: Annotated[
        list[str] | None,
        typer.Option("--given", metavar="EL=EV", help="An energy that is known: --given H=-13.6; repeatable."),
    ] = None,
    format: FormatOption = None,
    on_error: OnErrorOption = None,
    overrides: SetOption = None,
) -> None:
    """Fit the energy of each element to the total energies (self-atomic energies, E0).

    Least squares on the numbers of atoms, float64; then once more without
    the structures whose residuals are the largest. `data.e0: sae.yaml` in
    run.yaml takes the file, which has a line `Z: eV` for each element.

    Where all structures have the same proportions of some elements, only
    sums of their energies are determined: it is said which, the smallest
    solution is taken, and --given settles it.

    [bold]Examples[/bold]

      forgefield data sae train.xyz --out sae.yaml

      forgefield data sae train.xyz --percentiles 0 100

      forgefield data sae mixed.h5 --by fidelity --out sae.yaml

      forgefield data sae water.xyz --given H=-13.587
    """
    from forgefield.app.data_block import data_block
    from forgefield.data.energy_file import write_energies
    from forgefield.data.energy_table import fit_tables
    from forgefield.data.sources import open_sources

    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise ConfigError(f"{low:g} {high:g} are no two percentiles", "--percentiles", "write 2 98, or 0 100")
    settings = data_block(paths, {"format": format, "on_error": on_error}, overrides or ())
    dataset = open_sources(settings.lmdb, settings)
    trim = None if (low, high) == (0, 100) else (low, high)
    say_notes(dataset)
    tables = fit_tables(dataset, by, trim, _known(given or ()))
    for table in tables:
        _show(table)
    if out is not None:
        remarks = ["self-atomic energies, eV, by least squares (forgefield data sae)", *(t.summary() for t in tables)]
        write_energies(out, {table.name: table.energies for table in tables}, remarks)
        console().print(f"Written to {out}; use it: data.e0: {out}", highlight=False, soft_wrap=True)


def _known(given: list[str] | tuple[()]) -> dict[int, float]:
    from forgefield.core.elements import number

    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[number(name)] = float(value)
        except ValueError:
            raise ConfigError(f"{text!r} is no energy of an element", "--given", "--given H=-13.6") from None
    return found


def _show(table: FittedTable) -> None:
    from forgefield.core.elements import symbol

    rows = [
        (symbol(z), z, repr(energy), "given" if z in table.given else "")
        for z, energy in sorted(table.energies.items())
    ]
    show_table(table.summary(), ("element", "Z", "eV", ""), rows, console())
    if table.ties:
        say(table.ties, "note")
