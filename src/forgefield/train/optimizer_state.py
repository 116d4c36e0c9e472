"""An optimizer's state as plain values and tensors, by the names of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from forgefield.core.errors import ModelError


def split_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return groups and numbers as JSON values, and the tensors by `parameter:key`."""
    groups, tensors, numbers = [], {}, {}
    for group in optimizer.param_groups:
        groups.append({key: value for key, value in group.items() if key != "params"})
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}:{key}"] = value
                elif value is not None:
                    numbers[f"{name}:{key}"] = value
    return {"groups": groups, "numbers": numbers}, tensors


def join_state(optimizer: torch.optim.Optimizer, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Take back what `split_state` returned.

    Raises:
        ModelError: the parameter groups are others.
    """
    if [g["names"] for g in record["groups"]] != [g["names"] for g in optimizer.param_groups]:
        raise ModelError("the optimizer's parameter groups differ", fix="train with the same freeze and decay settings")
    own = optimizer.state_dict()
    groups = []
    for stored, group in zip(record["groups"], own["param_groups"], strict=True):
        tuples = {key: tuple(value) for key, value in stored.items() if isinstance(group.get(key), tuple)}
        groups.append({**stored, **tuples, "params": group["params"]})
    optimizer.load_state_dict({"state": _numbered(optimizer, record, tensors), "param_groups": groups})


def adapt_state(
    optimizer: torch.optim.Optimizer,
    record: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    rate: float,
    *,
    keep_state: bool,
    keep_rates: bool,
) -> None:
    """Take over what still holds after accepted changes: the optimizer's own groups and their settings stay.

    Args:
        optimizer: newly made from the present settings.
        record: groups and numbers of the checkpoint.
        tensors: its tensors.
        rate: `train.lr` of the checkpoint, from which its schedule had come to the rates in `record`.
        keep_state: take the momenta of parameters that are still trained; not for another optimizer.
        keep_rates: multiply the rates by what the schedule had made of them; not for another schedule.
    """
    if keep_state:
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": _numbered(optimizer, record, tensors), "param_groups": groups})
    stored = {name: group for group in record["groups"] for name in group["names"]}
    for group in optimizer.param_groups:
        before = stored.get(group["names"][0]) if keep_rates else None
        if before is not None:
            first = before.get("initial_lr", rate)
            group["lr"] = before["lr"] if group["lr"] == first else group["lr"] * before["lr"] / first


def _numbered(
    optimizer: torch.optim.Optimizer, record: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[int, dict[str, Any]]:
    """Return the state of each parameter that the optimizer has, by its number in the groups."""
    entries: dict[str, dict[str, Any]] = {}
    for place, value in {**record["numbers"], **tensors}.items():
        name, key = place.rsplit(":", 1)
        entries.setdefault(name, {})[key] = value
    names = [name for group in optimizer.param_groups for name in group["names"]]
    return {names.index(name): values for name, values in entries.items() if name in names}
