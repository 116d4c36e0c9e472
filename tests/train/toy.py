"""A potential small enough to train in milliseconds, and structures labelled by another one of its kind."""

import numpy as np
import torch
from torch import nn

from forgefield.core.settings import Settings
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.loader import make_loader
from forgefield.graph.build import build_graph
from forgefield.graph.needs import Needs
from forgefield.models.architecture import Architecture, ArchitectureContext, AtomTerm
from forgefield.models.potential import Potential
from forgefield.train.settings import TrainSettings

CUTOFF = 3.5
ENERGIES = {1: -1.5, 6: -3.0}


class ToySettings(Settings):
    """No settings."""


class Toy(Architecture):
    """Each pair adds tanh(w . f(r)) to the energy; `noise` shakes f while training, so that random numbers matter."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.needs, self.noise = Needs(CUTOFF), noise
        self.linear = nn.Linear(4, 3, dtype=torch.float64)
        self.readouts = nn.ModuleList([nn.Linear(3, 1, bias=False, dtype=torch.float64)])
        self.register_buffer("centres", torch.linspace(0.8, 2.5, 4, dtype=torch.float64), persistent=False)

    def head_parameters(self):
        return [name for name, _ in self.named_parameters() if name.startswith("readouts.")]

    def forward(self, graph, vectors, species, counts):
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        difference = r - self.centres
        features = torch.exp(-(difference**2))
        if self.training and self.noise:
            features = features * (1 + self.noise * torch.rand_like(features))
        slopes = -2 * difference * features
        hidden = torch.tanh(self.linear(features))
        pair = self.readouts[0](hidden).squeeze(1)
        up = (1 - hidden**2) * self.readouts[0].weight
        gradient = ((up @ self.linear.weight) * slopes).sum(1, keepdim=True) * vectors / r
        energies = pair.new_zeros(graph.n_atoms).index_add(0, graph.pair_first, pair)
        return AtomTerm(energies, gradient)


def make_potential(seed=0, noise=0.0, heads=("default",), scale=1.0):
    context = ArchitectureContext((1, 6), tuple(heads), 3.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        toy = Toy(noise)
    n = len(heads)
    return Potential("toy", ToySettings(), toy, context, dict.fromkeys(heads, ENERGIES), [scale] * n, [0.0] * n, {})


def make_structures(n=12, seed=0, stress=True):
    """Small molecules and, every third, a periodic box; labels by a teacher, which a student can reach."""
    teacher, rng = make_potential(seed=99, scale=2.0), np.random.default_rng(seed)
    grid = np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)]) * 1.5
    found = []
    for k in range(n):
        size = int(rng.integers(2, 6))
        box = {"cell": np.eye(3) * 4.5, "pbc": np.ones(3, bool)} if k % 3 == 2 else {}
        positions = grid[:size] + rng.normal(0, 0.1, (size, 3))
        more = {**box, "config_type": "box" if box else "gas", "origin": f"toy.xyz: frame {k + 1}"}
        bare = Structure(rng.choice([1, 6], size), positions, **more)
        with torch.no_grad():
            out = teacher(build_graph([bare], teacher.needs, dtype=torch.float64))
        labels = {"energy": out.energy[0].numpy(), "forces": out.forces.numpy()}
        if stress and box:
            labels["stress"] = out.stress[0].numpy()
        found.append(Structure(bare.numbers, bare.positions, labels=labels, **more))
    return found


def load(structures, batch_size=4, **more):
    more = {"dtype": torch.float64, **more}
    return make_loader(Dataset.of(structures), Needs(CUTOFF), batch_size=batch_size, **more)


def quiet(**more):
    """Settings for a fast, silent fit."""
    base = {"epochs": 3, "batch_size": 4, "progress_bar": False, "log_every": None, "lr": 0.02}
    return TrainSettings.model_validate({**base, **more})


def weights(potential):
    return {name: value.detach().clone() for name, value in potential.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
