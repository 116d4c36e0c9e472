"""Which parameters are trained, and which of them decay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from forgefield.core.errors import ModelError

if TYPE_CHECKING:
    from forgefield.models.potential import Potential
    from forgefield.train.keys.groups import ParamGroup
    from forgefield.train.settings import TrainSettings

SHOWN = 8  # parameter names in a message

# Parameters of these names never decay: decay pulls towards zero, which is no natural value for them.
NEVER_DECAY = re.compile(r"bias|norm|scale|shift|embedding|readout|radial")


def freeze(potential: Potential, mode: str | None) -> list[str]:
    """Choose the parameters that are trained; returns the names of those that are not.

    Args:
        potential: its parameters' `requires_grad` is set.
        mode: None leaves everything as it is; `head_only` trains what the architecture names as its head, `base`
            everything but the network of the level that others are corrections to.

    Raises:
        ModelError: the model has no such part.
    """
    if mode == "head_only":
        heads = {f"architecture.{name}" for name in potential.architecture.head_parameters()}
        if not heads & {name for name, _ in potential.named_parameters()}:
            raise ModelError("head_only, but the model names no head parameters", "train.freeze", "remove freeze")
        for name, parameter in potential.named_parameters():
            parameter.requires_grad_(name in heads)
    if mode == "base":
        if potential.context.fidelity.base is None:
            fix = "remove freeze; finetune.correction makes the loaded model a base"
            raise ModelError("base, but no level of the model is a base", "train.freeze", fix)
        for name, parameter in potential.named_parameters():
            parameter.requires_grad_(not name.startswith("architecture.base."))
    return [name for name, p in potential.named_parameters() if not p.requires_grad]


def choose_trained(potential: Potential, settings: TrainSettings) -> None:
    """Choose the parameters that are trained: `freeze` or `finetune_modules`, then `force_no_train`, `force_train`.

    Args:
        potential: its parameters' `requires_grad` is set.
        settings: the `train` block.

    Raises:
        ModelError: a pattern matches no parameter, or the model has no head to train alone.
    """
    freeze(potential, settings.freeze)
    named = list(potential.named_parameters())
    if settings.finetune_modules:
        wanted = _matching(named, settings.finetune_modules, "train.finetune_modules")
        for name, parameter in named:
            parameter.requires_grad_(parameter.requires_grad and name in wanted)
    for key, patterns, trained in (
        ("train.force_no_train", settings.force_no_train, False),
        ("train.force_train", settings.force_train, True),
    ):
        wanted = _matching(named, patterns, key)
        for name, parameter in named:
            if name in wanted:
                parameter.requires_grad_(trained)


def _matching(named: Sequence[tuple[str, nn.Parameter]], patterns: Sequence[str], key: str) -> set[str]:
    """Names that match one of the patterns; each pattern must match one."""
    found: set[str] = set()
    for place, pattern in enumerate(patterns):
        hits = {name for name, _ in named if re.search(pattern, name)}
        if not hits:
            raise ModelError(f"{pattern!r} matches no parameter", f"{key}.{place}", _names_fix(named))
        found |= hits
    return found


def _names_fix(named: Sequence[tuple[str, nn.Parameter]]) -> str:
    names = [name for name, _ in named]
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"the parameters are {shown}"


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    no_decay_keywords: Sequence[str],
    rules: Sequence[ParamGroup] = (),
    lr: float | None = None,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups, each of them into a decaying and a constant one.

    Vectors and scalars do not decay, nor do names that match `NEVER_DECAY` or one of `no_decay_keywords`.

    Args:
        model: whose parameters.
        weight_decay: of those that decay.
        no_decay_keywords: regular expressions.
        rules: groups with rate and decay of their own; a parameter belongs to the first that matches. Without rules all
            parameters have one rate.
        lr: rate that the rules' factors multiply.

    Returns:
        Groups with `params`, `weight_decay`, `name` and `names` (of the parameters, in order), by rules also `lr`.

    Raises:
        ModelError: nothing is trainable; a pattern matches nothing; a parameter belongs to no rule; a rule's decay acts
            on nothing.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained:
        raise ModelError("the model has no trainable parameter", fix="remove train.freeze, or train another model")
    fixed = _matching(list(model.named_parameters()), no_decay_keywords, "train.no_decay_keywords")
    found: list[dict[str, Any]] = []
    for rule, members in _claims(trained, rules):
        decaying = [pair for pair in members if pair[1].ndim > 1 and not NEVER_DECAY.search(pair[0])]
        decaying = [pair for pair in decaying if pair[0] not in fixed]
        names = {name for name, _ in decaying}
        constant = [pair for pair in members if pair[0] not in names]
        decay = weight_decay if rule is None or rule.weight_decay is None else rule.weight_decay
        if rule is not None and rule.weight_decay is not None and not decaying:
            what = f"weight_decay has no effect: none of the {len(members)} parameters of this group decays"
            raise ModelError(what, f"train.param_groups.{rules.index(rule)}.weight_decay", "remove it")
        rate = {} if rule is None else {"lr": _rate(rule, lr)}
        labels = ("decay", "no_decay") if rule is None else (rule.match, f"{rule.match} (no decay)")
        for label, part, value in zip(labels, (decaying, constant), (decay, 0.0), strict=True):
            if part:
                group = {"name": label, "params": [p for _, p in part], "names": [n for n, _ in part]}
                found.append({**group, "weight_decay": value, **rate})
    check_claimed(model, found)
    return found


def _rate(rule: ParamGroup, lr: float | None) -> float:
    if rule.lr is not None:
        return rule.lr
    assert lr is not None, "rules need the rate that they multiply"
    return lr * (1.0 if rule.lr_factor is None else rule.lr_factor)


def _claims(
    trained: list[tuple[str, nn.Parameter]], rules: Sequence[ParamGroup]
) -> list[tuple[ParamGroup | None, list[tuple[str, nn.Parameter]]]]:
    """Give each trained parameter to the first rule that matches it."""
    if not rules:
        return [(None, trained)]
    found: list[tuple[ParamGroup | None, list[tuple[str, nn.Parameter]]]] = []
    left = trained
    for place, rule in enumerate(rules):
        members = [pair for pair in left if re.search(rule.match, pair[0])]
        if not members:
            earlier = any(re.search(rule.match, name) for name, _ in trained)
            what = "matches only parameters that earlier groups have" if earlier else "matches no trained parameter"
            where = f"train.param_groups.{place}.match"
            fix = "put it before them, or remove it" if earlier else _names_fix(trained)
            raise ModelError(f"{rule.match!r} {what}", where, fix)
        found.append((rule, members))
        left = [pair for pair in left if not re.search(rule.match, pair[0])]
    if left:
        names = ", ".join(name for name, _ in left[:SHOWN]) + (", ..." if len(left) > SHOWN else "")
        what = f"{len(left)} trained parameters belong to no group: {names}"
        raise ModelError(
            what, "train.param_groups", "add a group that matches them (`match: .` takes all that are left)"
        )
    return found


def check_claimed(model: nn.Module, groups: Sequence[dict[str, Any]]) -> None:
    """Make sure that every trainable parameter stands in exactly one group.

    Raises:
        ModelError: one is in none or in several; it is named.
    """
    claims: dict[int, int] = {}
    for group in groups:
        for parameter in group["params"]:
            claims[id(parameter)] = claims.get(id(parameter), 0) + 1
    wrong = [name for name, p in model.named_parameters() if p.requires_grad and claims.get(id(p), 0) != 1]
    if wrong:
        raise ModelError(f"parameters not in exactly one optimizer group: {', '.join(wrong[:5])}")
