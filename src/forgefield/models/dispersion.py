"""Who owns dispersion: the labels of a level of theory, or a term that is added to them; never both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from forgefield.core.errors import ModelError

Dispersion = Literal["included", "absent"]
TERMS = ("d3", "d4")
FIX = "say what the labels hold: data.fidelities: {%s: {dispersion: included}}, or absent"


def check_trained(terms: Mapping[str, Sequence[bool]], heads: Sequence[str], stated: Mapping[str, Dispersion]) -> None:
    """Refuse a dispersion term in training where the labels do not include dispersion.

    A model that is trained with the term gives back its labels: the network learns what the term leaves. Where the
    labels lack dispersion it would learn to take the term away again.

    Args:
        terms: names of the model's terms, and for which heads each is.
        heads: names of the heads.
        stated: what the labels of each head hold.

    Raises:
        ModelError: two dispersion terms are asked for, or labels lack dispersion, or it is not stated.
    """
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
