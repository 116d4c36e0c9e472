"""The trainer's share of a step: all but forward, backward and optimizer, on the case of mace_train.py.

    python benchmarks/overhead.py --threads 1 --epochs 3

A short fit of the usual trainer runs with clocks around forward, backward and optimizer; what is left of its updates is
the trainer: batches, loss and labels, counting, clipping, average, records. The optimizer is its step and zero_grad.
What follows a cycle (validation, its row in the records, checkpoint) is told apart. Log lines, 20 in a whole fit unless
`log_every` says otherwise, are left out: a fit as short as this one would have one in every update, 0.6 ms each.
Seconds are of the process (all threads), so that other processes on the machine count little.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "workers"))

from geometry import write_case  # noqa: E402
from protocol import MODEL  # noqa: E402

from forgefield.core import allocator  # noqa: E402
from forgefield.core.structure import Structure  # noqa: E402
from forgefield.data.dataset import Dataset  # noqa: E402
from forgefield.data.loader import Loader, make_loader  # noqa: E402
from forgefield.models.architectures.mace.settings import MaceSettings  # noqa: E402
from forgefield.models.potential import Potential, build_potential  # noqa: E402
from forgefield.train import cycles, step  # noqa: E402
from forgefield.train.ema import WeightAverage  # noqa: E402
from forgefield.train.loop import fit  # noqa: E402
from forgefield.train.loss import WeightedLoss  # noqa: E402
from forgefield.train.settings import TrainSettings  # noqa: E402
from forgefield.train.state import TrainState  # noqa: E402

ASKED = 0.03


class Clock:
    """Process seconds of named sections, one list entry per update."""

    def __init__(self) -> None:
        self.now: dict[str, float] = defaultdict(float)
        self.updates: list[dict[str, float]] = []
        self.last = time.process_time()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time counted under a name."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.now[name] += time.process_time() - start

        return timed

    def close(self) -> None:
        """End an update: what lies between this and the last is all of it."""
        end = time.process_time()
        self.updates.append({**self.now, "all": end - self.last})
        self.now.clear()
        self.last = end


def instrument(clock: Clock) -> None:
    """Put clocks where the trainer calls forward, backward and optimizer, and around what is not a step."""
    TrainState.predict = clock.around("forward", TrainState.predict)
    torch.Tensor.backward = clock.around("backward", torch.Tensor.backward)
    real = cycles.take_update

    def take_update(state: TrainState, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(state.optimizer, "_timed"):
            state.optimizer.step = clock.around("optimizer", state.optimizer.step)
            state.optimizer.zero_grad = clock.around("optimizer", state.optimizer.zero_grad)
            state.optimizer._timed = True
        return real(state, *args, **kwargs)

    cycles.take_update = clock.around("update", take_update)
    step._clip = clock.around("clipping", step._clip)
    step._to_floats = clock.around("numbers to the host", step._to_floats)
    for name in ("rows", "sums", "counts", "combine"):
        setattr(WeightedLoss, name, clock.around(f"loss: {name}", getattr(WeightedLoss, name)))
    WeightAverage.update = clock.around("average", WeightAverage.update)
    Potential.train = clock.around("training mode", Potential.train)
    Loader.build = clock.around("making batches", Loader.build)
    cycles.Cycles._end_cycle = clock.around("end of a cycle", cycles.Cycles._end_cycle)
    if hasattr(cycles, "Tally"):
        for name in ("add", "end_update", "flush"):
            setattr(cycles.Tally, name, clock.around("errors by element", getattr(cycles.Tally, name)))
    real_update = cycles.Cycles._update

    def update(self: Any, *args: Any) -> None:
        clock.around("counting and records", real_update)(self, *args)
        clock.close()

    cycles.Cycles._update = update


def make(dtype: torch.dtype, hidden: str, n: int) -> tuple[Potential, list[Structure]]:
    """Return the benchmark's model, untrained, and `n` copies of its ten molecules with other places."""
    case = write_case("molecules", MODEL["r_max"], MODEL["energy_per_atom"])
    structures = []
    for copy in range(n):
        for k, (start, stop) in enumerate(zip(case["ptr"][:-1], case["ptr"][1:], strict=True)):
            labels = {"energy": case["energy"][k], "forces": case["forces"][start:stop]}
            moved = case["positions"][start:stop] + 0.001 * copy
            numbers = case["numbers"][start:stop]
            structures.append(Structure(numbers, moved, case["cell"][k], case["pbc"][k], labels=labels))
    elements = sorted({int(z) for s in structures for z in s.numbers})
    settings = MaceSettings(
        r_max=MODEL["r_max"], hidden_irreps=hidden, max_ell=MODEL["max_ell"], correlation=MODEL["correlation"],
        num_interactions=MODEL["num_interactions"], radial_mlp=MODEL["radial"], mlp_irreps=MODEL["readout"],
    )  # fmt: skip
    energies = {"default": dict.fromkeys(elements, MODEL["energy_per_atom"])}
    potential = build_potential(
        "mace", settings, elements=elements, heads=["default"], reference_energies=energies, avg_num_neighbors=20.0,
        scale=1.0, shift=0.0, dtype=dtype,
    )  # fmt: skip
    return potential, structures


def shares(clock: Clock, warm: int) -> dict[str, float]:
    """Median process seconds of each section of an update; the first `warm`, which warm up, are left out.

    What is done for several updates at once (batches, errors by element) counts with its mean, as the shares do.
    """
    kept = clock.updates[warm:]
    names = {name for update in kept for name in update}
    median = {name: statistics.median(update.get(name, 0.0) for update in kept) for name in names}
    whole = [u["all"] - u.get("end of a cycle", 0.0) for u in kept]
    of_trainer = [all_of - u["forward"] - u["backward"] - u["optimizer"] for u, all_of in zip(kept, whole, strict=True)]
    of_batches = [u.get("making batches", 0.0) for u in kept]
    return median | {
        "trainer": statistics.mean(of_trainer),
        "making batches": statistics.mean(of_batches),
        "share": sum(of_trainer) / sum(whole),
        "share without batches": (sum(of_trainer) - sum(of_batches)) / sum(whole),
        "updates": len(kept),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8, help="updates per epoch")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--hidden", default=MODEL["hidden"], help="features of an atom")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    allocator.tune()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    potential, structures = make(dtype, options.hidden, options.batches)
    settings = TrainSettings(epochs=options.epochs, batch_size=10, compile=False, progress_bar=False, log_every=None)
    loaders = [
        make_loader(Dataset.of(part), potential.needs, batch_size=10, dtype=dtype, shuffle=shuffle)
        for part, shuffle in ((structures, True), (structures[:10], False))
    ]
    clock = Clock()
    instrument(clock)
    with tempfile.TemporaryDirectory() as folder:
        common = {
            "config_fingerprint": "c",
            "data_fingerprint": "d",
            "device": "cpu",
            "console": Console(file=io.StringIO()),
        }
        fit(potential, *loaders, settings, folder=Path(folder), **common)
    found = shares(clock, options.batches)
    for name in sorted(found, key=lambda name: -found[name]):
        if not name.startswith("share") and name != "updates":
            print(f"{name:22s} {1000 * found[name]:9.2f} ms")
    verdict = "at most" if found["share"] <= ASKED else "MORE THAN"
    print(
        f"the trainer's share of an update: {100 * found['share']:.2f} %, {verdict} the {100 * ASKED:.0f} % asked for"
    )
    print(f"without making batches, which num_workers moves aside: {100 * found['share without batches']:.2f} %")
    print(f"{found['updates']} updates, {options.threads} threads, {options.dtype}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
