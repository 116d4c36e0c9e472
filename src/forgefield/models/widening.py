"""A potential made wider: further elements, further heads, without changing what it says of the old ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from forgefield.core.elements import place_of, symbol
from forgefield.core.errors import ModelError
from forgefield.models.potential import Potential, build_potential


@dataclass(frozen=True)
class Growth:
    """What is added to a potential, and from what the added weights begin.

    Args:
        elements: new atomic number -> known ones whose weights it begins with (the mean of several).
        heads: new head -> known head whose readout it copies.
        dropped: known heads that are left behind; they may be copied.
    """

    elements: Mapping[int, Sequence[int]] = field(default_factory=dict)
    heads: Mapping[str, str] = field(default_factory=dict)
    dropped: Sequence[str] = ()


class TensorRow(NamedTuple):
    """Where the numbers of one tensor come from; loaded + new = numbers it has now, loaded + left = it had."""

    name: str
    shape: tuple[int, ...]
    loaded: int
    new: int
    left: int
    note: str

    @property
    def group(self) -> str:
        """The part of the model it belongs to."""
        parts = self.name.split(".")
        return ".".join(parts[:2]) if len(parts) > 2 and parts[1].isdigit() else parts[0]


def nearest_element(number: int, known: Sequence[int]) -> int:
    """Return the known element nearest in the periodic table: group counts twice as much as period.

    Among equals the one of nearer atomic number is taken, then the lighter one.
    """
    period, group = place_of(number)

    def distance(z: int) -> tuple[int, int, int]:
        its_period, its_group = place_of(z)
        return 2 * abs(its_group - group) + abs(its_period - period), abs(z - number), z

    return min(known, key=distance)


def widen(potential: Potential, growth: Growth) -> Potential:
    """Return a potential with further elements and heads; the given one stays as it is.

    Predictions for the old elements are the same to the bit, those of old heads to rounding. A new head begins with
    the energies of the one it copies, a new element with the weights of those named for it and E0 = 0.

    Raises:
        ModelError: something named is not known, is known already, or the architecture cannot be widened.
    """
    _check(potential, growth)
    if not (growth.elements or growth.heads or growth.dropped):
        return potential
    old = potential.context
    elements, heads = sorted({*old.elements, *growth.elements}), _heads(potential, growth)
    sources = _sources(potential, growth)
    rows = sources["heads"]
    e0 = _energies(potential, elements, heads, rows)
    per_head = lambda values: [values[row[0]] for row in rows]  # noqa: E731
    new = build_potential(
        potential.backend,
        potential.settings,
        elements=elements,
        heads=heads,
        reference_energies=e0,
        avg_num_neighbors=old.avg_num_neighbors,
        scale=per_head(potential.scale.tolist()),
        shift=per_head(potential.shift.tolist()),
        physics=potential.added_physics,
        fidelity=old.fidelity,
        aims=potential.aims,
        dispersion={name: value for name, value in potential.dispersion.items() if name in heads},
        physics_scale={name: per_head(term.scale.tolist()) for name, term in potential.physics.items()},
        dtype=potential.dtype,
        first=(old.element_norm, old.head_norm),
    )
    new.baseline = potential.baseline
    _copy(potential, new, sources)
    return new.to(next(potential.parameters()).device)


def alone(potential: Potential, head: str) -> Potential:
    """Return a potential with one of its heads only, which predicts the same.

    Raises:
        ModelError: there is no such head.
    """
    if head not in potential.heads:
        listing = ", ".join(potential.heads)
        raise ModelError(f"the model has no level {head!r}", "export.fidelity", f"its levels: {listing}")
    return widen(potential, Growth(dropped=[name for name in potential.heads if name != head]))


def inventory(old: Potential, new: Potential, growth: Growth) -> list[TensorRow]:
    """Return where every number of a widened potential comes from, tensor by tensor."""
    kinds_of: dict[str, Sequence[str | None]] = {**old.architecture.indexed()}
    kinds_of |= {"self_energies": ("heads", "elements"), "scale": ("heads",), "shift": ("heads",)}
    n_old = len(old.heads)
    share = (n_old - len(growth.dropped)) / n_old
    notes = {
        "elements": [f"{symbol(z)} from {_named(row)}" for z, row in sorted(growth.elements.items())],
        "heads": [f"head {name} from {source}" for name, source in growth.heads.items()]
        + [f"head {name} left" for name in growth.dropped],
    }
    notes["kinds"] = notes["elements"] + notes["heads"]
    before, now = _tensors(old), _tensors(new)
    rows = []
    for name, tensor in now.items():
        kinds = [kind for kind in kinds_of.get(name, ()) if kind]
        had = before[name].numel()
        loaded = round(had * share ** (kinds.count("heads") + kinds.count("kinds")))
        note = "; ".join(text for kind in dict.fromkeys(kinds) for text in notes[kind])
        rows.append(TensorRow(name, tuple(tensor.shape), loaded, tensor.numel() - loaded, had - loaded, note))
    return rows


def _tensors(potential: Potential) -> dict[str, Tensor]:
    """Everything that a bundle holds numbers of."""
    found: dict[str, Tensor] = {name: p for name, p in potential.architecture.named_parameters()}
    return found | {name: getattr(potential, name) for name in ("self_energies", "scale", "shift")}


def _named(numbers: Sequence[int]) -> str:
    names = ", ".join(symbol(z) for z in numbers)
    return names if len(numbers) == 1 else f"the mean of {names}"


def _check(potential: Potential, growth: Growth) -> None:
    for z, row in growth.elements.items():
        wrong = [s for s in row if s not in potential.elements]
        if z in potential.elements or wrong or not row:
            what = f"{symbol(z)} cannot be added from {', '.join(map(symbol, wrong)) or 'nothing'}"
            raise ModelError(
                what, "finetune.new_elements", "the model has " + ", ".join(map(symbol, potential.elements))
            )
    listing = ", ".join(potential.heads)
    unknown = [name for name in growth.dropped if name not in potential.heads]
    if unknown or not _heads(potential, growth):
        what = f"the model has no head {unknown[0]!r}" if unknown else "no head would be left"
        raise ModelError(what, "finetune.drop_heads", f"the model's heads: {listing}")
    for name, source in growth.heads.items():
        if name in potential.heads:
            fix = f"choose another name, or train the head that is there with train.head_key: {name}"
            raise ModelError(f"the model has a head {name!r} already", "finetune.head", fix)
        if source not in potential.heads:
            raise ModelError(f"the model has no head {source!r}", "finetune.copy_head", f"use one of: {listing}")
        if source == potential.context.fidelity.base:
            what = f"{source!r} is the base: a copy of it would begin with a correction that nobody trained"
            raise ModelError(what, "finetune.copy_head", "copy a level that has a correction")


def _sources(potential: Potential, growth: Growth) -> dict[str, list[list[int]]]:
    """For each new index of elements and heads, the old indices whose mean it takes."""
    known, heads = potential.elements, potential.heads
    elements = sorted({*known, *growth.elements})
    by_element = [[known.index(s) for s in growth.elements.get(z, (z,))] for z in elements]
    by_head = [[heads.index(growth.heads.get(h, h))] for h in _heads(potential, growth)]
    kinds = [[e * len(heads) + h for e in row for h in column] for row in by_element for column in by_head]
    return {"elements": by_element, "heads": by_head, "kinds": kinds}


def _heads(potential: Potential, growth: Growth) -> list[str]:
    return [*(h for h in potential.heads if h not in growth.dropped), *growth.heads]


def _energies(
    potential: Potential, elements: Sequence[int], heads: Sequence[str], rows: Sequence[Sequence[int]]
) -> dict[str, dict[int, float]]:
    table, known = potential.self_energies.tolist(), potential.elements
    return {
        head: {z: table[row[0]][known.index(z)] if z in known else 0.0 for z in elements}
        for head, row in zip(heads, rows, strict=True)
    }


def _copy(old: Potential, new: Potential, sources: Mapping[str, list[list[int]]]) -> None:
    axes, counts = old.architecture.indexed(), {"elements": len(old.elements), "heads": len(old.heads)}
    counts["kinds"] = counts["elements"] * counts["heads"]
    before = dict(old.architecture.named_parameters())
    with torch.no_grad():
        for name, parameter in new.architecture.named_parameters():
            value = before[name].detach()
            for axis, kind in enumerate(axes.get(name, ())):
                value = value if kind is None else _gathered(value, axis, counts[kind], sources[kind])
            if value.shape != parameter.shape:
                what = f"{old.backend} does not say how its weight {name} depends on elements and heads"
                raise ModelError(what, fix="this architecture cannot be given new elements or heads")
            parameter.copy_(value)


def _gathered(value: Tensor, axis: int, n_old: int, rows: list[list[int]]) -> Tensor:
    """Take rows of one axis, each a copy of one old row or the mean of several."""
    parts = value.unflatten(axis, (n_old, value.shape[axis] // n_old)).unbind(axis)
    picked = [parts[row[0]] if len(row) == 1 else torch.stack([parts[k] for k in row]).mean(0) for row in rows]
    return torch.stack(picked, axis).flatten(axis, axis + 1)
