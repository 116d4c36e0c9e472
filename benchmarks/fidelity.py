"""Does a cheap level of theory pay? Few good labels alone, many good labels alone, few good with many cheap ones.

    python benchmarks/fidelity.py DATA --out runs/fidelity            # everything; goes on where it was stopped
    python benchmarks/fidelity.py DATA --out runs/fidelity --only 3bpa --backends mace --seeds 1
    python benchmarks/fidelity.py DATA --out runs/fidelity --table    # what is there so far

DATA holds 3bpa, 3bpa_multifidelity_gfn2 and rmd17_ethanol. Every run makes the same number of updates of the same
size with the same schedule, so that all cost the same; a correction to the cheap model makes half as many more.
benchmarks/README.md says what is compared.
"""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from forgefield.app.compare.pictures import Picture, as_file
from forgefield.app.reports.plot import Chart, axis_over

HERE = Path(__file__).resolve().parent
BATCH, DRAWS = 5, 450
MODELS: dict[str, dict[str, Any]] = {
    "mace": {"hidden_irreps": "32x0e + 32x1o", "r_max": 4.5, "max_ell": 3, "correlation": 3, "radial_mlp": [32, 32]},
    "aimnet2": {"hidden": [[256, 192], [256, 192], [256, 192, 192]], "aim_size": 128},
}
RATES = {"mace": 0.01, "aimnet2": 0.001}
UPDATES = 6300


@dataclass(frozen=True)
class Way:
    """What a run learns from: how many good labels, whether cheap ones, and how the levels are told apart.

    With `base` the good level is a correction to the cheap one by a network of its own, learned at the same time; with
    `finished` it is learned to the model of the run "cheap alone", which stays as it is.
    """

    name: str
    good: int = 0
    cheap: bool = False
    embedding: str = "added"
    readouts: bool = True
    base: bool = False
    finished: bool = False


ALONE = 2  # place of "cheap alone" among the ways
FEW = {"3bpa": 50, "ethanol": 50}
ALL = {"3bpa": 500, "ethanol": 500}


def ways(data: str) -> list[Way]:
    """The runs of a data set; those after the fourth compare how levels are told apart."""
    few, many = FEW[data], ALL[data]
    plain = [Way(f"{few} good", few), Way(f"{many} good", many), Way("cheap alone", 0, True)]
    both = [
        Way(
            f"{few} good + cheap{'' if (e, r) == ('added', True) else f', {e}' + ('' if r else ', one readout')}",
            few,
            True,
            e,
            r,
        )
        for e, r in (("added", True), ("none", True), ("elements", True), ("added", False), ("elements", False))
    ]
    corrected = Way(f"{few} good + cheap, corrected", few, True, base=True)
    return [*plain, *both, corrected, Way(f"{few} good, correcting cheap alone", few, finished=True)]


def frames(path: Path) -> list[Atoms]:
    """Frames of an extended XYZ file, also compressed."""
    with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as stream:
        text = stream.read()
    return read(StringIO(text), ":", format="extxyz")  # type: ignore[return-value]


def labelled(atoms: Atoms, level: str) -> Atoms:
    """The same atoms with the labels of one level under the usual names."""
    plain = Atoms(atoms.numbers, atoms.positions)
    if level:
        energy, forces = atoms.info[f"{level}_energy"], atoms.arrays[f"{level}_forces"]
    else:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    plain.info["REF_energy"] = float(energy)
    plain.arrays["REF_forces"] = np.array(forces)
    return plain


def spread(items: list[Atoms], count: int) -> list[Atoms]:
    """So many of them, evenly from the first to the last."""
    return [items[k] for k in np.linspace(0, len(items) - 1, count).round().astype(int)]


def parts_of(data: str, folder: Path) -> dict[str, list[Atoms]]:
    """Good and cheap labels to learn from, to validate on and to test on."""
    if data == "3bpa":
        levels = folder / "3bpa_multifidelity_gfn2"
        good = [labelled(a, "wb97x") for a in frames(levels / "paired_train_300K.xyz.xz")]
        walks = frames(levels / "xtb_md_3000.xyz.xz")
        cheap = {held: [labelled(a, "xtb") for a in walks if (a.info["walker"] >= 9) == held] for held in (False, True)}
        paired = [labelled(a, "xtb") for a in frames(levels / "paired_train_mixedT.xyz.xz")]
        return {"good": good, "cheap": cheap[False], "cheap_val": spread(cheap[True], 50), "cheap_test": paired,
                "good_test": [labelled(a, "") for a in frames(folder / "3bpa" / "test_300K.xyz")]}  # fmt: skip
    train, test = (frames(folder / "rmd17_ethanol" / f"{part}_01.xyz.xz") for part in ("train", "test"))
    held = train[1::20]
    return {"good": [labelled(a, "") for a in train[0::2]],
            "cheap": [labelled(a, "md17") for k, a in enumerate(train) if k % 20 != 1],
            "cheap_val": [labelled(a, "md17") for a in held],
            "cheap_test": [labelled(a, "md17") for a in test],
            "good_test": [labelled(a, "") for a in test]}  # fmt: skip


