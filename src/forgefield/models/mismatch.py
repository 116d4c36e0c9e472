"""Which settings explain that weights do not fit a model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError

from forgefield.core.settings import Settings
from forgefield.models.architecture import ArchitectureContext
from forgefield.models.potential import ARCHITECTURES, Potential

Shapes = dict[str, tuple[int, ...]]
_MULTIPLICITY = re.compile(r"\d+(?=x\d)")


def settings_behind(potential: Potential, found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the settings on which the tensors that do not fit depend, with their values, most telling first.

    Each setting in turn is changed a little and the model built anew: what then has other shapes, or is there and was
    not, depends on it.

    Args:
        potential: the model.
        found: shapes of the weights that do not fit it.
    """
    own = _shapes(potential.backend, potential.settings, potential.context)
    wrong = _differing(own, found)
    effects: dict[str, set[Any]] = {}
    for attempt in (0, 1, 2):  # a change in one direction is tried first; in the others only where that is not enough
        for name, settings, context in _variations(potential, attempt):
            try:
                varied = _shapes(potential.backend, settings, context)
            except (ValueError, RuntimeError, ArithmeticError):
                continue
            effects.setdefault(name, set()).update(_differing(own, varied))
        if wrong <= set().union(*effects.values()):
            break
    return _fewest(effects, wrong)


def _fewest(effects: dict[str, set[Any]], wrong: set[Any]) -> list[str]:
    """Choose settings that explain what is wrong: the one that explains most and else changes least, and so on."""
    chosen: list[str] = []
    left = set(wrong)
    while left:
        best = max(effects, key=lambda name: (len(effects[name] & left), -len(effects[name] - wrong)), default=None)
        if best is None or not effects[best] & left:
            break
        chosen.append(best)
        left -= effects.pop(best)
    return chosen


def _differing(one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]) -> set[Any]:
    """Return (name, axis) of every length that differs, and (name, None) of what only one of them has."""
    found: set[Any] = {(name, None) for name in one.keys() ^ other.keys()}
    for name in one.keys() & other.keys():
        if len(one[name]) != len(other[name]):
            found.add((name, None))
            continue
        found |= {(name, k) for k, (a, b) in enumerate(zip(one[name], other[name], strict=True)) if a != b}
    return found


def _shapes(backend: str, settings: Settings, context: ArchitectureContext) -> Shapes:
    with torch.random.fork_rng(devices=[]):
        architecture = ARCHITECTURES.entry(backend).build(settings, context)
    return {name: tuple(p.shape) for name, p in architecture.named_parameters()}


def _variations(potential: Potential, attempt: int) -> Iterator[tuple[str, Settings, ArchitectureContext]]:
    """Yield a setting with its value, and the model's settings and context with it changed in one way."""
    settings, context = potential.settings, potential.context
    if attempt == 0:
        more = dataclasses.replace(context, elements=(*context.elements, context.elements[-1] + 1))
        yield f"the number of elements (here {len(context.elements)})", settings, more
        more = dataclasses.replace(context, heads=(*context.heads, "?"))
        yield f"the number of heads (here {len(context.heads)})", settings, more
    plain = settings.model_dump()
    for name, field in type(settings).model_fields.items():
        values = _other_values(plain[name], field.annotation)
        if attempt < len(values):
            try:
                varied = type(settings).model_validate(plain | {name: values[attempt]})
            except ValidationError:
                continue
            yield f"{name} (here {plain[name]})", varied, context


def _other_values(value: Any, annotation: Any) -> list[Any]:
    """Return values near this one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value - 1, value + 1]
    if isinstance(value, list) and value and all(isinstance(v, int) for v in value):
        return [[v + 1 for v in value], value[:-1], [*value, value[-1]]]
    if isinstance(value, str) and _MULTIPLICITY.search(value):
        terms = value.split("+")
        return [_MULTIPLICITY.sub(lambda m: str(2 * int(m[0])), value), "+".join(terms[:-1] or terms)]
    literals = get_args(annotation) if get_origin(annotation) is Literal else ()
    return [choice for choice in literals if choice != value]
