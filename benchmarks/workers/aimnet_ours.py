"""ForgeField's side of the AIMNet2 benchmark: one case, one dtype."""

from __future__ import annotations

import sys

from protocol import Channel, load_case, serve

CHANNEL = Channel()

import torch  # noqa: E402
from turns import turns  # noqa: E402

from forgefield.core import allocator  # noqa: E402
from forgefield.core.structure import Structure  # noqa: E402
from forgefield.data.labels import join_labels  # noqa: E402
from forgefield.graph.build import build_graph  # noqa: E402
from forgefield.models.bundle import load_bundle  # noqa: E402
from forgefield.train.loss import build_loss  # noqa: E402
from forgefield.train.settings import TrainSettings  # noqa: E402


def structures_of(case: dict) -> list[Structure]:
    """The neutral molecules with their labels."""
    found = []
    for k, (start, stop) in enumerate(zip(case["ptr"][:-1], case["ptr"][1:], strict=True)):
        labels = {"energy": case["energy"][k], **{n: case[n][start:stop] for n in ("forces", "charges")}}
        found.append(Structure(case["numbers"][start:stop], case["positions"][start:stop], labels=labels, charge=0.0))
    return found


def main() -> None:
    """Answer orders."""
    case_path, dtype_name, bundle, threads = sys.argv[1:]
    allocator.tune()
    torch.set_num_threads(int(threads))
    dtype = getattr(torch, dtype_name)
    structures = structures_of(load_case(case_path))
    potential = load_bundle(bundle, dtype=dtype)
    graph = build_graph(structures, potential.needs, heads=potential.heads, dtype=dtype)
    settings = TrainSettings(energy_weight=1.0, force_weight=0.2, targets={"charges": {"weight": 0.05}})
    losses = build_loss(settings, potential)
    # fused, as forgefield.train.optimizers makes it
    optimizer = torch.optim.AdamW(potential.parameters(), lr=1e-4, fused=True)
    train, infer, predict = turns(potential, potential, graph, join_labels(structures, dtype), losses, optimizer)
    about = {
        "n_parameters": sum(p.numel() for p in potential.parameters()),
        "versions": {"torch": torch.__version__},
        "allocator": allocator.in_use(),
    }
    serve(CHANNEL, {"train": train, "infer": infer}, predict, about)


if __name__ == "__main__":
    main()
