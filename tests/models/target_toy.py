"""A small network that predicts what it is asked for: numbers, vectors, tensors, values of atoms, classes."""

import torch
from energy_toy import EnergyToy, EnergyToySettings
from torch import nn

from forgefield.core.catalog import Entry
from forgefield.core.quantities import Quantity
from forgefield.graph.segment import sum_by
from forgefield.models.traced.gradient import Predictions

GAP = Quantity("gap", "eV", "structure", (), "", "total")
SPECTRUM = Quantity("spectrum", "", "structure", (4,), "", "total")
FIELD = Quantity("field", "V", "structure", (3,), "", "total", rotates="vector")
TENSOR = Quantity("tensor", "", "structure", (3, 3), "", "total", rotates="tensor")
MOMENT = Quantity("moment", "muB", "atom", (), "", "total")
METAL = Quantity("metal", "", "structure", (), "", "total", kind="class")
ALL = (GAP, SPECTRUM, FIELD, TENSOR, MOMENT, METAL)


class TargetToy(EnergyToy):
    uses_features = True

    def __init__(self, settings, context):
        super().__init__(settings, context)
        width = settings.channels + context.n_features
        self.heads = nn.ModuleDict(
            {q.name: nn.Linear(width, 1 if q.rotates != "not" else q.width) for q in context.targets}
        )

    def extra_quantities(self):
        return {q.name: q for q in self.context.targets}

    def predictions(self, graph, vectors, species, counts):
        h = self.features(graph, vectors, species)
        wide = torch.cat([h, graph.features.index_select(0, graph.structure)], 1)
        s, found = graph.n_structures, {}
        count = sum_by(torch.ones_like(h[:, 0]), graph.structure, s).clamp(min=1)
        for q in self.context.targets:
            of_atoms = self.heads[q.name](wide)
            if q.per == "atom":
                found[q.name] = of_atoms.reshape(-1, *q.shape)
            elif q.rotates == "not":
                found[q.name] = (sum_by(of_atoms, graph.structure, s) / count.unsqueeze(1)).reshape(-1, *q.shape)
            else:
                of_pairs = of_atoms.index_select(0, graph.pair_first) - of_atoms.index_select(0, graph.pair_second)
                r = vectors.norm(dim=1, keepdim=True)
                arrow = of_pairs * vectors * torch.clamp(1 - (r / self.settings.r_max) ** 2, min=0.0) ** 4
                if q.rotates == "tensor":
                    arrow = (arrow.unsqueeze(2) * vectors.unsqueeze(1)).reshape(-1, 9)
                first = graph.structure.index_select(0, graph.pair_first)
                found[q.name] = sum_by(arrow, first, s).reshape(-1, *q.shape)
        if not self.context.energy:
            return Predictions(torch.zeros_like(h[:, 0]), found)
        return Predictions(self.atom_energies(graph, vectors, species, counts), found)


ENTRY = Entry(settings=EnergyToySettings, build=TargetToy, summary="for tests")
