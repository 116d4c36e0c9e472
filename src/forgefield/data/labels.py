"""Labels of a batch: values and what of them is present."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from forgefield.core.structure import Structure


class Labels(NamedTuple):
    """Reference values of a batch, atoms in their original order; zero where a label is absent."""

    energy: Tensor  # (S,), float64, eV
    forces: Tensor  # (N, 3), eV/Å
    stress: Tensor  # (S, 3, 3), eV/Å^3
    has_energy: Tensor  # (S,), bool
    has_forces: Tensor  # (N,), bool
    has_stress: Tensor  # (S,), bool
    weight: Tensor  # (S,)
    structure: Tensor  # (N,), index of the structure
    n_atoms: Tensor  # (S,)


def join_labels(
    structures: Sequence[Structure],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Labels:
    """Join the labels of several structures.

    Args:
        structures: in the order of the batch.
        dtype: of forces, stress and weight; energies are always float64.
        device: where the tensors go.
    """
    sizes = np.array([len(s) for s in structures])
    has = {q: np.array([q in s.labels for s in structures]) for q in ("energy", "forces", "stress")}
    energy = np.array([s.labels.get("energy", 0.0) for s in structures], dtype=np.float64)
    forces = np.concatenate([s.labels["forces"] if "forces" in s.labels else np.zeros((len(s), 3)) for s in structures])
    stress = np.stack([s.labels["stress"] if "stress" in s.labels else np.zeros((3, 3)) for s in structures])
    weight = np.array([s.weight for s in structures])
    structure = np.repeat(np.arange(len(structures)), sizes)

    def floats(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=dtype, device=device)

    def exact(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=device)

    return Labels(
        energy=exact(energy),
        forces=floats(forces),
        stress=floats(stress),
        has_energy=exact(has["energy"]),
        has_forces=exact(np.repeat(has["forces"], sizes)),
        has_stress=exact(has["stress"]),
        weight=floats(weight),
        structure=exact(structure),
        n_atoms=exact(sizes),
    )
