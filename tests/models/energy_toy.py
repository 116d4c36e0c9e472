"""A small network that writes the energy only, structures for it, and what it is compared with.

Layer norm, neighbour table, sums over pairs, vectors, heads.
"""

import numpy as np
import torch
from torch import nn

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.graph.gather import filled_slots, pairs_to_slots, senders_to_slots
from forgefield.graph.needs import Needs
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import ArchitectureContext
from forgefield.models.potential import Potential
from forgefield.models.traced.architecture import EnergyArchitecture
from forgefield.models.traced.gradient import differentiate, state_of
from forgefield.models.traced.sizes import Inputs

ELEMENTS = [1, 6, 8, 14]
EXACT = 1e-11


class EnergyToySettings(Settings):
    r_max: float = 4.0
    channels: int = 8


class EnergyToy(EnergyArchitecture):
    def __init__(self, settings, context):
        super().__init__()
        c = settings.channels
        self.settings, self.context, self.needs = settings, context, Needs(settings.r_max)
        self.embedding = nn.Parameter(torch.randn(context.n_kinds, c))
        self.levels = nn.Parameter(torch.zeros(context.n_embedded, c)) if context.n_embedded else None
        self.radial = nn.Sequential(nn.Linear(6, c), nn.SiLU(), nn.Linear(c, 2 * c))
        self.norm = nn.LayerNorm(c)
        self.mix = nn.Linear(c, c)
        self.readout = nn.Linear(c, context.n_readouts, bias=False)
        self.register_buffer("centres", torch.linspace(0.5, 3.5, 6), persistent=False)

    def head_parameters(self):
        return ["readout.weight"]

    def indexed(self):
        return {
            "embedding": (self.context.kind_axis,),
            "levels": ("heads",),
            "readout.weight": (self.context.readout_axis,),
        }

    def features(self, graph, vectors, species):
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        switch = torch.clamp(1 - (r / self.settings.r_max) ** 2, min=0.0) ** 4
        scalar, vector = (self.radial(torch.exp(-((r - self.centres) ** 2))) * switch).chunk(2, 1)
        h, n, shape = self.embedding[species], graph.n_atoms, graph.table_sign.shape
        if self.levels is not None:
            h = h + self.levels[graph.head[graph.structure]]
        to_first = sum_by(scalar * h.index_select(0, graph.pair_second), graph.pair_first, n)
        h = h + to_first + sum_by(scalar * h.index_select(0, graph.pair_first), graph.pair_second, n)
        h = torch.tanh(self.mix(nn.functional.silu(self.norm(h))))
        sent = senders_to_slots(h, graph) * pairs_to_slots(vector, graph) * filled_slots(graph, 2)
        unit = pairs_to_slots(vectors / r, graph) * graph.table_sign.reshape(-1, 1)
        arrows = (sent.unsqueeze(1) * unit.unsqueeze(2)).unflatten(0, shape).sum(1)
        return h + (arrows**2).sum(1)

    def atom_energies(self, graph, vectors, species, counts):
        head = self.readout_of(graph)
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


def molecule(n, seed=0):
    rng = np.random.default_rng(seed + n)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)])[:n] * 1.4
    return Structure(rng.choice([1, 6, 8], n), grid + rng.normal(0, 0.15, (n, 3)))


def crystal():
    cell = np.array([[2.9, 0.0, 0.0], [0.7, 3.1, 0.0], [-0.4, 0.5, 3.3]])
    return Structure(np.array([14, 8]), np.array([[0.1, 0.0, 0.2], [1.6, 1.4, 1.8]]), cell, np.ones(3, bool))


def apart(n):
    """Atoms out of each other's reach."""
    return Structure(np.full(n, 6), np.arange(n)[:, None] * np.array([[9.0, 0.0, 0.0]]))


def batch(potential, *structures):
    graph = build_graph(structures, potential.needs, dtype=potential.dtype)
    species = torch.searchsorted(potential.numbers, graph.numbers)
    return Inputs(graph, graph.pair_vectors(), species, torch.bincount(species, minlength=len(potential.numbers)))


def by_autograd(potential, inputs, differentiable=True):
    architecture = potential.architecture
    return differentiate(architecture, state_of(architecture), inputs, differentiable=differentiable)


def weight_gradients(potential, term):
    """Of a loss of energies and vector gradients, by name."""
    loss = (term.energies**2).sum() + (term.vector_gradients**3).sum() + term.vector_gradients[:, 0].sum()
    named = dict(potential.architecture.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True))


def _tensors(values):
    """The tensors among the values, those of mappings too, in the order of their names."""
    lists = ([v[k] for k in sorted(v)] if isinstance(v, dict) else [v] for v in values if v is not None)
    return [t for one in lists for t in one]


def assert_same(found, wanted, tolerance=EXACT):
    assert [sorted(x) for x in found if isinstance(x, dict)] == [sorted(x) for x in wanted if isinstance(x, dict)]
    for a, b in zip(_tensors(found), _tensors(wanted), strict=True):
        assert a.shape == b.shape
        difference, scale = ((t.detach().abs().max() if t.numel() else 0.0) for t in (a - b, b))
        assert float(difference) <= tolerance * max(1.0, float(scale))


def assert_trains_as_autograd(potential, inputs):
    found, wanted = potential.architecture(*inputs), by_autograd(potential, inputs)
    assert_same(found, wanted)
    assert_same(weight_gradients(potential, found).values(), weight_gradients(potential, wanted).values(), 1e-9)


BATCHES = [
    [molecule(5), molecule(9), crystal()],
    [molecule(14), molecule(3)],
    [crystal()],
    [molecule(1), molecule(2, 7), molecule(6), molecule(2)],
    [molecule(20)],
]
