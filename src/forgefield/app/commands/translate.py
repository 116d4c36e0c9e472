"""forgefield translate: settings of another program as a run.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forgefield.app.commands.execution import console
from forgefield.core.errors import ConfigError


def command(
    config: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG...",
            help="Its YAML or JSON file, or a file with its arguments; key=value words over it (alignn, xequinet, "
            "aimnet2mult, there also the model's file).",
        ),
    ],
    dialect: Annotated[str, typer.Option("--from", metavar="PROGRAM", help="The program, for example mace.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")] = Path("run.yaml"),
    force: Annotated[
        bool, typer.Option("--force", help="Write it even if keys have no counterpart, and over a file that is there.")
    ] = False,
) -> None:
    """Turn the settings of another program into a run.yaml.

    Keys that mean something else here carry a comment; defaults of the other
    program that differ from ours are written out; a key without a counterpart
    is an error, or with --force a comment at the end of the file.

    [bold]Examples[/bold]

      forgefield translate --from mace config.yaml

      forgefield translate --from mace train.sh --out runs/first.yaml

      forgefield translate --from alignn config.json root_dir=data

      forgefield translate --from xequinet config.yaml

      forgefield translate --from aimnet2mult train.yaml model.yaml data.fidelity_datasets.0=dft.h5
    """
    from forgefield.app.run import build_runs
    from forgefield.app.translated_text import render
    from forgefield.app.translation import open_dialect, refuse_lost, translate
    from forgefield.app.yaml_source import Place, parse_yaml
    from forgefield.core.disk import write_atomic

    table = open_dialect(dialect)
    if out.exists() and not force:
        raise ConfigError("the file is there already", str(out), "choose another --out, or --force to write over it")
    given = table.read(config)
    sheet = translate(table, given, out.absolute().parent)
    if not force:
        refuse_lost(sheet, given)
    text = render(table, given, sheet)
    build_runs(parse_yaml(text, Place(str(out))), out.absolute().parent)
    write_atomic(out, text)
    screen = console()
    for remark in sheet.lost:
        screen.print(f"left out: {remark.key}: {remark.why}", markup=False, highlight=False, soft_wrap=True)
    commented = sum(bool(line.comment) for line in sheet.lines.values())
    screen.print(
        f"Written to {out}; {commented} keys carry a comment. Next: forgefield check {out}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
