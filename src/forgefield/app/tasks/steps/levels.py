"""Which levels of theory of a model are handed out, and what is added to them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from forgefield.app.blocks import ExportSettings
from forgefield.app.physics_block import physics_settings
from forgefield.core.errors import ConfigError, ModelError
from forgefield.data.dataset import Dataset
from forgefield.data.settings import DataSettings
from forgefield.models.bundle import with_physics
from forgefield.models.dispersion import acting, check_added, check_trained
from forgefield.models.potential import Potential
from forgefield.models.widening import Growth, alone, widen


def state_dispersion(potential: Potential, data: DataSettings) -> None:
    """Note in a model what `data.fidelities` says of the labels of its levels.

    Raises:
        ConfigError: a level is unknown, or the model says otherwise.
    """
    listing = ", ".join(potential.heads)
    for name, level in data.fidelities.items():
        if name not in potential.heads:
            what = f"names {name!r}, which no training structure belongs to"
            raise ConfigError(what, "data.fidelities", f"levels of the model: {listing}")
        known = potential.dispersion.setdefault(name, level.dispersion)
        if known != level.dispersion:
            what = f"says that the dispersion of {name} is {level.dispersion}, but the model was made with {known}"
            raise ConfigError(what, "data.fidelities", "remove it")


def check_dispersion(potential: Potential) -> None:
    """Refuse to train a model whose dispersion terms do not go with what its labels hold.

    Raises:
        ModelError: they do not, or it is not stated.
    """
    check_trained(
        acting(dict(potential.physics.items()), potential.heads),
        potential.heads,
        potential.dispersion,
        potential.baseline,
    )


class Handed(NamedTuple):
    """A model to hand out."""

    folder: str  # inside the folder of the artifacts; "" is that folder itself
    potential: Potential


def handed_out(potential: Potential, settings: ExportSettings) -> list[Handed]:
    """Return the models that `export.fidelity` and `export.dispersion` ask for.

    Raises:
        ForgeError: there is no such level, or dispersion would be counted twice.
    """
    if settings.fidelity == "all":
        found = [Handed("", potential)]
    elif settings.fidelity == "each":
        found = [Handed(_folder_name(head, potential), alone(potential, head)) for head in potential.heads]
    else:
        found = [Handed("", alone(potential, settings.fidelity))]
    if settings.dispersion is None:
        return found
    return [one._replace(potential=_dispersed(one.potential, settings.dispersion)) for one in found]


def _dispersed(potential: Potential, asked: dict[str, Any] | str) -> Potential:
    if len(potential.heads) > 1:
        fix = f"name the one it belongs to: export.fidelity: {potential.heads[0]}"
        raise ConfigError(f"one dispersion for {len(potential.heads)} levels of theory", "export.dispersion", fix)
    there = [name for name, heads in acting(dict(potential.physics.items()), potential.heads).items() if any(heads)]
    check_added(potential.heads[0], there, potential.dispersion)
    try:
        term = physics_settings({"d3": {"functional": asked} if isinstance(asked, str) else asked})
    except ValueError as error:
        raise ConfigError(str(error), "export.dispersion", "give the name of a functional, or s6, s8, a1, a2") from None
    return with_physics(potential, term)


def _folder_name(head: str, potential: Potential) -> str:
    name = re.sub(r"[^\w.+-]", "_", head)
    alike = [other for other in potential.heads if re.sub(r"[^\w.+-]", "_", other) == name]
    if len(alike) > 1 or name.strip(".") == "":
        what = f"the levels {', '.join(alike)} would have one folder name"
        raise ModelError(what, "export.fidelity", f"export them one by one: export.fidelity: {head}")
    return name


def untrained_heads(potential: Potential, *seen: Dataset | None) -> list[str]:
    """Return the heads of which the training data hold no structure: their readouts never got a gradient."""
    named = {head for dataset in seen if dataset is not None for head in dataset.heads()}
    if not named:  # structures that name none train the first
        named = {potential.heads[0]}
    return [head for head in potential.heads if head not in named]


def without_untrained(potential: Potential, *seen: Dataset | None) -> tuple[Potential, list[str]]:
    """Return a new potential without the heads that were never trained, and their names."""
    left = untrained_heads(potential, *seen)
    return (widen(potential, Growth(dropped=left)) if left else potential), left
