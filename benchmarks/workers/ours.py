"""ForgeField's side of the benchmark: one case, one dtype."""

from __future__ import annotations

import sys
import time

from protocol import ENERGY_WEIGHT, FORCE_WEIGHT, LEARNING_RATE, Channel, load_case, serve

CHANNEL = Channel()

import torch  # noqa: E402
from turns import turns  # noqa: E402

from forgefield.core import allocator  # noqa: E402
from forgefield.core.structure import Structure  # noqa: E402
from forgefield.data.labels import join_labels  # noqa: E402
from forgefield.graph.build import build_graph  # noqa: E402
from forgefield.models.bundle import load_bundle  # noqa: E402
from forgefield.train.compiled import CompiledPotential  # noqa: E402
from forgefield.train.loss import build_loss  # noqa: E402
from forgefield.train.settings import TrainSettings  # noqa: E402


def structures_of(case: dict) -> list[Structure]:
    """The structures with their labels."""
    found = []
    for k, (start, stop) in enumerate(zip(case["ptr"][:-1], case["ptr"][1:], strict=True)):
        found.append(
            Structure(
                numbers=case["numbers"][start:stop],
                positions=case["positions"][start:stop],
                cell=case["cell"][k],
                pbc=case["pbc"][k],
                labels={"energy": case["energy"][k], "forces": case["forces"][start:stop]},
            )
        )
    return found


def main() -> None:
    case_path, dtype_name, bundle, threads, compiling = sys.argv[1:]
    allocator.tune()
    torch.set_num_threads(int(threads))
    dtype = getattr(torch, dtype_name)
    structures = structures_of(load_case(case_path))
    potential = load_bundle(bundle, dtype=dtype)
    graph = build_graph(structures, potential.needs, heads=potential.heads, dtype=dtype)
    labels = join_labels(structures, dtype)
    losses = build_loss(TrainSettings(energy_weight=ENERGY_WEIGHT, force_weight=FORCE_WEIGHT))
    # fused, as forgefield.train.optimizers makes it
    optimizer = torch.optim.Adam(potential.parameters(), lr=LEARNING_RATE, amsgrad=True, fused=True)

    forward, compiled = potential, None
    start = time.perf_counter()
    if compiling == "compile":
        more = [*structures, structures[0]]
        larger = build_graph(more, potential.needs, heads=potential.heads, dtype=dtype)
        forward = compiled = CompiledPotential(potential, lambda text: print(text, file=sys.stderr))
        compiled.prepare([graph, larger])
        if compiled.off is not None:
            raise SystemExit(f"the compiled model is not used: {compiled.off}")
    compile_seconds = time.perf_counter() - start

    train, infer, predict = turns(potential, forward, graph, labels, losses, optimizer)

    about = {
        "n_parameters": sum(p.numel() for p in potential.parameters()),
        "n_pairs": int(graph.pair_first.shape[0]),
        "versions": {"torch": torch.__version__},
        "allocator": allocator.in_use(),
        "compiled": None
        if compiled is None
        else {
            "seconds": compile_seconds,
            "graphs": compiled.graphs,
            "largest_deviation": compiled.worst.relative,
            "of": compiled.worst.what,
        },
    }
    serve(CHANNEL, {"train": train, "infer": infer}, predict, about)


if __name__ == "__main__":
    main()
