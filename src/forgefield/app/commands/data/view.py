"""forgefield data view: a page with plots of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forgefield.app.commands.execution import console, say_notes
from forgefield.app.commands.flags import FormatOption, OnErrorOption, SetOption
from forgefield.core.errors import DataError


def command(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files or folders of any format.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="HTML", help="The page; else FILE.html beside FILE.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    format: FormatOption = None,
    on_error: OnErrorOption = None,
    overrides: SetOption = None,
) -> None:
    """Write a page that shows a data set: energies, forces, sizes, elements, distances.

    One HTML file that needs neither network nor other files. Energies are
    drawn relative to a fit of the elements' energies, so that outliers and a
    second level of theory stand out; drawn in the order of the file they
    show trajectories.

    [bold]Examples[/bold]

      forgefield data view train.xyz --open

      forgefield data view shards/ --out shards.html
    """
    from forgefield.app.data_block import data_block
    from forgefield.app.reports.data_page import write_page
    from forgefield.data.sources import open_sources

    settings = data_block(paths, {"format": format, "on_error": on_error}, overrides or ())
    dataset = open_sources(settings.lmdb, settings)
    if not len(dataset):
        raise DataError("holds no structures", dataset.name, "name a file with at least one")
    say_notes(dataset)
    page = write_page(dataset, out or paths[0].absolute().with_name(f"{paths[0].absolute().name}.html"))
    console().print(f"Written to {page}; open it in a browser", highlight=False, soft_wrap=True)
    if show:
        import webbrowser

        webbrowser.open(page.absolute().as_uri())
