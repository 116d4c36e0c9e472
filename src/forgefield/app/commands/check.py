"""forgefield check: everything that can be known before a run starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgefield.app.commands.execution import USER_ERROR, console
from forgefield.app.commands.flags import ConfigArgument, RunOption, SetOption

if TYPE_CHECKING:
    from forgefield.app.findings import Finding
    from forgefield.app.run import RunConfig

_STYLES = {"ok": "green", "note": "cyan", "warn": "yellow", "error": "bold red"}


def command(
    config: ConfigArgument,
    run: RunOption = None,
    overrides: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Carry out up to 20 training steps and forecast time, memory and disk.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: seconds and bytes.")] = False,
) -> None:
    """Check a YAML file, its data and this machine before training.

    Looks at settings, data and labels, units, elements and reference
    energies, neighbours at the cutoff, the model, device, disk and run_dir,
    for every run of the file, and for what `forgefield data doctor` finds.
    Writes nothing. The exit code is 2 if a row says error.

    With --dry-run it then trains for up to 20 steps, throws the result away,
    and says what the whole run will take and which batch size suits it.

    [bold]Examples[/bold]

      forgefield check run.yaml

      forgefield check run.yaml --dry-run

      forgefield check run.yaml --run second --set train.stress_weight=100
    """
    from forgefield.app.run import load_run

    out, states, made, described = console(), [], list[Path](), []
    for item in load_run(config, run, overrides or ()):
        found, forecast = _examine(item, made, dry_run)
        states += [finding.state for finding in found]
        described.append({"name": item.name, "task": item.task, "findings": [vars(f) for f in found], **forecast})
        if not as_json:
            _show(found)
        made += [item.run_dir] if item.run_dir is not None else []
    if as_json:
        typer.echo(json.dumps({"runs": described}, indent=2, allow_nan=False))
    count = {state: states.count(state) for state in ("error", "warn")}
    words = ", ".join(f"{number} {state}{'s' if number > 1 else ''}" for state, number in count.items() if number)
    if count["error"]:
        if not as_json:
            out.print(f"{words}. Nothing was written.", style="bold red")
        raise typer.Exit(USER_ERROR)
    if not as_json:
        text = f"ready{f', with {words}' if words else ''}. Next: forgefield run {config}"
        out.print(text, soft_wrap=True, highlight=False)


def _examine(config: RunConfig, made: Sequence[Path], dry_run: bool) -> tuple[list[Finding], dict[str, Any]]:
    """Return all findings of a run, and its forecast as plain values where one was asked for."""
    from forgefield.app.checkup import Checkup
    from forgefield.app.findings import Finding
    from forgefield.app.run_rules import TRAINING
    from forgefield.core.errors import ForgeError

    found = Checkup(config, made).examine()
    if not dry_run:
        return found, {}
    reason = None
    if any(finding.state == "error" for finding in found):
        reason = "not carried out, because of the errors above"
    elif config.task not in TRAINING:
        reason = f"task {config.task} trains nothing"
    elif config.start is not None and not config.start.exists():
        reason = "not carried out: its model does not exist yet"
    if reason is not None:
        return [*found, Finding("dry run", "note", reason)], {"forecast": None}
    from forgefield.app.forecast.dry_run import forecast
    from forgefield.app.forecast.showing import findings

    try:
        result = forecast(config)
    except ForgeError as error:
        return [*found, Finding("dry run", "error", str(error))], {"forecast": None}
    steps = f"{sum(step['batches'] for step in result.steps)} training steps; nothing of them is kept"
    return [*found, Finding("dry run", "ok", steps), *findings(result)], {"forecast": result.to_json()}


def _show(found: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("checked", "", "found", box=None, pad_edge=False)
    for finding in found:
        table.add_row(finding.topic, Text(finding.state, style=_STYLES[finding.state]), Text(finding.text))
    console().print(table)
    console().print()
