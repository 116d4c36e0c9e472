"""forgefield import: a model of another program as a bundle of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from forgefield.app.commands.execution import console
from forgefield.core.errors import ForgeError


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The foreign checkpoint, for example model.model.")],
    backend_python: Annotated[
        Path,
        typer.Option("--backend-python", metavar="PYTHON", help="Python interpreter that has the foreign program."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="New folder of the bundle.")],
    program: Annotated[
        Literal["mace-torch", "aimnet"], typer.Option("--program", help="The program that wrote the checkpoint.")
    ] = "mace-torch",
) -> None:
    """Turn a checkpoint of mace-torch or aimnet into a bundle of ForgeField.

    The checkpoint is opened only by the other interpreter, which hands plain
    numbers back; nothing of it is unpickled here. The bundle then works with
    finetune, evaluate, infer, export and in ASE.

    [bold]Examples[/bold]

      forgefield import model.model --backend-python PYTHON --out imported

      forgefield import aimnet2.pt --program aimnet --backend-python PYTHON --out imported

      forgefield evaluate --model imported --data test.xyz --out judged
    """
    if not model.is_file():
        raise ForgeError("no such file", str(model), "give the checkpoint, for example model.model")
    if program == "aimnet":
        from forgefield.engines.backends.aimnet import import_model
    else:
        from forgefield.engines.backends.mace_torch import import_model
    import_model(model, backend_python, out)
    console().print(f"The bundle stands in {out}. Try: forgefield infer --model {out} --data FILE --out FOLDER")
