"""ForgeField's side of the ALIGNN benchmark: one case, one dtype."""

from __future__ import annotations

import sys

from protocol import Channel, load_case, serve

CHANNEL = Channel()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from turns import turns  # noqa: E402

from forgefield.core import allocator  # noqa: E402
from forgefield.core.structure import Structure  # noqa: E402
from forgefield.data.labels import join_labels  # noqa: E402
from forgefield.graph.build import build_graph  # noqa: E402
from forgefield.models.architectures.alignn.package import load_package_weights  # noqa: E402
from forgefield.models.architectures.alignn.settings import AlignnSettings  # noqa: E402
from forgefield.models.potential import Potential, build_potential  # noqa: E402
from forgefield.train.loss import build_loss  # noqa: E402
from forgefield.train.settings import TrainSettings  # noqa: E402


def structures_of(case: dict) -> list[Structure]:
    """The molecules with their labels."""
    found = []
    for k, (start, stop) in enumerate(zip(case["ptr"][:-1], case["ptr"][1:], strict=True)):
        labels = {"energy": case["energy"][k], "forces": case["forces"][start:stop]}
        found.append(Structure(case["numbers"][start:stop], case["positions"][start:stop], labels=labels))
    return found


def build(case: dict, weights: str, dtype: torch.dtype) -> Potential:
    """The model of the package's weights."""
    cutoff, three_body = (float(x) for x in case["cutoffs"])
    settings = AlignnSettings(
        cutoff=cutoff, three_body_cutoff=three_body, compat="alignn", use_cutoff_function=False, use_penalty=False
    )
    elements = sorted(set(case["numbers"].tolist()))
    zero = {"default": dict.fromkeys(elements, 0.0)}
    potential = build_potential(
        "alignn", settings, elements=elements, reference_energies=zero, avg_num_neighbors=1.0, dtype=dtype
    )
    with np.load(weights, allow_pickle=False) as file:
        state = {name: torch.tensor(file[name]).to(dtype) for name in file.files}
    load_package_weights(potential.architecture, state)  # type: ignore[arg-type]
    return potential


def main() -> None:
    """Answer orders."""
    case_path, dtype_name, weights, threads, *more = sys.argv[1:]
    allocator.tune()
    torch.set_num_threads(int(threads))
    dtype, case = getattr(torch, dtype_name), load_case(case_path)
    structures, potential = structures_of(case), build(case, weights, dtype)
    graph = build_graph(structures, potential.needs, heads=potential.heads, dtype=dtype)
    losses = build_loss(
        TrainSettings(energy_weight=1.0, force_weight=1.0, loss_energy="mae", loss_force="mae"), potential
    )
    optimizer = torch.optim.AdamW(potential.parameters(), lr=1e-4, fused=True)
    forward = potential
    if more:
        potential(graph)  # makes the trace
        forward = torch.compile(potential)
    train, infer, predict = turns(potential, forward, graph, join_labels(structures, dtype), losses, optimizer)
    about = {
        "n_parameters": sum(p.numel() for p in potential.parameters()),
        "triplets": len(graph.triplet_filled),
        "compiled": bool(more),
        "versions": {"torch": torch.__version__},
        "allocator": allocator.in_use(),
    }
    serve(CHANNEL, {"train": train, "infer": infer}, predict, about)


if __name__ == "__main__":
    main()
