"""Keys of alignn's model that are said elsewhere here, or stand for nothing that may be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORCES = "forces and stress are always the full derivatives of the energy"
INSTEAD = {
    "name": "set model.backend: alignn",
    "calculate_gradient": "set train.force_weight: 0, or train on properties without energies",
    "graphwise_weight": "set train.energy_weight, or train.targets.NAME.weight",
    "gradwise_weight": "set train.force_weight",
    "stresswise_weight": "set train.stress_weight",
    "atomwise_weight": "set train.targets.NAME.weight",
    "additional_output_weight": "set train.targets.NAME.weight",
    "grad_multiplier": FORCES,
    "add_reverse_forces": FORCES,
    "force_mult_natoms": f"{FORCES}; use energy_mult_natoms",
    "stress_multiplier": f"{FORCES}; units are set under data",
    "batch_stress": FORCES,
    "lg_on_fly": f"{FORCES}, angles included",
    "include_pos_deriv": FORCES,
    "zero_inflated": "alignn itself does not use it",
    "classification": "declare the target with kind: class under data.targets",
    "use_zbl": "add the term zbl under model.physics",
    "zbl_cutoff": "add the term zbl under model.physics",
    "conv_type": "only edge-gated convolutions are built in",
    "num_heads": "only edge-gated convolutions are built in",
}


def refuse_foreign(given: Any) -> Any:
    """Return settings as they were given.

    Raises:
        ValueError: one of alignn's keys has another place.
    """
    found = [key for key in INSTEAD if isinstance(given, Mapping) and key in given]
    if found:
        raise ValueError(f"{found[0]}: not a key here: {INSTEAD[found[0]]}")
    return given
