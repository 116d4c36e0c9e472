"""forgefield schema: a JSON schema of run.yaml, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forgefield.app.commands.execution import console


def command(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it to this file instead of the screen.")
    ] = None,
) -> None:
    """Print the JSON schema of run.yaml, so that editors complete keys and mark mistakes.

    With the YAML extension of most editors one line at the top of run.yaml is
    enough:

      # yaml-language-server: $schema=run.schema.json

    [bold]Examples[/bold]

      forgefield schema --out run.schema.json
    """
    import json

    from forgefield.app.schema import run_schema
    from forgefield.core.disk import write_atomic

    text = json.dumps(run_schema(), indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    write_atomic(out, text)
    console().print(f"Written to {out}. First line for run.yaml: # yaml-language-server: $schema={out}", soft_wrap=True)
