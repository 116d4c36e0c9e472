"""Which parameters are trained, and which of them decay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from forgefield.core.errors import ModelError

if TYPE_CHECKING:
    from forgefield.models.potential import Potential

# Parameters of these names never decay: decay pulls towards zero, which is no natural value for them.
NEVER_DECAY = re.compile(r"bias|norm|scale|shift|embedding|readout|radial")


def freeze(potential: Potential, mode: str | None) -> list[str]:
    """Choose the parameters that are trained; returns the names of those that are not.

    Args:
        potential: its parameters' `requires_grad` is set.
        mode: None leaves everything as it is; `head_only` trains what the architecture names as its head.

    Raises:
        ModelError: `head_only`, and the architecture names none of its parameters.
    """
    if mode == "head_only":
        heads = {f"architecture.{name}" for name in potential.architecture.head_parameters()}
        if not heads & {name for name, _ in potential.named_parameters()}:
            raise ModelError("head_only, but the model names no head parameters", "train.freeze", "remove freeze")
        for name, parameter in potential.named_parameters():
            parameter.requires_grad_(name in heads)
    return [name for name, p in potential.named_parameters() if not p.requires_grad]


def parameter_groups(model: nn.Module, weight_decay: float, no_decay_keywords: Sequence[str]) -> list[dict[str, Any]]:
    """Sort the trainable parameters into a decaying and a constant group.

    Vectors and scalars do not decay, nor do names that match `NEVER_DECAY` or one of `no_decay_keywords`.

    Returns:
        Groups with `params`, `weight_decay`, `name` and `names` (of the parameters, in order).

    Raises:
        ModelError: nothing is trainable.
    """
    groups: dict[str, dict[str, Any]] = {
        "decay": {"name": "decay", "params": [], "names": [], "weight_decay": weight_decay},
        "no_decay": {"name": "no_decay", "params": [], "names": [], "weight_decay": 0.0},
    }
    patterns = [re.compile(keyword) for keyword in no_decay_keywords]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        constant = parameter.ndim <= 1 or NEVER_DECAY.search(name) or any(p.search(name) for p in patterns)
        group = groups["no_decay" if constant else "decay"]
        group["params"].append(parameter)
        group["names"].append(name)
    found = [group for group in groups.values() if group["params"]]
    if not found:
        raise ModelError("the model has no trainable parameter", fix="remove train.freeze, or train another model")
    check_claimed(model, found)
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
