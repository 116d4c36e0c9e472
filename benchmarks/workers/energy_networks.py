"""Two small networks that write the energy only, by one of three routes to the forces.

python energy_networks.py CASE.npz DTYPE NETWORK ROUTE THREADS

ROUTE is traced, double_backward (torch.autograd.grad with create_graph) or compiled (the trace, by torch.compile).
"""

from __future__ import annotations

import sys

from protocol import ENERGY_WEIGHT, FORCE_WEIGHT, LEARNING_RATE, Channel, load_case, serve

CHANNEL = Channel()

import torch  # noqa: E402
from ours import structures_of  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from turns import turns  # noqa: E402

from forgefield.core.settings import Settings  # noqa: E402
from forgefield.core.structure import Structure  # noqa: E402
from forgefield.data.labels import join_labels  # noqa: E402
from forgefield.graph.build import build_graph  # noqa: E402
from forgefield.graph.gather import filled_slots, pairs_to_slots, senders_to_slots  # noqa: E402
from forgefield.graph.graph import Graph  # noqa: E402
from forgefield.graph.needs import Needs  # noqa: E402
from forgefield.graph.segment import sum_by  # noqa: E402
from forgefield.models.architecture import ArchitectureContext, AtomTerm  # noqa: E402
from forgefield.models.potential import Potential  # noqa: E402
from forgefield.models.traced.architecture import EnergyArchitecture  # noqa: E402
from forgefield.models.traced.gradient import differentiate, state_of  # noqa: E402
from forgefield.models.traced.sizes import Inputs  # noqa: E402
from forgefield.train.loss import build_loss  # noqa: E402
from forgefield.train.settings import TrainSettings  # noqa: E402

CHANNELS, BASIS, LAYERS, CUTOFF = 64, 16, 3, 5.0


class Network(EnergyArchitecture):
    """Messages of scalars and, in `Table`, of vectors; `double_backward` takes the route without a trace."""

    double_backward = False

    def __init__(self, n_elements: int) -> None:
        super().__init__()
        self.needs = Needs(CUTOFF)
        self.embedding = nn.Parameter(torch.randn(n_elements, CHANNELS))
        self.filters = nn.ModuleList(self.filter() for _ in range(LAYERS))
        self.updates = nn.ModuleList(self.update() for _ in range(LAYERS))
        self.readout = nn.Sequential(nn.Linear(CHANNELS, CHANNELS // 2), nn.SiLU(), nn.Linear(CHANNELS // 2, 1))
        self.register_buffer("centres", torch.linspace(0.5, CUTOFF, BASIS), persistent=False)

    def filter(self, width: int = CHANNELS) -> nn.Module:
        """Network from the radial basis to weights."""
        return nn.Sequential(nn.Linear(BASIS, CHANNELS), nn.SiLU(), nn.Linear(CHANNELS, width))

    def update(self, width: int = CHANNELS) -> nn.Module:
        """Network from summed messages to a change of the features."""
        return nn.Sequential(nn.Linear(width, CHANNELS), nn.SiLU(), nn.Linear(CHANNELS, CHANNELS))

    def basis(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Gaussians (P, B) and the cutoff (P, 1) of distances (P, 1)."""
        return torch.exp(-4.0 * (r - self.centres) ** 2), 0.5 * (1.0 + torch.cos(r * (torch.pi / CUTOFF)))

    def forward(self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor) -> AtomTerm:
        """Energies and gradients by the route asked for."""
        if self.double_backward:
            inputs = Inputs(graph, vectors, species, counts)
            return differentiate(self, state_of(self), inputs, differentiable=torch.is_grad_enabled())
        return super().forward(graph, vectors, species, counts)


class Scatter(Network):
    """SchNet-like: filters on pairs, sums by `index_add`."""

    def atom_energies(self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor) -> Tensor:
        """Return the atom energies, (N,)."""
        basis, switch = self.basis(torch.linalg.vector_norm(vectors, dim=1, keepdim=True))
        h, n = self.embedding.index_select(0, species), graph.n_atoms
        for make, update in zip(self.filters, self.updates, strict=True):
            w = make(basis) * switch
            to_second = sum_by(h.index_select(0, graph.pair_first) * w, graph.pair_second, n)
            to_first = sum_by(h.index_select(0, graph.pair_second) * w, graph.pair_first, n)
            h = h + update(to_first + to_second)
        return self.readout(h).squeeze(1)


class Table(Network):
    """PaiNN-like: scalars and vectors in the neighbour table."""

    def filter(self, width: int = 2 * CHANNELS) -> nn.Module:
        """Weights of scalar and of vector messages."""
        return super().filter(width)

    def update(self, width: int = 2 * CHANNELS) -> nn.Module:
        """Network on scalars and lengths of vectors."""
        return super().update(width)

    def atom_energies(self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor) -> Tensor:
        """Return the atom energies, (N,)."""
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        basis, switch = self.basis(r)
        shape = graph.table_sign.shape
        unit = pairs_to_slots(vectors / r, graph) * graph.table_sign.reshape(-1, 1)
        unit = unit.unflatten(0, shape).transpose(1, 2)
        h, filled = self.embedding.index_select(0, species), filled_slots(graph, 2)
        for make, update in zip(self.filters, self.updates, strict=True):
            w = pairs_to_slots(make(basis) * switch, graph) * filled
            scalar, vector = w.chunk(2, 1)
            message = senders_to_slots(h, graph)
            total = (message * scalar).unflatten(0, shape).sum(1)
            arrow = torch.matmul(unit, (message * vector).unflatten(0, shape))
            h = h + update(torch.cat([total, (arrow * arrow).sum(1)], 1))
        return self.readout(h).squeeze(1)


NETWORKS = {"scatter": Scatter, "table": Table}


def main() -> None:
    case_path, dtype_name, network, route, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    dtype = getattr(torch, dtype_name)
    structures = structures_of(load_case(case_path))
    elements = tuple(sorted({int(z) for s in structures for z in s.numbers}))
    architecture = NETWORKS[network](len(elements))
    architecture.double_backward = route == "double_backward"
    energies = {"default": dict.fromkeys(elements, -5.0)}
    context = ArchitectureContext(elements, ("default",), 1.0)
    potential = Potential(network, Settings(), architecture, context, energies, [1.0], [0.0], {}).to(dtype)
    graph = build_graph(structures, potential.needs, dtype=dtype)
    labels = join_labels(structures, dtype)
    losses = build_loss(TrainSettings(energy_weight=ENERGY_WEIGHT, force_weight=FORCE_WEIGHT))
    optimizer = torch.optim.Adam(potential.parameters(), lr=LEARNING_RATE, amsgrad=True)

    train, infer, predict = turns(potential, potential, graph, labels, losses, optimizer)

    few = Structure(structures[0].numbers[:4], structures[0].positions[:4])
    tiny = build_graph([few, few], potential.needs, dtype=dtype)
    potential(tiny)  # machinery is loaded and the trace made before memory counts
    with torch.no_grad():
        potential(tiny)
    if route == "compiled":
        potential.architecture.compile(dynamic=True)
    about = {
        "n_parameters": sum(p.numel() for p in potential.parameters()),
        "n_pairs": int(graph.pair_first.shape[0]),
        "versions": {"torch": torch.__version__},
    }
    serve(CHANNEL, {"train": train, "infer": infer}, predict, about)


if __name__ == "__main__":
    main()