def prepare(data: str, folder: Path, out: Path) -> Path:
    """Write the files of a data set, once."""
    to = out / "data" / data
    if not (to / "done").exists():
        to.mkdir(parents=True, exist_ok=True)
        parts = parts_of(data, folder)
        for count in (FEW[data], ALL[data]):
            chosen = spread(parts["good"], count)
            held = set(range(5, count, 10))
            write(to / f"good_{count}.xyz", [a for k, a in enumerate(chosen) if k not in held], format="extxyz")
            write(to / f"good_{count}_val.xyz", [chosen[k] for k in sorted(held)], format="extxyz")
        for name in ("cheap", "cheap_val", "cheap_test", "good_test"):
            write(to / f"{name}.xyz", parts[name], format="extxyz")
        (to / "done").touch()
    return to


def settings(
    data: str, way: Way, backend: str, seed: int, files: Path, run_dir: Path, asked: argparse.Namespace
) -> dict[str, Any]:
    """The run.yaml of one run."""

    def source(name: str, level: str) -> dict[str, str]:
        return {"path": str(files / f"{name}.xyz"), "fidelity": level}

    levels = (["good"] if way.good else []) + (["cheap"] if way.cheap else [])
    train = [source(f"good_{way.good}" if level == "good" else "cheap", level) for level in levels]
    val = [source(f"good_{way.good}_val" if level == "good" else "cheap_val", level) for level in levels]
    tested_on = ["good", "cheap"] if way.finished else levels
    block: dict[str, Any] = {
        "train": train, "val": val, "test": [source(f"{level}_test", level) for level in tested_on],
        "e0": "least_squares", "draws_per_epoch": DRAWS, "charge": 0,
    }  # fmt: skip
    model = dict(MODELS[backend])
    if len(levels) == 2:
        block["sampling"] = {"good": 1.0, "cheap": asked.share}
        model["fidelity"] = {"readouts": way.readouts, "embedding": way.embedding}
    if way.base:
        model["fidelity"] = {"base": "cheap"}
    begin: dict[str, Any] = {"task": "train", "backend": backend, "model": model}
    if way.finished:
        start = run_dir.with_name(f"way{ALONE}-seed{seed}")
        begin = {"task": "finetune", "model_in": str(start), "finetune": {"head": "good", "correction": True}}
    epochs = asked.updates * BATCH // DRAWS // (2 if way.finished else 1)
    return {
        **begin, "name": way.name, "run_dir": str(run_dir), "device": "cpu", "dtype": "float32", "data": block,
        "train": {"epochs": epochs, "batch_size": BATCH, "seed": seed,
                  "lr": RATES[backend],
                  "scheduler": "cosine", "scheduler_step_unit": "update", "validate_every": "5 epochs",
                  "energy_weight": 1.0, "force_weight": 100.0},
    }  # fmt: skip


