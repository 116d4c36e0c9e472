"""Checkpoints of earlier formats: one function per change turns a record into that of the next format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from forgefield.core.errors import ModelError

FORMAT = "forgefield-checkpoint-3"
Record = dict[str, Any]
Tensors = dict[str, Tensor]


def _to_2(record: Record, tensors: Tensors) -> None:
    """Random states are kept by process, and the stamp holds every setting of the run, here not yet known."""
    record["stamp"] |= {"described": None, "processes": 1}
    record["random"] = [record["random"]]
    for name in [name for name in tensors if name.startswith("random.")]:
        tensors[f"random.0.{name.removeprefix('random.')}"] = tensors.pop(name)
    running = record["progress"]["running"]
    rate = running.pop("learning_rate", None)
    if rate is not None:
        running["rates"] = {str(group["name"]): rate for group in record["optimizer"]["groups"]}
    _tell_rates(record)


def _tell_rates(record: Record) -> None:
    """Keep first and present rates beside the state of the schedule, which stood alone before there were warm-ups.

    All groups had the rate of the settings then, and what the schedule had made of it stands in the optimizer's groups.
    """
    state = record["schedule"]
    if state is None or "rates" not in state:
        rates = [float(group["lr"]) for group in record["optimizer"]["groups"]]
        first = [float(record["stamp"]["settings"]["lr"])] * len(rates)
        updates = record["progress"]["update"]
        record["schedule"] = {"first": first, "rates": rates, "updates": updates, "schedule": state, "rests": False}


_OPEN_SINCE_3 = {
    **{
        "data.energy_unit": "eV",
        "data.length_unit": "Ang",
        "data.stress_unit": "eV/Ang^3",
        "data.dipole_unit": "e*Ang",
    },
    **{"data.stress_sign": "ase", "data.charges_key": None, "data.spin_charges_key": None, "data.dipole_key": None},
}
"""What was usual for keys of data that are now `auto` unless given: what the file declares, or the same as before."""


def _to_3(record: Record, tensors: Tensors) -> None:
    """Units and names of labels are left to the file where they are as usual."""
    del tensors
    described = record["stamp"]["described"] or {}
    described.update({key: "auto" for key, usual in _OPEN_SINCE_3.items() if described.get(key, "") == usual})


UPGRADES: dict[str, tuple[str, Callable[[Record, Tensors], None]]] = {
    "forgefield-checkpoint-1": ("forgefield-checkpoint-2", _to_2),
    "forgefield-checkpoint-2": ("forgefield-checkpoint-3", _to_3),
}
"""By format: the next one, and what changes record and tensors into it, in place."""


def upgrade(record: Record, tensors: Tensors, where: Path) -> list[str]:
    """Bring record and tensors of a checkpoint to the present format, in place.

    Returns:
        A sentence if anything was done.

    Raises:
        ModelError: the format is none that is known, e.g. of a later version.
    """
    first = record["format"]
    while record["format"] != FORMAT:
        if record["format"] not in UPGRADES:
            known = ", ".join([*UPGRADES, FORMAT])
            what = f"format {first!r} is not one of {known}"
            raise ModelError(what, str(where), "continue it with the version of ForgeField that wrote it")
        following, change = UPGRADES[record["format"]]
        change(record, tensors)
        record["format"] = following
    return [] if first == FORMAT else [f"checkpoint: read as {first}, continued as {FORMAT}"]
