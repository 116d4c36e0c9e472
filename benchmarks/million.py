"""From 10^4 to 10^6 structures in constant memory: 3BPA frames with noise are converted, opened, measured, read.

    python benchmarks/million.py FRAMES.xyz                              # 10^4 and 10^5
    python benchmarks/million.py FRAMES.xyz --structures 10000 1000000
    python benchmarks/million.py FRAMES.xyz --from-memory                # converts structures, not a text file

Each number of structures has a process of its own, so that its peak of memory is its own. CPU time is compared, so
that other work on the machine matters less. Asked for: under 2 GB, time per structure flat within 20 %.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from forgefield.core.elements import symbol
from forgefield.core.structure import Structure
from forgefield.data.checks import check_labels
from forgefield.data.conversion import convert
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.loader import make_loader
from forgefield.data.parts import open_training
from forgefield.data.reader import Frames
from forgefield.data.settings import DataSettings
from forgefield.data.statistics import measure
from forgefield.data.writers.store import StoreFile, StoreFileSettings
from forgefield.graph.needs import Needs

ASKED_GB, ASKED_FLAT, CUTOFF, NOISE = 2.0, 0.20, 5.0, 0.01


class Noisy(Frames):
    """The same frames again and again, displaced otherwise each time."""

    def __init__(self, frames: Dataset, count: int) -> None:
        super().__init__("noisy frames", {"energy": "energy", "forces": "forces"})
        self._frames, self._count = list(frames), count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Structure:
        one = self._frames[index % len(self._frames)]
        noise = np.random.default_rng(index).normal(size=(2, len(one), 3)) * NOISE
        labels = {"energy": one.labels["energy"] + noise[0, 0, 0], "forces": one.labels["forces"] + noise[1]}
        return Structure(one.numbers, one.positions + noise[0], labels=labels, origin=f"noisy: {index}")


def write_text(frames: Frames, path: Path) -> None:
    """Write extended XYZ; not a part of what is measured."""
    with path.open("w") as stream:
        for k in range(len(frames)):
            s = frames[k]
            rows = "".join(f"{symbol(z)} %.8f %.8f %.8f %.8f %.8f %.8f\n" for z in s.numbers.tolist())
            values = np.hstack([s.positions, s.labels["forces"]]).ravel().tolist()
            stream.write(f"{len(s)}\nProperties=species:S:1:pos:R:3:forces:R:3 energy={float(s.labels['energy'])!r}\n")
            stream.write(rows % tuple(values))


class Clock:
    """CPU microseconds per structure, and the peak of memory, of named stages."""

    def __init__(self, count: int) -> None:
        self.count, self.found = count, dict[str, dict[str, float]]()
        self._last = time.process_time()

    def stage(self, name: str | None) -> None:
        """End a stage; None: it is not one of the measured."""
        now = time.process_time()
        if name is not None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            self.found[name] = {"microseconds": (now - self._last) / self.count * 1e6, "peak_gb": peak}
        self._last = now


def work(source: Path, count: int, from_memory: bool, neighbours: bool) -> dict[str, dict[str, float]]:
    """Carry out all stages and return what they took."""
    with tempfile.TemporaryDirectory() as folder:
        text, store = Path(folder) / "all.xyz", Path(folder) / "all.store"
        noisy = Noisy(open_dataset(source), count)
        if not from_memory:
            write_text(noisy, text)
        clock = Clock(count)
        dataset = Dataset([noisy]) if from_memory else open_dataset(text)
        if not from_memory:
            clock.stage("find the frames of the text")
        convert(dataset, StoreFile(store, StoreFileSettings()), "")
        clock.stage("convert to the store")
        dataset = None
        clock.stage(None)
        data = open_training(DataSettings(train=store, val_fraction=0.1))
        clock.stage("open and split")
        check_labels(data.train, {"energy", "forces"})
        data.train.elements()
        clock.stage("check labels, elements")
        _ = data.measured.fingerprint
        clock.stage("fingerprint of the training part")
        if neighbours:
            measure(data.measured, CUTOFF, "least_squares")
            clock.stage("measure: neighbours, energies")
        for structure in open_dataset(store):
            assert structure.numbers.size
        clock.stage("read all in order")
        everything = open_dataset(store)
        for place in np.random.default_rng(0).permutation(count).tolist():
            assert everything[place].numbers.size
        clock.stage("read all in random order")
        loader = make_loader(data.train, Needs(cutoff=CUTOFF), batch_size=32, shuffle=True)
        for places in loader.places(0):
            for place in places.tolist():
                assert data.train[place].numbers.size
        clock.stage("read in the loader's order")
        if neighbours:
            for batch in loader.batches(1):
                assert len(batch.index)
            clock.stage("an epoch of batches")
        return clock.found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frames", type=Path, help="extended XYZ with energy and forces: 3BPA's train_300K.xyz")
    parser.add_argument("--structures", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument(
        "--from-memory", action="store_true", help="convert structures that are made as they are asked for"
    )
    parser.add_argument(
        "--no-measure", action="store_true", help="leave out statistics and batches, which take most of the time"
    )
    parser.add_argument("--one", action="store_true", help="this process works itself and prints JSON")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(work(options.frames, options.structures[0], options.from_memory, not options.no_measure)))
        return
    results: dict[int, dict[str, dict[str, float]]] = {}
    for count in options.structures:
        words = [sys.executable, __file__, str(options.frames), "--structures", str(count), "--one"]
        words += ["--from-memory"] if options.from_memory else []
        words += ["--no-measure"] if options.no_measure else []
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        results[count] = json.loads(done.stdout)
    first = results[options.structures[0]]
    print(f"{'CPU µs per structure':34s}" + "".join(f"{count:>12,}" for count in results) + "       growth")
    for name in first:
        row = [found[name]["microseconds"] for found in results.values()]
        print(f"{name:34s}" + "".join(f"{value:12.1f}" for value in row) + f"{row[-1] / row[0] - 1:12.0%}")
    totals = [sum(stage["microseconds"] for stage in found.values()) for found in results.values()]
    growth = totals[-1] / totals[0] - 1
    print(f"{'all':34s}" + "".join(f"{value:12.1f}" for value in totals) + f"{growth:12.0%}")
    peaks = [max(stage["peak_gb"] for stage in found.values()) for found in results.values()]
    print(f"{'peak of memory, GiB':34s}" + "".join(f"{value:12.2f}" for value in peaks))
    for name, value, asked in (("memory", peaks[-1], ASKED_GB), ("growth", growth, ASKED_FLAT)):
        print(f"{name}: {value:.2f}, {'within' if value <= asked else 'BEYOND'} the {asked} asked for")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
