"""What an AOTInductor package is given: the tensors of a batch, in their order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from forgefield.core.structure import Structure
from forgefield.export.target import directed_edges, lattice
from forgefield.graph.build import head_index
from forgefield.graph.electrons import check_electrons, join_charges
from forgefield.graph.features import join_features
from forgefield.graph.needs import Needs

INPUTS = ("positions", "numbers", "structure", "cell", "head", "edge_index", "shifts", "slots")
"""What every package takes."""
FURTHER = ("charge", "multiplicity", "far_edge_index", "far_shifts", "features", "atom_charges")
"""What a package takes besides, where its model needs it; in this order."""
DYNAMIC = {"edge_index": 1, "far_edge_index": 1}  # the axis that varies; of the other inputs it is the first
SHAPES = {
    "positions": "(N,3) float64",
    "numbers": "(N)",
    "structure": "(N)",
    "cell": "(S,3,3) float64",
    "head": "(S)",
    "edge_index": "(2,E)",
    "shifts": "(E,3) float64",
    "slots": "(K)",
    "charge": "(S) float64",
    "multiplicity": "(S) float64",
    "far_edge_index": "(2,F)",
    "far_shifts": "(F,3) float64",
    "features": "(S,X) float64",
    "atom_charges": "(N) float64",
}


class Asked(NamedTuple):
    """What decides the inputs of a package.

    Args:
        heads: names of the model's heads.
        cutoff: of the pairs, Å.
        far_cutoff: of the far pairs, Å; 0: there are none; infinity: all pairs of a molecule.
        electrons: what structures must state.
        features: names and widths of further inputs.
        atom_charges: whether structures must state the charges of their atoms.
    """

    heads: tuple[str, ...]
    cutoff: float
    far_cutoff: float = 0.0
    electrons: tuple[str, ...] = ()
    features: tuple[tuple[str, int], ...] = ()
    atom_charges: bool = False

    @classmethod
    def by(cls, heads: Sequence[str], needs: Needs) -> Asked:
        """Return what a model asks for."""
        far, electrons = needs.far_cutoff, tuple(needs.electrons)
        return cls(tuple(heads), needs.cutoff, far, electrons, needs.features, needs.atom_charges)

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> Asked:
        """Return what the metadata of a package say."""
        far = about.get("far_cutoff", 0.0)
        features = tuple((str(name), int(width)) for name, width in about.get("features", ()))
        reach = math.inf if far is None else float(far)
        electrons, charges = tuple(about.get("needs", ())), bool(about.get("atom_charges", False))
        return cls(tuple(about["heads"]), float(about["cutoff"]), reach, electrons, features, charges)

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` reads beside heads and cutoff; a far cutoff of null stands for all pairs."""
        far = self.far_cutoff if math.isfinite(self.far_cutoff) else None
        plain: dict[str, object] = {"far_cutoff": far, "needs": list(self.electrons), "atom_charges": self.atom_charges}
        return plain | {"features": [list(row) for row in self.features]}

    @property
    def further(self) -> tuple[str, ...]:
        """Names of the inputs beyond `INPUTS`."""
        there = {*self.electrons}
        there |= {"far_edge_index", "far_shifts"} if self.far_cutoff else set()
        there |= {"features"} if self.features else set()
        there |= {"atom_charges"} if self.atom_charges else set()
        return tuple(name for name in FURTHER if name in there)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all inputs, in their order."""
        return INPUTS + self.further


def pack(structures: Sequence[Structure], asked: Asked, device: str = "cpu") -> tuple[Tensor, ...]:
    """Return the inputs of `ExportablePotential` for a batch, in their order.

    Args:
        structures: one or more.
        asked: what the model asks for.
        device: where the tensors go.

    Raises:
        DataError: a structure lacks what the model needs.
    """
    needs = Needs(asked.cutoff, electrons=asked.electrons, features=asked.features)  # type: ignore[arg-type]
    check_electrons(structures, needs)
    sizes = [len(s) for s in structures]
    index, shifts = _edges(structures, asked.cutoff)
    arrays = {
        "positions": np.concatenate([s.positions for s in structures]),
        "numbers": np.concatenate([s.numbers for s in structures]),
        "structure": np.repeat(np.arange(len(sizes)), sizes),
        "cell": np.stack([lattice(s) for s in structures]),
        "head": np.array([head_index(s, asked.heads) for s in structures]),
        "edge_index": index,
        "shifts": shifts,
        "slots": np.arange(np.bincount(index[1], minlength=1).max()),
        "charge": np.array([s.charge or 0.0 for s in structures]),
        "multiplicity": np.array([float(s.multiplicity or 1) for s in structures]),
        "features": join_features(structures, needs),
    }
    if asked.atom_charges:
        arrays["atom_charges"] = np.array(join_charges(structures), dtype=np.float64)
    if asked.far_cutoff:
        arrays["far_edge_index"], arrays["far_shifts"] = _edges(structures, asked.far_cutoff)
    # Empty arrays come from numpy with strides of 0, which the file refuses; the clone has those it asks for.
    tensors = (torch.from_numpy(arrays[name]).clone(memory_format=torch.contiguous_format) for name in asked.names)
    return tuple(t.to(device) for t in tensors)


def _edges(structures: Sequence[Structure], cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Both directions of all pairs of a batch: indices (2, E) and shifts (E, 3), Å."""
    sizes = [len(s) for s in structures]
    first_atom = np.cumsum([0, *sizes[:-1]])
    edges = [directed_edges(s, cutoff) for s in structures]
    index = np.concatenate([e + start for (e, _), start in zip(edges, first_atom, strict=True)], 1)
    return index, np.concatenate([shift for _, shift in edges])
