"""forgefield check: everything that can be known before a run starts."""

from __future__ import annotations

from pathlib import Path

import typer

from forgefield.app.commands.execution import USER_ERROR, console
from forgefield.app.commands.flags import ConfigArgument, RunOption, SetOption

_STYLES = {"ok": "green", "note": "cyan", "warn": "yellow", "error": "bold red"}


def command(config: ConfigArgument, run: RunOption = None, overrides: SetOption = None) -> None:
    """Check a YAML file, its data and this machine before training.

    Looks at settings, data and labels, units, elements and reference
    energies, neighbours at the cutoff, the model, device, disk and run_dir,
    for every run of the file. Writes nothing. The exit code is 2 if a row
    says error.

    [bold]Examples[/bold]

      forgefield check run.yaml

      forgefield check run.yaml --run second --set train.stress_weight=100
    """
    from rich.table import Table
    from rich.text import Text

    from forgefield.app.checkup import Checkup
    from forgefield.app.run import load_run

    configs = load_run(config, run, overrides or ())
    out, states, made = console(), [], list[Path]()
    for item in configs:
        table = Table("checked", "", "found", box=None, pad_edge=False)
        for finding in Checkup(item, made).examine():
            states.append(finding.state)
            table.add_row(finding.topic, Text(finding.state, style=_STYLES[finding.state]), Text(finding.text))
        out.print(table)
        out.print()
        made += [item.run_dir] if item.run_dir is not None else []
    count = {state: states.count(state) for state in ("error", "warn")}
    words = ", ".join(f"{number} {state}{'s' if number > 1 else ''}" for state, number in count.items() if number)
    if count["error"]:
        out.print(f"{words}. Nothing was written.", style="bold red")
        raise typer.Exit(USER_ERROR)
    out.print(
        f"ready{f', with {words}' if words else ''}. Next: forgefield run {config}", soft_wrap=True, highlight=False
    )