def run(given: dict[str, Any], run_dir: Path, log: Path) -> dict[str, Any]:
    """Train and test in a process of its own; RMSE of each level, meV and meV/Å."""
    if done := tested(run_dir):
        return done
    file = run_dir.with_suffix(".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(given, indent=1) + "\n")  # JSON is YAML
    words = ["resume", str(run_dir)] if (run_dir / "checkpoints").exists() else ["run", str(file)]
    with log.open("ab") as stream:
        subprocess.run([sys.executable, "-m", "forgefield", *words], check=True, stdout=stream, stderr=stream)
    return tested(run_dir) or {}


def tested(run_dir: Path) -> dict[str, Any] | None:
    """What the test of a run found; None before. A test of one file has the file's name."""
    files = [run_dir / "evaluation" / name / "metrics.json" for name in ("test", "good_test", "cheap_test")]
    return next((json.loads(file.read_text()) for file in files if file.exists()), None)


@dataclass(frozen=True)
class Figure:
    """Mean and standard deviation over seeds, in meV or meV/Å."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return float(np.mean(self.values))

    def __str__(self) -> str:
        spread = f" ± {np.std(self.values, ddof=1):.1f}" if len(self.values) > 1 else ""
        return f"{self.mean:.1f}{spread}"


def figure(results: dict[str, Any], key: str, level: str, metric: str) -> Figure | None:
    """A metric of one level over the seeds that are there; None without any."""
    of_seeds = [found.get("by_head", {}).get(level, found["all"] if level in key_levels(key) else None)
                for found in results.get(key, {}).values()]  # fmt: skip
    values = tuple(1000 * found[metric] for found in of_seeds if found)
    return Figure(values) if values else None


def key_levels(key: str) -> tuple[str, ...]:
    """Levels that a run of one level alone was tested on."""
    name = key.split("/")[-1]
    return ("cheap",) if name == "cheap alone" else () if "cheap" in name else ("good",)


RATIOS = ("good + cheap", "good + cheap, corrected", "good, correcting cheap alone")


def table(results: dict[str, Any], data: str, backend: str) -> list[str]:
    """Lines of a table in Markdown, and the two figures that were asked for."""
    lines = ["| learned from | seeds | forces, meV/Å | energy, meV/atom | cheap level, forces | energy |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for way in ways(data):
        key = f"{data}/{backend}/{way.name}"
        if key in results:
            cells = [figure(results, key, level, metric) for level in ("good", "cheap")
                     for metric in ("forces_rmse", "energy_rmse_per_atom")]  # fmt: skip
            lines.append(f"| {way.name} | {len(results[key])} | " + " | ".join(str(c or "") for c in cells) + " |")
    for words in RATIOS:
        for level, other in (("good", f"{ALL[data]} good"), ("cheap", "cheap alone")):
            keys = (f"{data}/{backend}/{name}" for name in (f"{FEW[data]} {words}", other))
            a, b = (figure(results, key, level, "forces_rmse") for key in keys)
            if a and b:
                lines.append(f"\nForces of the {level} level, {FEW[data]} {words}, over {other}: {a.mean / b.mean:.2f}")
    return lines


def picture(results: dict[str, Any], data: str, backends: list[str]) -> str:
    """A chart: force error of the good level over the number of its labels."""
    few, many = FEW[data], ALL[data]
    kinds = ("alone", "+ cheap", "corrected")
    marks = ((few, f"{few} good", 0), (many, f"{many} good", 0), (few, f"{few} good + cheap", 1),
             (few, f"{few} good, correcting cheap alone", 2))  # fmt: skip
    points = [
        (n, kinds[j], b, "abcdef"[3 * k + j], figure(results, f"{data}/{b}/{key}", "good", "forces_rmse"))
        for k, b in enumerate(backends)
        for n, key, j in marks
    ]
    there = [(n, name, b, style, f) for n, name, b, style, f in points if f]
    heights = np.array([f.mean for *_, f in there])
    chart = Chart(
        axis_over("good labels", np.array([few, many]), log=True, margin=0.15),
        axis_over("force RMSE of the good level, meV/Å", heights, log=True, margin=0.2),
        f"{data}: what cheap labels save of good ones",
    )
    for name, b, style in dict.fromkeys((name, b, style) for _, name, b, style, _ in there):
        own = [(n, f) for n, m, c, _, f in there if (m, c) == (name, b)]
        chart.line(np.array([n for n, _ in own]), np.array([f.mean for _, f in own]), style, f"{b} {name}")
        for n, f in own:
            chart.crossed(n, f.mean, None, float(np.std(f.values)), style, f"{b} {name}: {f}")
    return as_file(Picture(data, chart.title, chart, ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DATA", help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs; a second call goes on there")
    parser.add_argument("--only", choices=sorted(FEW), action="append", help="this data set; repeatable")
    parser.add_argument("--backends", default="mace,aimnet2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--levels", type=int, default=1, help="seeds for the ways to tell levels apart (default: 1)")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--share", type=float, default=3.0, help="draws of the cheap level for each of the good one")
    parser.add_argument("--table", action="store_true", help="run nothing, print what is there")
    asked = parser.parse_args()
    sets, backends = asked.only or sorted(FEW), asked.backends.split(",")
    results: dict[str, Any] = {}
    for seed in range(asked.seeds):
        for data in sets:
            files = prepare(data, asked.folder, asked.out)
            for backend in backends:
                for k, way in enumerate(ways(data)):
                    run_dir = asked.out / f"{data}-{backend}-{asked.updates}-{asked.share:g}" / f"way{k}-seed{seed}"
                    seeds = asked.seeds if k < 4 or way.finished else asked.levels
                    wanted = seed < seeds and not asked.table
                    if wanted or tested(run_dir):
                        given = settings(data, way, backend, seed, files, run_dir, asked)
                        found = run(given, run_dir, asked.out / "log.txt")
                        results.setdefault(f"{data}/{backend}/{way.name}", {})[str(seed)] = found
    for data in sets:
        for backend in backends:
            print(f"\n### {data}, {backend}, {asked.updates} updates\n", *table(results, data, backend), sep="\n")
        (asked.out / f"fidelity-{data}.svg").write_text(picture(results, data, backends))
    (asked.out / "fidelity.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
