"""forgefield finetune: continue from trained weights on other data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forgefield.app.commands import flags as f
from forgefield.app.commands.execution import carry_out_flags
from forgefield.app.commands.flags import tree_of
from forgefield.app.commands.train import folder_of, training_flags

ReplayOption = Annotated[
    list[Path] | None,
    typer.Option("--replay", metavar="FILE", rich_help_panel=f.DATA, help="Old data to train on beside the new."),
]
ReplayFractionOption = Annotated[
    float | None,
    typer.Option("--replay-fraction", rich_help_panel=f.DATA, help="Share of old structures in every epoch."),
]


def command(
    model: f.ModelOption,
    data: f.DataOption,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="New folder of the run (default: runs/DATA).")
    ] = None,
    freeze: Annotated[
        str | None, typer.Option("--freeze", rich_help_panel=f.TRAINING, help="head_only: train the readouts only.")
    ] = None,
    head: Annotated[
        str | None, typer.Option("--head", rich_help_panel=f.MODEL, help="Head that the data train, if it has several.")
    ] = None,
    add_elements: Annotated[
        bool, typer.Option("--add-elements", rich_help_panel=f.MODEL, help="Give the model elements it does not know.")
    ] = False,
    estimate_e0: Annotated[
        bool, typer.Option("--estimate-e0", rich_help_panel=f.MODEL, help="Fit the reference energies to the new data.")
    ] = False,
    new_head: Annotated[
        str | None,
        typer.Option("--new-head", rich_help_panel=f.MODEL, help="Name of a new head for the data; old heads stay."),
    ] = None,
    correction: Annotated[
        bool,
        typer.Option("--correction", rich_help_panel=f.MODEL, help="The new head corrects the model, which stays."),
    ] = False,
    replay: ReplayOption = None,
    replay_fraction: ReplayFractionOption = None,
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
    """Train a model further on other data.

    The architecture comes from the bundle; optimizer and schedule start
    afresh. A learning rate a tenth of that of the first training (--lr 0.001)
    is a good start.

    [bold]Examples[/bold]

      forgefield finetune --model runs/first --data new.xyz --lr 0.001

      forgefield finetune -m imported -d new.xyz --freeze head_only

      forgefield finetune -m runs/first -d new.xyz --new-head pbe --estimate-e0 --replay old.xyz

      forgefield finetune -m runs/cheap -d good.xyz --new-head good --estimate-e0 --correction
    """
    folder = folder_of(out, data[0], go_on)
    tree = tree_of([
        ("task", "finetune", "finetune"), ("model_in", model, "--model"), ("train.freeze", freeze, "--freeze"),
        ("train.head_key", head, "--head"),
        ("finetune.new_elements", "add" if add_elements else None, "--add-elements"),
        ("finetune.reference_energies", "estimate" if estimate_e0 else None, "--estimate-e0"),
        ("finetune.head", new_head, "--new-head"), ("finetune.correction", correction or None, "--correction"),
        ("finetune.replay.data", [str(path) for path in replay] if replay else None, "--replay"),
        ("finetune.replay.fraction", replay_fraction, "--replay-fraction"),
        ("run_dir", folder, "--out"), ("name", folder.name or None, "--out"),
        *training_flags(
            data, val, test, val_fraction, energy_key, forces_key, stress_key, e0, epochs, batch_size, lr,
            energy_weight, force_weight, stress_weight, max_minutes, seed, device, dtype,
        ),
    ])  # fmt: skip
    carry_out_flags(tree, overrides, go_on=go_on)
