"""forgefield train: a new model from flags alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from forgefield.app.commands import flags as f
from forgefield.app.commands.execution import carry_out_flags, console
from forgefield.app.commands.flags import tree_of
from forgefield.core.errors import ConfigError


def command(
    data: f.DataOption,
    backend: Annotated[str, typer.Option("--backend", rich_help_panel=f.MODEL, help="Architecture.")] = "mace",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="New folder of the run (default: runs/DATA).")
    ] = None,
    val: f.ValOption = None,
    test: f.TestOption = None,
    val_fraction: f.ValFractionOption = None,
    energy_key: f.EnergyKeyOption = None,
    forces_key: f.ForcesKeyOption = None,
    stress_key: f.StressKeyOption = None,
    e0: f.E0Option = None,
    epochs: f.EpochsOption = None,
    batch_size: f.BatchOption = None,
    lr: f.RateOption = None,
    energy_weight: f.EnergyWeightOption = None,
    force_weight: f.ForceWeightOption = None,
    stress_weight: f.StressWeightOption = None,
    max_minutes: f.MinutesOption = None,
    seed: f.SeedOption = None,
    device: f.DeviceOption = None,
    dtype: f.DtypeOption = None,
    go_on: f.ContinueOption = False,
    overrides: f.SetOption = None,
) -> None:
    """Train a new model.

    Every key of run.yaml can be given by --set; `forgefield explain` lists
    them. The folder of the run then holds run.resolved.yaml, which
    `forgefield run` repeats, artifacts/ with the model, and report.html to
    look at.

    [bold]Examples[/bold]

      forgefield train --data train.xyz

      forgefield train --data train.xyz --test test.xyz --epochs 50

      forgefield train -d bulk.xyz --stress-weight 1000 --set model.r_max=6
    """
    folder = folder_of(out, data[0], go_on)
    tree = tree_of([
        ("task", "train", "train"), ("backend", backend, "--backend"),
        ("run_dir", folder, "--out"), ("name", folder.name or None, "--out"),
        *training_flags(
            data, val, test, val_fraction, energy_key, forces_key, stress_key, e0, epochs, batch_size, lr,
            energy_weight, force_weight, stress_weight, max_minutes, seed, device, dtype,
        ),
    ])  # fmt: skip
    if backend == "alignn":
        _tell_of_settings(data)
    carry_out_flags(tree, overrides, go_on=go_on)


def _tell_of_settings(data: Sequence[Path]) -> None:
    """Say that settings of alignn beside the data are not read."""
    from forgefield.app.translate.alignn.data import settings_beside

    for file in dict.fromkeys(file for path in data for file in settings_beside(Path(path))):
        text = f"note: {file} holds settings of alignn, which are not read here; a run.yaml of them is made by: "
        text += f"forgefield translate --from alignn {file}"
        console().print(text, markup=False, highlight=False, soft_wrap=True)


TRAINING_FLAGS = (
    ("data.train", "--data"), ("data.val", "--val"), ("data.test", "--test"), ("data.val_fraction", "--val-fraction"),
    ("data.energy_key", "--energy-key"), ("data.forces_key", "--forces-key"), ("data.stress_key", "--stress-key"),
    ("data.e0", "--e0"), ("train.epochs", "--epochs"), ("train.batch_size", "--batch-size"), ("train.lr", "--lr"),
    ("train.energy_weight", "--energy-weight"), ("train.force_weight", "--force-weight"),
    ("train.stress_weight", "--stress-weight"), ("train.max_minutes", "--max-minutes"), ("train.seed", "--seed"),
    ("device", "--device"), ("dtype", "--dtype"),
)  # fmt: skip


def training_flags(*values: object) -> list[tuple[str, object, str]]:
    """Pair the values of the shared training flags with their keys, in the order of `TRAINING_FLAGS`."""
    return [(key, value, flag) for (key, flag), value in zip(TRAINING_FLAGS, values, strict=True)]


def folder_of(out: Path | None, data: Path, go_on: bool) -> Path:
    """Return the folder of a run: the one given, or one that is free.

    Raises:
        ConfigError: a run shall go on, and its folder is not given.
    """
    if go_on and out is None:
        raise ConfigError("--continue needs the folder of the run", "--out", "give it: runs without it get new ones")
    return out if out is not None else free_folder(data)


def free_folder(data: Path) -> Path:
    """Return runs/<name of the data>, with a number behind it if that folder is taken."""
    stem = data.name.split(".")[0] or "run"
    folder, number = Path("runs") / stem, 2
    while folder.exists():
        folder, number = Path("runs") / f"{stem}-{number}", number + 1
    return folder
