"""Who owns dispersion: the labels of a level of theory, or a term that is added to them; never both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from forgefield.core.errors import ModelError
from forgefield.models.architecture import PhysicsTerm
from forgefield.models.baseline.settings import BaselineSettings

Dispersion = Literal["included", "absent"]
TERMS = ("d3", "d4")
FIX = "say what the labels hold: data.fidelities: {%s: {dispersion: included}}, or absent"


def acting(terms: Mapping[str, PhysicsTerm], heads: Sequence[str]) -> dict[str, list[bool]]:
    """Return for which heads each term is: not for those of factor 0, nor for those whose functional is null.

    Args:
        terms: by name.
        heads: names of the heads.
    """
    found: dict[str, list[bool]] = {}
    for name, term in terms.items():
        functional = getattr(getattr(term, "settings", None), "functional", None)
        none = [isinstance(functional, Mapping) and functional.get(head) is None for head in heads]
        found[name] = [bool(s) and not absent for s, absent in zip(term.scale.tolist(), none, strict=True)]
    return found


def check_trained(
    terms: Mapping[str, Sequence[bool]],
    heads: Sequence[str],
    stated: Mapping[str, Dispersion],
    baseline: BaselineSettings | None = None,
) -> None:
    """Refuse a dispersion term in training where the labels do not include dispersion.

    A model that is trained with the term gives back its labels: the network learns what the term leaves. Where the
    labels lack dispersion it would learn to take the term away again.

    Args:
        terms: names of the model's terms, and for which heads each is.
        heads: names of the heads.
        stated: what the labels of each head hold.
        baseline: the level that the model corrects.

    Raises:
        ModelError: two dispersion terms are asked for, or labels lack dispersion, or the baseline has it already, or
            it is not stated.
    """
    for name in TERMS if baseline is not None else ():
        if any(terms.get(name, ())):
            _check_difference(name, baseline)
    for k, head in enumerate(heads):
        asked = [name for name in TERMS if name in terms and terms[name][k]]
        if len(asked) > 1:
            what = f"{' and '.join(asked)} would count the dispersion of {head} twice"
            raise ModelError(what, "model.physics", "keep one of them")
        if not asked:
            continue
        if head not in stated:
            what = f"{asked[0]} is added to {head}, but nothing says whether its labels include dispersion"
            raise ModelError(what, f"model.physics.{asked[0]}", FIX % head)
        if stated[head] == "absent":
            what = f"{asked[0]} is added to {head}, whose labels lack dispersion: the network would learn to undo it"
            fix = f"leave {asked[0]} out of the training, and add it when the model is handed out: export.dispersion"
            raise ModelError(what, f"model.physics.{asked[0]}", fix)


def _check_difference(name: str, baseline: BaselineSettings) -> None:
    """Refuse a dispersion term beside a baseline that has its own: the difference of two such levels has none."""
    where = f"model.physics.{name}"
    if baseline.has_dispersion:
        what = f"{name} is added to differences from {baseline.name}, which includes dispersion: it would count twice"
        raise ModelError(what, where, f"leave {name} out")
    if baseline.has_dispersion is None:
        what = f"{name} is added, but nothing says whether the base labels include dispersion"
        raise ModelError(what, where, "say it: model.baseline: {method: labels, dispersion: absent}, or included")


def check_added(head: str, terms: Sequence[str], stated: Mapping[str, Dispersion]) -> None:
    """Refuse dispersion on top of a trained model that has it already.

    Args:
        head: the head that is handed out.
        terms: names of the model's terms.
        stated: what the labels of each head hold.

    Raises:
        ModelError: the labels or a term include it, or it is not stated.
    """
    where = "export.dispersion"
    for name in TERMS:
        if name in terms:
            raise ModelError(
                f"the model has the term {name} already: dispersion would count twice", where, "leave it out"
            )
    if head not in stated:
        what = f"nothing says whether the labels of {head} include dispersion"
        raise ModelError(what, where, FIX % head)
    if stated[head] == "included":
        what = f"the labels of {head} include dispersion: adding it would count it twice"
        raise ModelError(what, where, "leave it out")
