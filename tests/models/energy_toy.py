"""A small network that writes the energy only: layer norm, neighbour table, sums over pairs, vectors, heads."""

import torch
from torch import nn

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.graph.gather import filled_slots, pairs_to_slots, senders_to_slots
from forgefield.graph.needs import Needs
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import ArchitectureContext
from forgefield.models.potential import Potential
from forgefield.models.traced.architecture import EnergyArchitecture

ELEMENTS = [1, 6, 8, 14]


class EnergyToySettings(Settings):
    r_max: float = 4.0
    channels: int = 8


class EnergyToy(EnergyArchitecture):
    def __init__(self, settings, context):
        super().__init__()
        c = settings.channels
        self.settings, self.needs = settings, Needs(settings.r_max)
        self.embedding = nn.Parameter(torch.randn(len(context.elements), c))
        self.radial = nn.Sequential(nn.Linear(6, c), nn.SiLU(), nn.Linear(c, 2 * c))
        self.norm = nn.LayerNorm(c)
        self.mix = nn.Linear(c, c)
        self.readout = nn.Linear(c, len(context.heads), bias=False)
        self.register_buffer("centres", torch.linspace(0.5, 3.5, 6), persistent=False)

    def head_parameters(self):
        return ["readout.weight"]

    def features(self, graph, vectors, species):
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        switch = torch.clamp(1 - (r / self.settings.r_max) ** 2, min=0.0) ** 4
        scalar, vector = (self.radial(torch.exp(-((r - self.centres) ** 2))) * switch).chunk(2, 1)
        h, n, shape = self.embedding[species], graph.n_atoms, graph.table_sign.shape
        to_first = sum_by(scalar * h.index_select(0, graph.pair_second), graph.pair_first, n)
        h = h + to_first + sum_by(scalar * h.index_select(0, graph.pair_first), graph.pair_second, n)
        h = torch.tanh(self.mix(nn.functional.silu(self.norm(h))))
        sent = senders_to_slots(h, graph) * pairs_to_slots(vector, graph) * filled_slots(graph, 2)
        unit = pairs_to_slots(vectors / r, graph) * graph.table_sign.reshape(-1, 1)
        arrows = (sent.unsqueeze(1) * unit.unsqueeze(2)).unflatten(0, shape).sum(1)
        return h + (arrows**2).sum(1)

    def atom_energies(self, graph, vectors, species, counts):
        head = graph.head.index_select(0, graph.structure)
        energies = self.readout(self.features(graph, vectors, species))
        return energies.gather(1, head.unsqueeze(1)).squeeze(1)


ENTRY = Entry(settings=EnergyToySettings, build=EnergyToy, summary="for tests")


def make_potential(architecture=EnergyToy, dtype=torch.float64, heads=("default",)):
    context = ArchitectureContext(tuple(ELEMENTS), tuple(heads), 8.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = architecture(EnergyToySettings(), context)
    energies = dict.fromkeys(heads, dict.fromkeys(ELEMENTS, -10.0))
    n = len(heads)
    return Potential("energy_toy", EnergyToySettings(), made, context, energies, [1.5] * n, [0.2] * n, {}).to(dtype)
