"""Weights of the aimnet package: read by a worker in its own interpreter, mapped here to ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from forgefield.core.errors import ModelError
from forgefield.core.settings import Settings
from forgefield.engines.backends.exported import Arrays, Program, import_checkpoint
from forgefield.models.architectures.aimnet2.settings import AevSettings, Aimnet2Settings
from forgefield.models.bundle import load_weights
from forgefield.models.potential import PHYSICS, Potential, build_potential

WORKER = Path(__file__).parent.parent / "workers" / "aimnet.py"
PROGRAM = Program("aimnet", WORKER, "an AIMNet2 model of the aimnet package: .pt, .jpt or a training checkpoint")
NAMES = {"embedding": "afv.weight", "convolve.mix": "conv_a.agh", "convolve_charges.mix": "conv_q.agh"}


def import_model(path: Path, python: Path, out: Path) -> Potential:
    """Turn a checkpoint of the aimnet package into a bundle.

    Args:
        path: .pt or .jpt file; opened only by the other interpreter.
        python: an interpreter that has aimnet.
        out: folder of the new bundle.

    Raises:
        ModelError: the model uses something we do not have; nothing is written.
    """
    return import_checkpoint(PROGRAM, path, python, out, convert)


def convert(model: Mapping[str, Any], arrays: Arrays) -> Potential:
    """Build our potential with the weights of an exported model.

    The atomic shifts become reference energies, which are kept in double precision.

    Args:
        model: settings.
        arrays: weights under the package's names.

    Raises:
        ModelError: it has parts that we do not have.
    """
    elements = sorted(model["elements"])
    shifts = arrays.get("outputs.atomic_shift.shifts.weight", np.zeros((max(elements) + 1, 1)))
    potential = build_potential(
        "aimnet2",
        aimnet2_settings(model),
        elements=elements,
        reference_energies={"default": {z: float(shifts[z, 0]) for z in elements}},
        avg_num_neighbors=1.0,  # this architecture has no use for it
        physics=_physics(model["physics"]),
        dtype=getattr(torch, model["dtype"]),
    )
    load_weights(potential, _weights(potential, arrays, elements), "the checkpoint")
    return potential


def aimnet2_settings(model: Mapping[str, Any]) -> Aimnet2Settings:
    """Translate the settings."""
    keys = ("nfeature", "d2features", "ncomb_v", "hidden", "aim_size", "energy_hidden", "num_charge_channels")
    aev = {**model["aev"], "nshifts_s": len(model["aev"]["shifts_s"]), "rmin": max(0.0, min(model["aev"]["shifts_s"]))}
    try:
        return Aimnet2Settings(aev=AevSettings.model_validate(aev), **{key: model[key] for key in keys})
    except ValidationError as error:
        raise _unsupported("; ".join(e["msg"] for e in error.errors())) from error


def _physics(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Settings]:
    """Settings of the Coulomb and dispersion terms that belong to the energy."""
    values: dict[str, dict[str, Any]] = {}
    for name, numbers in given.items():
        if name not in PHYSICS.names():
            raise _unsupported(f"the term {name}")
        values[name] = dict(numbers)
    if coulomb := values.get("coulomb"):
        if coulomb["envelope"] != "exp":
            raise _unsupported(f"Coulomb with the envelope {coulomb['envelope']}")
        self_energy = {"dsf_self_energy": "aimnet"} if coulomb["method"] == "dsf" else {}
        values["coulomb"] = {"method": coulomb["method"], "short_range_cutoff": coulomb["rc"], **self_energy}
    try:
        return {name: PHYSICS.entry(name).settings.model_validate(v) for name, v in values.items()}
    except ValidationError as error:
        raise _unsupported("; ".join(e["msg"] for e in error.errors())) from error


def _unsupported(what: str) -> ModelError:
    return ModelError(f"the checkpoint uses {what}, which ForgeField's AIMNet2 does not have", fix="retrain it here")


def _weights(potential: Potential, arrays: Arrays, elements: list[int]) -> dict[str, torch.Tensor]:
    """All parameters under our names: matrices transposed, tables cut to the elements, shifts 0."""
    own = dict(potential.architecture.named_parameters())
    found = {ours: arrays[theirs] for ours, theirs in NAMES.items()}
    found["embedding"] = found["embedding"][elements]
    for name in own:
        parts = name.split(".")
        if parts[0] == "passes":
            theirs = f"mlps.{parts[1]}.{2 * int(parts[3])}."
            found[name] = arrays[theirs + "weight"].T if parts[2] == "weights" else arrays[theirs + "bias"]
        elif parts[0] == "readout" and len(parts) == 3:
            theirs = f"outputs.energy_mlp.mlp.{2 * int(parts[2])}."
            value = arrays[theirs + "weight"].T if parts[1] == "weights" else arrays[theirs + "bias"]
            found[name] = value[None]
    found["readout.shifts"] = np.zeros((1, len(elements)))
    return {name: torch.as_tensor(np.ascontiguousarray(value)) for name, value in found.items()}
