"""Command line flags that several commands share, and how they become the tree that run.yaml would give."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from forgefield.app.yaml_source import Node, Place, merge, node_of, parse_yaml

DATA, MODEL, TRAINING, COMPUTING = "Data", "Model", "Training", "Computing"

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any key of run.yaml, dotted, repeatable: --set train.ema_decay=null."
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="Format of the files (`forgefield data info --formats`); else by what they hold."),
]
OnErrorOption = Annotated[
    str | None,
    typer.Option(
        "--on-error",
        help="skip: leave out files and structures that cannot be read, and tell which; raise: stop at the first.",
    ),
]
RunOption = Annotated[
    list[str] | None, typer.Option("--run", metavar="NAME", help="Only this run of a `runs:` list; repeatable.")
]
ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file, for example run.yaml.")]
DataOption = Annotated[
    list[Path],
    typer.Option(
        "--data", "-d", metavar="FILE", rich_help_panel=DATA,
        help="Structures: extxyz (plain, .xz, .gz), LMDB file or folder of shards; repeatable.",
    ),
]  # fmt: skip
ValOption = Annotated[
    list[Path] | None,
    typer.Option("--val", metavar="FILE", rich_help_panel=DATA, help="Validation structures; else a part of --data."),
]
TestOption = Annotated[
    list[Path] | None,
    typer.Option("--test", metavar="FILE", rich_help_panel=DATA, help="Structures to evaluate after training."),
]
ValFractionOption = Annotated[
    float | None, typer.Option("--val-fraction", rich_help_panel=DATA, help="Part of --data kept for validation.")
]
EnergyKeyOption = Annotated[
    str | None, typer.Option("--energy-key", rich_help_panel=DATA, help="Name of the energy in the files.")
]
ForcesKeyOption = Annotated[
    str | None, typer.Option("--forces-key", rich_help_panel=DATA, help="Name of the forces in the files.")
]
StressKeyOption = Annotated[
    str | None, typer.Option("--stress-key", rich_help_panel=DATA, help="Name of the stress in the files.")
]
E0Option = Annotated[
    str | None,
    typer.Option(
        "--e0",
        rich_help_panel=DATA,
        help="Energies of lone atoms: auto, isolated, least_squares, a file, '{H: -13.6}'.",
    ),
]
ModelOption = Annotated[
    Path,
    typer.Option(
        "--model", "-m", metavar="BUNDLE", rich_help_panel=MODEL,
        help="The model: a folder with manifest.json (runs/first/artifacts), or the manifest itself.",
    ),
]  # fmt: skip
HeadOption = Annotated[
    str | None, typer.Option("--head", rich_help_panel=MODEL, help="Head to use; a single-head model needs none.")
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", rich_help_panel=TRAINING, help="Passes over the data.")]
BatchOption = Annotated[
    int | None, typer.Option("--batch-size", rich_help_panel=TRAINING, help="Structures per batch.")
]
RateOption = Annotated[float | None, typer.Option("--lr", rich_help_panel=TRAINING, help="Initial learning rate.")]
EnergyWeightOption = Annotated[
    float | None, typer.Option("--energy-weight", rich_help_panel=TRAINING, help="Weight of the energy loss.")
]
ForceWeightOption = Annotated[
    float | None, typer.Option("--force-weight", rich_help_panel=TRAINING, help="Weight of the force loss.")
]
StressWeightOption = Annotated[
    float | None, typer.Option("--stress-weight", rich_help_panel=TRAINING, help="Weight of the stress loss.")
]
MinutesOption = Annotated[
    float | None, typer.Option("--max-minutes", rich_help_panel=TRAINING, help="Stop after this time; resume goes on.")
]
ContinueOption = Annotated[
    bool,
    typer.Option(
        "--continue",
        help="Go on where the run in its folder stopped, however it did; begin if there is none; rest if it is done.",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", rich_help_panel=TRAINING, help="Seed of the weights and the order of the data.")
]
EnergyOnlyOption = Annotated[
    bool, typer.Option("--energy-only", rich_help_panel=COMPUTING, help="Skip forces and stress.")
]
AmpOption = Annotated[
    bool, typer.Option("--amp", rich_help_panel=COMPUTING, help="Half precision where it is safe (CUDA only).")
]
MatmulOption = Annotated[
    str | None,
    typer.Option("--matmul", rich_help_panel=COMPUTING, help="Products of float32 matrices: float32, tf32 or bf16."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", rich_help_panel=COMPUTING, help="auto, cpu, cuda or cuda:N.")
]
DtypeOption = Annotated[str | None, typer.Option("--dtype", rich_help_panel=COMPUTING, help="float32 or float64.")]


def tree_of(flags: Iterable[tuple[str, Any, str]]) -> Node:
    """Return the tree that flags describe.

    Args:
        flags: (dotted key of run.yaml, value, flag as typed); those whose value is None or False are left out.
    """
    tree = Node({}, Place("command line"))
    for key, value, flag in flags:
        if value is None or value is False or (isinstance(value, list) and not value):
            continue
        node = _node(value, Place(flag))
        for part in reversed(key.split(".")):
            node = Node({part: node}, Place(flag))
        tree = Node(merge(tree, node).value, tree.place)
    return tree


def _node(value: Any, place: Place) -> Node:
    """Return a flag's value as YAML would give it; a block in braces is read as YAML."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return parse_yaml(value, place, positions=False)
    if isinstance(value, list):
        return node_of([str(item) if isinstance(item, Path) else item for item in value], place)
    return node_of(str(value) if isinstance(value, Path) else value, place)
