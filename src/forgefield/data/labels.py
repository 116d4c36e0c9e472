"""Labels of a batch: values and what of them is present."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from forgefield.core.quantities import ALWAYS, QUANTITIES, Quantity
from forgefield.core.structure import Structure


class Labels(NamedTuple):
    """Reference values of a batch, atoms in their original order; zero where a label is absent.

    Atoms that a structure's `force_mask` leaves out count as without force label. `extra` and `has_extra` hold the
    quantities that any structure of the batch has beside energy, forces and stress.
    """

    energy: Tensor  # (S,), float64, eV
    forces: Tensor  # (N, 3), eV/Å
    stress: Tensor  # (S, 3, 3), eV/Å^3
    has_energy: Tensor  # (S,), bool
    has_forces: Tensor  # (N,), bool
    has_stress: Tensor  # (S,), bool
    weight: Tensor  # (S,)
    structure: Tensor  # (N,), index of the structure
    n_atoms: Tensor  # (S,)
    volume: Tensor | None = None  # (S,), float64, Å^3
    fixed: Tensor | None = None  # (N,), bool
    tags: Tensor | None = None  # (N,), int64; 0 where a structure has none
    extra: Mapping[str, Tensor] = MappingProxyType({})  # (S, ...) or (N, ...)
    has_extra: Mapping[str, Tensor] = MappingProxyType({})  # (S,) or (N,), bool

    def to(self, device: torch.device | str) -> Labels:
        """Copy to a device."""
        moved = {k: v.to(device) for k, v in self._asdict().items() if isinstance(v, Tensor)}
        extra, has = ({k: v.to(device) for k, v in table.items()} for table in (self.extra, self.has_extra))
        return self._replace(**moved, extra=extra, has_extra=has)


def join_labels(
    structures: Sequence[Structure],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Labels:
    """Join the labels of several structures.

    Args:
        structures: in the order of the batch.
        dtype: of all values but the energies, which are always float64.
        device: where the tensors go.
    """
    sizes = np.array([len(s) for s in structures])
    weight = np.array([s.weight for s in structures])
    structure = np.repeat(np.arange(len(structures)), sizes)
    found = {name: _joined(structures, q) for name, q in _quantities(structures).items()}

    def floats(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=dtype, device=device)

    def exact(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=device)

    (energy, has_energy), (forces, has_forces), (stress, has_stress) = (found.pop(name) for name in ALWAYS)
    return Labels(
        energy=exact(energy),
        forces=floats(forces),
        stress=floats(stress),
        has_energy=exact(has_energy),
        has_forces=exact(has_forces & _per_atom(structures, "force_mask", True)),
        has_stress=exact(has_stress),
        weight=floats(weight),
        structure=exact(structure),
        n_atoms=exact(sizes),
        volume=exact(np.array([s.volume for s in structures])),
        fixed=exact(_per_atom(structures, "fixed", False)),
        tags=exact(_per_atom(structures, "tags", 0)),
        extra={name: floats(values) for name, (values, _) in found.items()},
        has_extra={name: exact(has) for name, (_, has) in found.items()},
    )


def _quantities(structures: Sequence[Structure]) -> dict[str, Quantity]:
    """Energy, forces and stress, and whatever else any of the structures is labelled with."""
    found = {name: QUANTITIES[name] for name in ALWAYS}
    for s in structures:
        for name in s.labels.keys() - found.keys():
            found[name] = QUANTITIES.get(name) or s.declared[name]
    return found


def _joined(structures: Sequence[Structure], quantity: Quantity) -> tuple[np.ndarray, np.ndarray]:
    """Values and which of them are labels, one row per structure or atom."""
    if not any(quantity.name in s.labels for s in structures):
        rows = len(structures) if quantity.per == "structure" else sum(map(len, structures))
        return np.zeros((rows, *quantity.shape)), np.zeros(rows, dtype=bool)
    values, has = [], []
    for s in structures:
        rows = 1 if quantity.per == "structure" else len(s)
        there = quantity.name in s.labels
        shape = (rows, *quantity.shape)
        values.append(s.labels[quantity.name].reshape(shape) if there else np.zeros(shape))
        has.append(np.full(rows, there))
    return np.concatenate(values), np.concatenate(has)


def _per_atom(structures: Sequence[Structure], name: str, default: bool | int) -> np.ndarray:
    """A field of every atom, (N,); the default where a structure has none."""
    if all(getattr(s, name) is None for s in structures):
        return np.full(sum(map(len, structures)), default)
    parts: list[np.ndarray] = []
    for s in structures:
        value = getattr(s, name)
        parts.append(np.full(len(s), default) if value is None else np.asarray(value).astype(type(default)))
    return np.concatenate(parts)
