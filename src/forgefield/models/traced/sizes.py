"""Which dimensions of an architecture's inputs vary from batch to batch, and which of them are always the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs

Shape = tuple[int | str, ...]  # a number is fixed; a name stands for a size that varies
DRAWS = 100  # of the larger batch
SAMPLES = ((2, 5, 9), (4, 3, 7, 11))  # atoms of the structures of two small batches


class Inputs(NamedTuple):
    """What an architecture's `forward` is given."""

    graph: Graph
    vectors: Tensor  # (P, 3), Å
    species: Tensor  # (N,)
    counts: Tensor  # (Z,), on the CPU

    def tensors(self) -> list[Tensor]:
        """All tensors in a fixed order."""
        return [*self.graph, self.vectors, self.species, self.counts]


def inputs_of(tensors: Sequence[Tensor]) -> Inputs:
    """Undo `Inputs.tensors`."""
    return Inputs(Graph(*tensors[:-3]), *tensors[-3:])


class Sizes:
    """Shapes of all inputs with a name for every size that varies.

    Found by comparing two small batches: a dimension that is equal in both is fixed, dimensions that are equal within
    each share a name. So a new tensor in `Graph` is understood without a word here.

    Args:
        needs: the graph that the architecture is fed.
    """

    def __init__(self, needs: Needs) -> None:
        small, large = _examples(needs)
        names: dict[tuple[int, int], str] = {}
        self.shapes: list[Shape] = []
        self.typical: dict[str, int] = {}
        self.places: list[tuple[int, int, int | str]] = []
        for k, (label, a) in enumerate(small.items()):
            shape: list[int | str] = []
            for d, pair in enumerate(zip(a, large[label], strict=True)):
                fixed = pair[0] == pair[1]
                dimension = pair[0] if fixed else names.setdefault(pair, f"{label}_{d}")
                shape.append(dimension)
                self.places.append((k, d, dimension))
                if isinstance(dimension, str):
                    self.typical[dimension] = pair[0]
            self.shapes.append(tuple(shape))

    def measure(self, inputs: Inputs) -> dict[str, int]:
        """Return the sizes of a batch by name.

        Raises:
            ModelError: a tensor does not have the shape that `build_graph` gives it.
        """
        tensors = inputs.tensors()
        found: dict[str, int] = {}
        for k, d, name in self.places:
            size = tensors[k].shape[d]
            wanted = found.setdefault(name, size) if isinstance(name, str) else name
            if wanted != size:
                raise ModelError(
                    f"input {k} has shape {tuple(tensors[k].shape)}, expected {self.shapes[k]}",
                    fix="build the graph with build_graph and the model's needs",
                )
        return found


@cache
def sizes_for(needs: Needs) -> Sizes:
    """Return the sizes of a graph; made once."""
    return Sizes(needs)


def probes(inputs: Inputs, needs: Needs) -> list[Inputs]:
    """Make the smallest batches there are from the elements of another: a lone atom, and two atoms."""
    made = []
    for n in (1, 2):
        rows = torch.linspace(0, len(inputs.species) - 1, n).long().to(inputs.species.device)
        numbers, species = inputs.graph.numbers[rows], inputs.species[rows]
        positions = np.arange(n)[:, None] * np.array([[0.3, 0.4, 0.1]]) * needs.cutoff
        electrons = {"charge": int(numbers.sum()) % 2, "multiplicity": 1}
        charges = {"charges": np.zeros(n)}
        structure = Structure(numbers.cpu().numpy(), positions, features=_features(needs), labels=charges, **electrons)
        graph = build_graph([structure], needs, dtype=inputs.vectors.dtype, device=inputs.vectors.device)
        counts = torch.bincount(species.cpu(), minlength=len(inputs.counts))
        made.append(Inputs(graph, graph.pair_vectors(), species, counts))
    return made


def _features(needs: Needs) -> dict[str, np.ndarray]:
    return {name: np.full(length, 0.5) for name, length in needs.features}


def _examples(needs: Needs) -> tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]:
    """Two small batches whose largest numbers of neighbours differ, and not as another of their sizes does.

    Where a few nearest neighbours are asked for, both may happen to have as many.
    """
    small = _example(needs, SAMPLES[0])
    for draw in range(DRAWS):
        large = _example(needs, SAMPLES[1], draw)
        pairs = [
            (name, d, (a, b)) for name in small for d, (a, b) in enumerate(zip(small[name], large[name], strict=True))
        ]
        width = small["table_sender"][1], large["table_sender"][1]
        alike = {name for name, _, pair in pairs if pair == width}
        if width[0] != width[1] and alike <= {"table_sender", "table_pair", "table_sign"}:
            return small, large
    raise AssertionError(f"no two batches tell the neighbours of {needs} from other sizes")


def _example(needs: Needs, atoms: Sequence[int], draw: int = 0) -> Mapping[str, tuple[int, ...]]:
    """Shapes of a batch of random molecules, by name of the tensor; without `counts`, which never varies."""
    rng = np.random.default_rng(len(atoms) + 100 * draw)
    span = needs.cutoff * 1.2
    more = {"multiplicity": 1, "features": _features(needs)}
    charges = [{"charges": np.zeros(n)} for n in atoms]
    made = [
        Structure(np.ones(n, int), rng.uniform(0, span, (n, 3)), charge=n % 2, labels=q, **more)
        for n, q in zip(atoms, charges, strict=True)
    ]
    graph = build_graph(made, needs)
    shapes = {name: tuple(tensor.shape) for name, tensor in graph._asdict().items()}
    return {**shapes, "vectors": tuple(graph.pair_vectors().shape), "species": (graph.n_atoms,)}
