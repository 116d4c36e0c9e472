"""A finished model as the base of a correction: its network stays, a second one learns what a new level lacks."""

from __future__ import annotations

import torch

from forgefield.core.errors import ModelError
from forgefield.models.architecture import Fidelity
from forgefield.models.bundle import describe, rebuild
from forgefield.models.potential import Potential
from forgefield.models.widening import Growth, TensorRow, alone, inventory, widen


def as_correction(potential: Potential, base: str, scale: float, seed: int) -> Potential:
    """Return a potential whose other level is its level `base` plus a correction by a network of its own.

    Predictions of the base stay what they are. The other level has the same reference energies, shift, scale and
    physics terms as before. The correction begins with what the base knows of structures: a copy of its weights, but
    random readouts.

    Args:
        potential: of two levels that share one network, as `widen` makes it; it stays as it is.
        base: the level whose network is kept.
        scale: unit of the correction's energies, in units of the base's.
        seed: of the readouts.

    Raises:
        ModelError: the network is not one of a single level.
    """
    known = alone(potential, base)
    _check(known)
    fidelity = Fidelity(base=base, correction_scale=scale)
    made_for = {"first": [known.context.element_norm, len(potential.heads)]}
    new = rebuild({**describe(potential), "fidelity": fidelity.model_dump(), **made_for}, seed=seed)
    own, copied = dict(new.architecture.named_parameters()), _copied(new)
    with torch.no_grad():
        for name, value in known.architecture.named_parameters():
            own[f"base.{name}"].copy_(value)
            if f"correction.{name}" in copied:
                own[f"correction.{name}"].copy_(value)
    return new.to(next(potential.parameters()).device)


def inventory_of_correction(old: Potential, new: Potential, growth: Growth) -> list[TensorRow]:
    """Return where every number comes from: readouts of the correction from nowhere, all else from the loaded model."""
    (head,) = growth.heads
    first = Growth(growth.elements, {}, growth.dropped)
    tables = {"self_energies", "scale", "shift"}
    found = inventory(old, widen(old, first), first)
    rows = [row._replace(name=f"base.{row.name}") for row in found if row.name not in tables]
    copied = _copied(new)
    for name, parameter in new.architecture.named_parameters():
        if name.startswith("correction."):
            n, note = parameter.numel(), f"readout of the correction of head {head}"
            known = n if name in copied else 0
            rows.append(TensorRow(name, tuple(parameter.shape), known, n - known, 0, "" if known else note))
    return rows + [row for row in inventory(old, widen(old, growth), growth) if row.name in tables]


def _copied(potential: Potential) -> set[str]:
    """Parameters of the correction that begin as those of the base: all but its readouts."""
    own = {name: p.shape for name, p in potential.architecture.named_parameters()}
    readouts = {n for n in potential.architecture.head_parameters() if n.startswith("correction.")}
    names = {name for name in own if name.startswith("correction.")} - readouts
    return {name for name in names if own.get(f"base.{name.removeprefix('correction.')}") == own[name]}


def _check(known: Potential) -> None:
    """Refuse a network that cannot be a base as it is: it must not know of other levels."""
    fidelity, where = known.context.fidelity, "finetune.correction"
    if not known.context.energy:
        raise ModelError("the loaded model has no energies that could be corrected", where, "remove it")
    if fidelity.base is not None:
        fix = "add a further level with finetune.copy_head, without correction"
        raise ModelError(f"the loaded model is a correction to {fidelity.base!r} already", where, fix)
    if known.context.head_norm > 1 or fidelity.embedding == "added":
        fix = "train the level alone and correct that model, or remove correction"
        raise ModelError("the loaded network was made for several levels of theory", where, fix)
