"""An optimizer's state as plain values and named tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from forgefield.core.errors import ModelError

SCRATCH = frozenset({"al"})  # L-BFGS writes these anew before it reads them
Entries = dict[str, dict[str, Any]]


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Split an optimizer's state into plain values and tensors, by parameter name.

    Returns:
        `groups`, `numbers` (by `parameter:key`) and `lists` (their lengths); and the tensors by `parameter:key`, those
        of a list by `parameter:key#place`.
    """
    groups: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    lists: dict[str, int] = {}
    for group in optimizer.param_groups:
        groups.append({key: value for key, value in group.items() if key != "params"})
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                place = f"{name}:{key}"
                if key in SCRATCH:
                    continue
                if isinstance(value, Tensor):
                    tensors[place] = value
                elif isinstance(value, list):
                    lists[place] = len(value)
                    tensors |= {f"{place}#{k}": part for k, part in enumerate(value)}
                elif value is not None:
                    numbers[place] = value
    return {"groups": groups, "numbers": numbers, "lists": lists}, tensors


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, record: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `pack_optimizer` returned.

    Raises:
        ModelError: the optimizer has other groups.
    """
    if [g["names"] for g in record["groups"]] != [g["names"] for g in optimizer.param_groups]:
        raise ModelError("the optimizer's parameter groups differ", fix="train with the same freeze and decay settings")
    groups = []
    for stored, group in zip(record["groups"], optimizer.state_dict()["param_groups"], strict=True):
        tuples = {key: tuple(value) for key, value in stored.items() if isinstance(group.get(key), tuple)}
        groups.append({**stored, **tuples, "params": group["params"]})
    _put(optimizer, groups, _entries(record, tensors))


def adapt_optimizer(optimizer: torch.optim.Optimizer, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Take over the state of the parameters that are still trained; groups and their settings stay the optimizer's."""
    _put(optimizer, optimizer.state_dict()["param_groups"], _entries(record, tensors))


def _put(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], entries: Entries) -> None:
    names = [name for group in optimizer.param_groups for name in group["names"]]
    entries = {name: values for name, values in entries.items() if name in names}
    numbered = {names.index(name): values for name, values in entries.items()}
    optimizer.load_state_dict({"state": numbered, "param_groups": groups})
    _keep_dtypes(optimizer, entries)


def _entries(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Entries:
    """State of each parameter, by its name."""
    lists = {
        place: [tensors[f"{place}#{k}"] for k in range(length)] for place, length in record.get("lists", {}).items()
    }
    whole = {place: value for place, value in tensors.items() if "#" not in place}
    entries: Entries = {}
    for place, value in {**record["numbers"], **whole, **lists}.items():
        name, key = place.rsplit(":", 1)
        entries.setdefault(name, {})[key] = value
    return entries


def _keep_dtypes(optimizer: torch.optim.Optimizer, entries: Entries) -> None:
    """Undo PyTorch's conversion of all state to the dtype of the weights: NAdam's products may have another."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, stored in entries.get(name, {}).items():
                value = optimizer.state[parameter].get(key)
                if isinstance(value, Tensor) and isinstance(stored, Tensor) and value.dtype != stored.dtype:
                    optimizer.state[parameter][key] = stored.to(value.device)
