"""forgefield infer: energies and forces of structures without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forgefield.app.commands import flags as f
from forgefield.app.commands.evaluate import predicting_flags
from forgefield.app.commands.execution import carry_out_flags
from forgefield.app.commands.flags import tree_of


def command(
    model: f.ModelOption,
    data: f.DataOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the predictions.")],
    head: f.HeadOption = None,
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
    """Predict energies, forces and stress of structures; labels are not needed.

    Writes predictions.xyz (energy, forces, stress of every structure, in eV
    and Å) and predictions.csv (energies).

    [bold]Examples[/bold]

      forgefield infer --model runs/first/artifacts --data new.xyz --out predictions
    """
    tree = tree_of([
        ("task", "infer", "infer"),
        *predicting_flags(
            model, data, out, head, None, None, None, batch_size, energy_only, amp, matmul, device, dtype
        ),
    ])  # fmt: skip
    carry_out_flags(tree, overrides)
