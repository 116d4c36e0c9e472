"""Physics terms that follow from the structure alone: computed once for each, and added to every prediction of it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from forgefield.graph.build import build_graph
from forgefield.graph.needs import Needs
from forgefield.models.architecture import Geometry, PhysicsTerm
from forgefield.models.gradients import Gradients
from forgefield.models.potential import Outputs, Potential

if TYPE_CHECKING:
    from forgefield.core.structure import Structure
    from forgefield.data.dataset import Dataset
    from forgefield.data.loader import Batch

LIMIT = 2**30  # bytes that the results of one data set may take: 30 million atoms


class Constant(NamedTuple):
    """What the terms add to one structure, float64, its atoms in their own order."""

    energies: Tensor  # (n,), eV
    forces: Tensor  # (n, 3), eV/Å
    stress: Tensor  # (3, 3), eV/Å^3

    @property
    def n_bytes(self) -> int:
        """Memory of the numbers."""
        return sum(t.nbytes for t in self)


def constant_terms(potential: Potential) -> tuple[str, ...]:
    """Return the names of the terms that follow from the structure alone, if one of them is worth keeping.

    Terms without far pairs cost less in a step than looking up their results, unless others are looked up anyway.
    """
    found = {n: t for n, t in potential.physics.items() if not t.uses_charges and next(t.parameters(), None) is None}
    costly = any(term.far_cutoff or not term.exportable for term in found.values())  # type: ignore[union-attr]
    return tuple(found) if costly else ()


class ConstantTerms:
    """Results of the terms for the structures of one data set, computed when a structure is first met.

    Each structure is computed by itself, in float64 on the CPU, so that its digits depend neither on the batch nor on
    where a fit is taken up. When the memory is full, structures that come later are computed each time, and `report`
    is called with one sentence.

    Args:
        terms: by name.
        needs: the graph that they ask for.
        heads: of the model.
        dataset: to which the places of batches refer.
        limit: bytes for the results.
    """

    def __init__(
        self,
        terms: Mapping[str, PhysicsTerm],
        needs: Needs,
        heads: Sequence[str],
        dataset: Dataset,
        limit: int = LIMIT,
    ) -> None:
        self.terms = [copy.deepcopy(term).cpu().double().eval() for term in terms.values()]
        self.needs = dataclasses.replace(needs, triplets=0.0)
        self.heads, self.dataset = tuple(heads), dataset
        self.report: Callable[[str], None] = lambda text: None
        self.names, self.computed = tuple(terms), 0
        self._kept: dict[int, Constant] = {}
        self._room, self._full = limit, False

    def begin(self, report: Callable[[str], None]) -> None:
        """Say what is left out of the steps; later reports go there too."""
        self.report = report
        report(f"train.constant_physics: {', '.join(self.names)}: computed once for each structure, not in every step")

    def add(self, outputs: Outputs, batch: Batch) -> Outputs:
        """Return the predictions of a batch with what the terms add to them."""
        parts = [self._of(place) for place in batch.index.tolist()]
        device, dtype = outputs.forces.device, outputs.forces.dtype
        atoms = torch.cat([part.energies for part in parts])
        forces = torch.cat([part.forces for part in parts])
        stress = torch.stack([part.stress for part in parts])
        energy = torch.stack([part.energies.sum() for part in parts])
        return outputs._replace(
            energy=outputs.energy + energy.to(device),
            forces=outputs.forces + forces.to(device, dtype),
            stress=outputs.stress + stress.to(device, outputs.stress.dtype),
            atom_energies=outputs.atom_energies + atoms.to(device),
        )

    def _of(self, place: int) -> Constant:
        kept = self._kept.get(place)
        if kept is not None:
            return kept
        found = self.compute(self.dataset[place])
        self.computed += 1
        if found.n_bytes <= self._room:
            self._room -= found.n_bytes
            self._kept[place] = found
        elif not self._full:
            self._full = True
            names = ", ".join(self.names)
            self.report(f"{names}: the results of {len(self._kept):,} structures are kept, there is no room for more")
        return found

    def compute(self, structure: Structure) -> Constant:
        """Compute what the terms add to a structure.

        Raises:
            DataError: a term is not meant for it.
        """
        graph = build_graph([structure], self.needs, heads=self.heads, dtype=torch.float64)
        with torch.no_grad():
            geometry = Geometry(graph, graph.pair_vectors(), graph.far_vectors())
            gradients, energies = Gradients(torch.zeros_like(geometry.vectors)), torch.zeros_like(graph.positions[:, 0])
            for term in self.terms:
                share = term(geometry, None)
                energies, gradients = energies + share.energies, gradients.add(share)
            forces, stress = gradients.forces(graph), gradients.stress(geometry)[0]
        return Constant(energies.index_select(0, graph.inverse), forces.index_select(0, graph.inverse), stress)


Maker = Callable[["Dataset"], ConstantTerms | None]


@contextmanager
def taken_out(potential: Potential, names: Sequence[str]) -> Generator[Maker]:
    """Leave terms out of a potential inside a `with` block; gives what makes their results for a data set.

    Loaders made inside find no far pairs for them.

    Args:
        potential: changed inside the block, as it was after it.
        names: of the terms; none changes nothing.
    """
    if not names:
        yield lambda dataset: None
        return
    needs = potential.needs
    terms = {name: potential.physics[name] for name in names}
    with potential.without(names):
        yield lambda dataset: ConstantTerms(terms, needs, potential.heads, dataset)  # type: ignore[arg-type]
