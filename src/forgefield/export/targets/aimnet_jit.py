"""TorchScript with the dictionary interface of AIMNet2's compiled models: one level of theory, molecules."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML

from forgefield.core.catalog import Entry
from forgefield.core.errors import ModelError
from forgefield.core.settings import Settings
from forgefield.core.structure import Structure
from forgefield.export.dictionary import DictionaryPotential
from forgefield.export.prediction import Candidate, Prediction
from forgefield.export.target import METADATA, Target, gives
from forgefield.export.targets.torchscript import metadata, quiet, scriptable, trace
from forgefield.models.potential import Potential

META = "model_meta.yaml"


class AimnetJitSettings(Settings):
    """Settings of the file: there are none yet."""


class AimnetJitTarget(Target):
    """Writes and reads the file; any architecture, molecules only.

    Args:
        settings: of the file.
    """

    filename = "model.jpt"
    format = "aimnet_jit"

    def __init__(self, settings: AimnetJitSettings | None = None) -> None:
        self.settings = settings or AimnetJitSettings()

    def takes(self, structure: Structure) -> bool:
        """Whether the file is meant for a structure: it has no input for a cell."""
        return not structure.pbc.any() and structure.volume == 0.0

    def write(self, potential: Potential, path: Path, sample: Structure) -> None:
        """Trace the model, wrap it in the script that finds neighbours in dense batches, and save it.

        Raises:
            ModelError: the model has several levels of theory, or is meant for crystals.
        """
        if len(potential.heads) > 1:
            listing = ", ".join(potential.heads)
            raise ModelError(f"holds one level of theory, not {listing}", path.name, "name one: export.fidelity")
        if not potential.context.energy or potential.needs.features or potential.needs.atom_charges:
            what = "gives an energy from coordinates, elements, charge and multiplicity alone, unlike this model"
            raise ModelError(what, path.name, "export to torchscript")
        if not potential.takes([False] * 3):
            raise ModelError("has no input for a cell, which this model needs", path.name, "export to torchscript")
        core = copy.deepcopy(potential).cpu().eval().requires_grad_(False)
        with quiet():
            traced = trace(core, sample)
            module = torch.jit.script(DictionaryPotential(scriptable(core, traced), core.needs))
            buffer = io.BytesIO()
            about = metadata(core, traced) | {"inputs": "coord (B,N,3), numbers (B,N), charge (B), mult (B)"}
            torch.jit.save(module, buffer, _extra_files={METADATA: json.dumps(about)})
        path.write_bytes(buffer.getbuffer())

    def companions(self, potential: Potential) -> dict[str, str]:
        """Return the meta file that scripts for AIMNet2mult's compiled models read."""
        text = io.StringIO()
        YAML().dump(describe_level(potential), text)
        return {META: text.getvalue()}

    def read(self, path: Path) -> Candidate:
        """Load the file; the function returned calls it with one molecule."""
        with quiet():
            module = torch.jit.load(str(path), map_location="cpu")

        def candidate(structure: Structure) -> Prediction:
            given = {
                "coord": torch.from_numpy(np.array(structure.positions)).unsqueeze(0),
                "numbers": torch.from_numpy(np.array(structure.numbers)).unsqueeze(0),
                "charge": torch.tensor([structure.charge or 0.0]),
                "mult": torch.tensor([float(structure.multiplicity or 1)]),
            }
            with torch.no_grad():
                found = {name: value[0].double().numpy() for name, value in module(given).items()}
            return Prediction(float(found["energy"]), found["forces"], np.zeros((3, 3)), found["atom_energies"])

        return candidate


def describe_level(potential: Potential) -> dict[str, Any]:
    """Return what the meta file says: level, self-atomic energies in eV by atomic number, cutoff, dispersion."""
    energies = zip(potential.elements, potential.self_energies[0].tolist(), strict=True)
    term = next((name for name in ("d3", "d4") if name in potential.added_physics), None)
    dispersion: dict[str, Any] = {"type": "none", "embedded": False}
    if term is not None:
        params = potential.added_physics[term].model_dump(mode="json", exclude_none=True)
        kind = {"d3": "d3bj", "d4": "d4"}[term]
        dispersion = {"type": kind, "functional": params.pop("functional", None), "params": params, "embedded": True}
    return {
        "fidelity_level": 0,
        "fidelity_name": potential.heads[0],
        "fidelity_offset": 0,
        "num_fidelities": 1,
        "sae": {int(z): float(e) for z, e in energies},
        "sae_embedded": True,
        "cutoff": float(potential.cutoff),
        "dispersion": dispersion,
        "labels_dispersion": potential.dispersion.get(potential.heads[0], "not stated"),
        **gives(potential),
    }


ENTRY = Entry(
    settings=AimnetJitSettings, build=AimnetJitTarget, summary="TorchScript with AIMNet2's dictionary interface"
)
