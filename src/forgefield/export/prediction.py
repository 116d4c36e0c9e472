"""Energy, forces and stress of single structures as numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from forgefield.core.errors import ModelError
from forgefield.core.settings import Matmul
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph, head_index
from forgefield.graph.graph import Graph
from forgefield.graph.pairs import Pairs
from forgefield.models.potential import Potential
from forgefield.models.precision import matmul_precision


class Prediction(NamedTuple):
    """What a potential says about one structure, atoms in the structure's order."""

    energy: float  # eV
    forces: np.ndarray  # (N, 3), eV/Å
    stress: np.ndarray  # (3, 3), eV/Å^3; zeros without a volume
    atom_energies: np.ndarray  # (N,), eV
    extra: Mapping[str, np.ndarray] = MappingProxyType({})  # what else is predicted, (...) or (N, ...)


Candidate = Callable[[Structure], Prediction]
"""Anything that predicts one structure: the eager model, a loaded file, a calculator."""


def predict(
    potential: Potential,
    structures: Sequence[Structure],
    pairs: Sequence[Pairs] | None = None,
    matmul: Matmul = "float32",
) -> list[Prediction]:
    """Predict a few structures in one batch, without recording gradients.

    Args:
        potential: the eager model.
        structures: one or more structures of known elements.
        pairs: neighbour pairs found before, one set per structure.
        matmul: precision of products of float32 matrices.

    Raises:
        ModelError: an element is unknown, or an output is not finite.
    """
    weight = next(potential.parameters())
    graph = build_graph(
        structures,
        potential.needs,
        heads=potential.heads,
        dtype=weight.dtype,
        device=weight.device,
        pairs=pairs,
    )
    return predict_graph(potential, graph, structures, matmul)


def predict_graph(
    potential: Potential, graph: Graph, structures: Sequence[Structure], matmul: Matmul = "float32"
) -> list[Prediction]:
    """Predict the structures that a graph was built from, without recording gradients.

    Args:
        potential: the eager model.
        graph: of the structures, in the model's precision and on its device.
        structures: for their sizes and origins.
        matmul: precision of products of float32 matrices.

    Raises:
        ModelError: an element is unknown, or an output is not finite.
    """
    with torch.no_grad(), matmul_precision(matmul, graph.positions.device):
        outputs = potential(graph)
    energy, forces, stress, atom_energies = (t.cpu().double().numpy() for t in outputs[:4])
    extra = {name: t.cpu().double().numpy() for name, t in outputs.extra.items()}
    quantities = potential.targets.quantities
    ends = np.cumsum([len(s) for s in structures])
    results = []
    for k, (structure, end) in enumerate(zip(structures, ends, strict=True)):
        atoms = slice(end - len(structure), end)
        more = {n: t[atoms] if quantities[n].per == "atom" else t[k] for n, t in extra.items()}
        results.append(Prediction(float(energy[k]), forces[atoms], stress[k], atom_energies[atoms], more))
        require_finite(results[-1], structure.origin)
    return results


def require_finite(prediction: Prediction, where: str) -> None:
    """Raise if any number of the prediction is NaN or infinite."""
    total = prediction.energy + prediction.forces.sum() + prediction.stress.sum() + prediction.atom_energies.sum()
    total += sum(value.sum() for value in prediction.extra.values())
    if math.isfinite(total):  # one number that is not finite leaves no sum finite
        return
    for name, value in {**prediction._asdict(), "extra": 0.0, **prediction.extra}.items():
        if not np.isfinite(value).all():
            raise ModelError(
                f"the predicted {name} is NaN or infinite",
                where,
                "look for overlapping atoms; check the weights",
            )


def self_energies(potential: Potential, structure: Structure) -> np.ndarray:
    """Self-atomic energies of the structure's atoms, (N,), eV."""
    head = head_index(structure, potential.heads)
    table = potential.self_energies[head].cpu().numpy()
    return table[np.searchsorted(potential.elements, structure.numbers)]
