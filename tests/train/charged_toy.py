"""A toy that predicts charges, a dipole and a target of its own beside the energy."""

import torch
from toy import CUTOFF, ENERGIES, Toy, ToySettings, make_structures

from forgefield.core.quantities import QUANTITIES, Quantity
from forgefield.core.structure import Structure
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import ArchitectureContext
from forgefield.models.potential import Potential

GAP = Quantity("gap", "eV", "structure", (), "a target of its own", "total")
EXTRA = {"charges": QUANTITIES["charges"], "dipole": QUANTITIES["dipole"], "gap": GAP}
__all__ = ["CUTOFF", "Charged"]


class Charged(Toy):
    """A charge for each element, shifted so that a structure is neutral."""

    def __init__(self):
        super().__init__()
        self.charge = torch.nn.Parameter(torch.tensor([0.1, -0.2], dtype=torch.float64))

    def extra_quantities(self):
        return EXTRA

    def forward(self, graph, vectors, species, counts):
        term = super().forward(graph, vectors, species, counts)
        s = graph.n_structures
        raw = self.charge.index_select(0, species)
        n = sum_by(torch.ones_like(raw), graph.structure, s).clamp(min=1)
        mean = sum_by(raw, graph.structure, s) / n
        charges = raw - mean.index_select(0, graph.structure)
        dipole = sum_by(charges.unsqueeze(1) * graph.positions, graph.structure, s)
        return term._replace(extra={"charges": charges, "dipole": dipole, "gap": mean})


def make_charged(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        toy = Charged()
    context = ArchitectureContext((1, 6), ("default",), 3.0)
    return Potential("charged", ToySettings(), toy, context, {"default": ENERGIES}, [1.0], [0.0], {})


def charged_structures(n=9, seed=0):
    """Labelled by fixed charges of 0.3 for hydrogen and -0.4 for carbon; every fourth has no charges at all."""
    found = []
    for k, s in enumerate(make_structures(n, seed)):
        raw = (s.numbers == 1) * 0.3 - (s.numbers == 6) * 0.4
        charges = raw - raw.mean()
        more = {"charges": charges, "dipole": charges @ s.positions, "gap": raw.mean()} if k % 4 else {}
        found.append(
            Structure(
                s.numbers, s.positions, s.cell, s.pbc, {**s.labels, **more}, origin=s.origin, declared={"gap": GAP}
            )
        )
    return found
