"""forgefield import: a model of another program as a bundle of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from forgefield.app.commands.execution import console
from forgefield.core.errors import ConfigError, ForgeError


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The foreign checkpoint, for example model.model.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="New folder of the bundle.")],
    backend_python: Annotated[
        Path | None,
        typer.Option(
            "--backend-python",
            metavar="PYTHON",
            help="mace-torch, aimnet: Python interpreter that has the foreign program.",
        ),
    ] = None,
    program: Annotated[
        Literal["mace-torch", "aimnet", "alignn"],
        typer.Option("--program", help="The program that wrote the checkpoint."),
    ] = "mace-torch",
    elements: Annotated[
        str | None,
        typer.Option("--elements", metavar="Si,O,...", help="alignn: elements that it was trained on; or all."),
    ] = None,
) -> None:
    """Turn a checkpoint of mace-torch, aimnet or alignn into a bundle of ForgeField.

    Checkpoints of mace-torch and aimnet are opened only by the other interpreter,
    which hands plain numbers back. Of alignn weights (best_model.pt) and the
    config.json beside them are read here, by a reader that calls nothing in a
    file, and alignn need not be installed. The bundle then works with finetune,
    evaluate, infer, export and in ASE.

    [bold]Examples[/bold]

      forgefield import model.model --backend-python PYTHON --out imported

      forgefield import aimnet2.pt --program aimnet --backend-python PYTHON --out imported

      forgefield import best_model.pt --program alignn --elements Si,O --out imported

      forgefield evaluate --model imported --data test.xyz --out judged
    """
    if not model.is_file():
        raise ForgeError("no such file", str(model), "give the checkpoint, for example model.model")
    if program == "alignn":
        if backend_python is not None:
            raise ConfigError(
                "has no effect with --program alignn, which needs no interpreter", "--backend-python", "remove it"
            )
        _of_alignn(model, elements, out)
    else:
        if elements is not None:
            raise ConfigError(
                f"has no effect with --program {program}, whose checkpoints say it", "--elements", "remove it"
            )
        if backend_python is None:
            fix = f"give the Python interpreter that has {program}: --backend-python PYTHON"
            raise ConfigError(f"a checkpoint of {program} is opened by its own program", "--backend-python", fix)
        if program == "aimnet":
            from forgefield.engines.backends.aimnet import import_model
        else:
            from forgefield.engines.backends.mace_torch import import_model
        import_model(model, backend_python, out)
    console().print(f"The bundle stands in {out}. Try: forgefield infer --model {out} --data FILE --out FOLDER")


def _of_alignn(model: Path, elements: str | None, out: Path) -> None:
    from forgefield.app.translate.alignn.checkpoint import describe, elements_of
    from forgefield.engines.backends.alignn import import_model

    settings, aims, warnings, notes = describe(model)
    potential = import_model(model, settings, aims, elements_of(elements, settings.atom_features), out, warnings)
    kinds = [*(["energy", "forces", "stress"] if aims.energy else []), *potential.targets.quantities]
    console().print(f"alignn, predicts {', '.join(kinds)}", highlight=False)
    for warning in warnings:
        console().print(f"warning: {warning}", style="yellow", highlight=False)
    for note in notes:
        console().print(f"note: {note}", highlight=False)
