"""forgefield evaluate: errors of a model on labelled structures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forgefield.app.commands import flags as f
from forgefield.app.commands.execution import carry_out_flags
from forgefield.app.commands.flags import tree_of


def command(
    model: f.ModelOption,
    data: f.DataOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of metrics and predictions.")],
    head: f.HeadOption = None,
    energy_key: f.EnergyKeyOption = None,
    forces_key: f.ForcesKeyOption = None,
    stress_key: f.StressKeyOption = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", rich_help_panel=f.COMPUTING, help="Structures per batch; else found by measuring."
        ),
    ] = None,
    energy_only: f.EnergyOnlyOption = False,
    amp: f.AmpOption = False,
    matmul: f.MatmulOption = None,
    device: f.DeviceOption = None,
    dtype: f.DtypeOption = None,
    overrides: f.SetOption = None,
) -> None:
    """Measure the errors of a model on labelled structures.

    Writes metrics.json and metrics.csv (MAE and RMSE in all, per element, per
    component, per config_type), and predictions.csv and predictions.xyz.

    [bold]Examples[/bold]

      forgefield evaluate --model runs/first --data test.xyz --out judged

      forgefield evaluate -m runs/first -d hot.xyz -o runs/first/evaluation/hot
    """
    tree = tree_of([
        ("task", "evaluate", "evaluate"),
        *predicting_flags(
            model, data, out, head, energy_key, forces_key, stress_key, batch_size, energy_only, amp, matmul,
            device, dtype,
        ),
    ])  # fmt: skip
    carry_out_flags(tree, overrides)


PREDICTING_FLAGS = (
    ("model_in", "--model"), ("data.lmdb", "--data"), ("output.dir", "--out"), ("model.head", "--head"),
    ("data.energy_key", "--energy-key"), ("data.forces_key", "--forces-key"), ("data.stress_key", "--stress-key"),
    ("data.batch_size", "--batch-size"), ("eval.energy_only", "--energy-only"), ("eval.amp", "--amp"),
    ("eval.matmul", "--matmul"),
    ("device", "--device"), ("dtype", "--dtype"),
)  # fmt: skip


def predicting_flags(*values: object) -> list[tuple[str, object, str]]:
    """Pair the values of the shared flags with their keys, in the order of `PREDICTING_FLAGS`."""
    return [(key, value, flag) for (key, flag), value in zip(PREDICTING_FLAGS, values, strict=True)]
