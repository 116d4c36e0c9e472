"""forgefield export: a model as files that other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forgefield.app.commands import flags as f
from forgefield.app.commands.execution import carry_out_flags
from forgefield.app.commands.flags import tree_of


def command(
    model: f.ModelOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the artifacts.")],
    target: Annotated[
        list[str] | None, typer.Option("--target", metavar="NAME", help="Format beside the bundle; repeatable.")
    ] = None,
    fidelity: Annotated[
        str | None,
        typer.Option("--fidelity", metavar="NAME", help="One level of theory of several; each: a folder for each."),
    ] = None,
    dispersion: Annotated[
        str | None,
        typer.Option("--dispersion", metavar="FUNCTIONAL", help="Add D3(BJ) to a level whose labels lack dispersion."),
    ] = None,
    device: f.DeviceOption = None,
    dtype: f.DtypeOption = None,
    overrides: f.SetOption = None,
) -> None:
    """Hand a model out: weights.safetensors, manifest.json, and a TorchScript file that needs no ForgeField.

    The exported model must agree with the original, otherwise nothing is
    written. Training ends with an export of its best weights by itself; this
    command is for checkpoints and imported models.

    [bold]Examples[/bold]

      forgefield export --model runs/first/checkpoints/last --out deploy

      forgefield export --model imported --out deploy --target torchscript --dtype float64

      forgefield export --model imported --out deploy --target aotinductor

      forgefield export --model runs/levels --out deploy --fidelity pbe --dispersion pbe
    """
    tree = tree_of([
        ("task", "export", "export"), ("model_in", model, "--model"), ("run_dir", out, "--out"),
        ("export.dir", ".", "--out"), ("export.targets", target, "--target"),
        ("export.fidelity", fidelity, "--fidelity"), ("export.dispersion", dispersion, "--dispersion"),
        ("device", device, "--device"), ("dtype", dtype, "--dtype"),
    ])  # fmt: skip
    carry_out_flags(tree, overrides)
