"""forgefield resume: continue a run that was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forgefield.app.commands import flags as f
from forgefield.app.commands.execution import carry_out
from forgefield.app.commands.flags import tree_of
from forgefield.app.yaml_source import Node, Place, merge, read_yaml
from forgefield.core.errors import ConfigError

if TYPE_CHECKING:
    from forgefield.app.run import RunConfig


def command(
    folder: Annotated[Path | None, typer.Argument(metavar="RUN_DIR", help="Folder of the run.")] = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", metavar="RUN_DIR", help="The same, as a flag.")] = None,
    epochs: f.EpochsOption = None,
    max_minutes: f.MinutesOption = None,
    device: f.DeviceOption = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="KEY,...", help="Continue although these keys, or data.contents, changed."),
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Continue whatever changed, as far as the model allows.")
    ] = False,
    overrides: f.SetOption = None,
) -> None:
    """Continue a run where it stopped, as if it had never stopped.

    Settings come from run.resolved.yaml in the folder, weights and the state
    of the optimizer from checkpoints/last. To train longer than first meant,
    give the new total: --epochs 200. Other changes are refused unless they
    are accepted; each is then kept in events.jsonl.

    SIGTERM, SIGUSR1 and Ctrl-C end a run after the update in hand; it is
    saved and ends with exit code 75. This command, or the one that began the
    run, goes on from there.

    [bold]Examples[/bold]

      forgefield resume runs/first

      forgefield resume runs/first --epochs 200

      forgefield resume runs/first --set train.lr=0.001 --accept train.lr
    """
    if (folder is None) == (run_dir is None):
        raise ConfigError("give the folder of the run to continue, once", fix="forgefield resume runs/first")
    chosen = folder if folder is not None else run_dir
    assert chosen is not None
    flags = tree_of([
        ("train.epochs", epochs, "--epochs"), ("train.max_minutes", max_minutes, "--max-minutes"),
        ("device", device, "--device"), ("accept", accepted(accept, accept_changes), "--accept"),
    ])  # fmt: skip
    carry_out([resumed(chosen, flags, overrides or ())])


def accepted(keys: list[str] | None, all_of_them: bool) -> list[str] | None:
    """Return the keys of the --accept flags, which may be joined by commas."""
    if all_of_them:
        return ["all"]
    return [key.strip() for text in keys for key in text.split(",") if key.strip()] if keys else None


def resumed(folder: Path, flags: Node, overrides: Sequence[str]) -> RunConfig:
    """Return the run of a folder as one to resume."""
    from forgefield.app.folder import RunFolder
    from forgefield.app.run import build_runs, parse_override

    path = RunFolder.open(folder).resolved
    here = Place(str(path))
    tree = read_yaml(path)
    last = folder.absolute() / "checkpoints" / "last"
    for key, value in (("task", "resume"), ("run_dir", str(folder.absolute())), ("model_in", str(last))):
        tree = tree.with_child(key, Node(value, here))
    model = tree.child("model")
    if model is not None and model.is_mapping:
        # A finetuned run began at another bundle; now its own checkpoint is the start.
        tree = tree.with_child("model", model.with_child("manifest", None).with_child("weights", None))
    changes = [parse_override(text) for text in overrides]
    return build_runs(merge(tree, flags), Path().absolute(), (), changes)[0]
