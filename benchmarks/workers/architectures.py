"""One of our architectures with random weights, trained and run.

python architectures.py CASE.npz DTYPE BACKEND SETTINGS THREADS

SETTINGS is JSON.
"""

from __future__ import annotations

import json
import sys

from protocol import ENERGY_WEIGHT, FORCE_WEIGHT, LEARNING_RATE, Channel, load_case, serve

CHANNEL = Channel()

import torch  # noqa: E402
from ours import structures_of  # noqa: E402
from turns import turns  # noqa: E402

from forgefield.core.structure import Structure  # noqa: E402
from forgefield.data.labels import join_labels  # noqa: E402
from forgefield.graph.build import build_graph  # noqa: E402
from forgefield.models.potential import ARCHITECTURES, build_potential  # noqa: E402
from forgefield.train.loss import build_loss  # noqa: E402
from forgefield.train.settings import TrainSettings  # noqa: E402


def main() -> None:
    case_path, dtype_name, backend, settings, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    dtype = getattr(torch, dtype_name)
    structures = structures_of(load_case(case_path))
    elements = tuple(sorted({int(z) for s in structures for z in s.numbers}))
    potential = build_potential(
        backend,
        ARCHITECTURES.entry(backend).settings.model_validate(json.loads(settings)),
        elements=elements,
        reference_energies={"default": dict.fromkeys(elements, -5.0)},
        avg_num_neighbors=20.0,
        dtype=dtype,
    )
    graph = build_graph(structures, potential.needs, dtype=dtype)
    labels = join_labels(structures, dtype)
    losses = build_loss(TrainSettings(energy_weight=ENERGY_WEIGHT, force_weight=FORCE_WEIGHT))
    optimizer = torch.optim.Adam(potential.parameters(), lr=LEARNING_RATE, amsgrad=True, fused=True)
    train, infer, predict = turns(potential, potential, graph, labels, losses, optimizer)
    few = Structure(structures[0].numbers[:4], structures[0].positions[:4])
    tiny = build_graph([few, few], potential.needs, dtype=dtype)
    potential(tiny)  # machinery is loaded and the trace made before memory counts
    with torch.no_grad():
        potential(tiny)
    about = {
        "n_parameters": sum(p.numel() for p in potential.parameters()),
        "n_pairs": int(graph.pair_first.shape[0]),
        "n_atoms": graph.n_atoms,
        "versions": {"torch": torch.__version__},
    }
    serve(CHANNEL, {"train": train, "infer": infer}, predict, about)


if __name__ == "__main__":
    main()
