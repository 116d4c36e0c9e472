"""Train ForgeField's MACE and mace-torch on 3BPA for the same CPU minutes, at the same time, and test both.

    python benchmarks/accuracy_3bpa.py --data FOLDER --minutes 60 --backend-python .oracle/mace/bin/python

FOLDER holds train_300K.xyz, iso_atoms.xyz, test_300K.xyz and test_600K.xyz (or .xz). Each side has its own cores and
the settings of configs/mace_3bpa.yaml, and is stopped when it has used its CPU minutes, so that other work on the
machine takes nothing from either; benchmarks/README.md says what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from forgefield.app.launch import library_to_preload
from forgefield.core.structure import Structure
from forgefield.data.dataset import open_dataset

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parent / "configs" / "mace_3bpa.yaml"
WORKER = HERE.parent / "src" / "forgefield" / "engines" / "workers" / "mace_torch.py"
TESTS = ("test_300K", "test_600K")
SAVED = 75  # exit code of a training that was told to stop


def to_atoms(s: Structure) -> Atoms:
    """Atoms with labels under the keys that mace-torch reads."""
    atoms = Atoms(numbers=s.numbers, positions=s.positions)
    atoms.info |= {"REF_energy": float(s.labels["energy"]), "config_type": s.config_type}
    atoms.arrays["REF_forces"] = s.labels.get("forces", np.zeros((len(s), 3)))
    if len(s) == 1:
        atoms.info["config_type"] = "IsolatedAtom"
    return atoms


def prepare(data: Path, out: Path) -> dict[str, Path]:
    """Write the training set (with the free atoms) and the tests as plain extxyz for both sides."""
    files = {}
    for name, sources in {"train": ["iso_atoms", "train_300K"], **{t: [t] for t in TESTS}}.items():
        paths = [next(p for p in (data / f"{s}.xyz", data / f"{s}.xyz.xz") if p.exists()) for s in sources]
        files[name] = out / f"{name}.xyz"
        write(files[name], [to_atoms(s) for s in open_dataset(paths)], format="extxyz")
    return files


def environment(threads: int) -> dict[str, str]:
    """Variables of both sides: threads, and the allocator that our command line would take."""
    given = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    library = library_to_preload()
    preload = {"LD_PRELOAD": str(library)} if library else {}
    return given | preload | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def start(command: list[str], cores: list[int], log: Path) -> subprocess.Popen[bytes]:
    """Start a side on its cores, its output in a file."""
    pinned = ["taskset", "-c", ",".join(map(str, cores)), *command]
    return subprocess.Popen(pinned, env=environment(len(cores)), stdout=log.open("wb"), stderr=subprocess.STDOUT)


def cpu_minutes(process: subprocess.Popen[bytes]) -> float:
    """CPU minutes that a running side has used (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") / 60


def stop_after(minutes: float, sides: dict[str, subprocess.Popen[bytes]]) -> dict[str, float]:
    """Send each side SIGTERM when it has used its CPU minutes; returns what each has used when it was told."""
    used: dict[str, float] = {}
    while len(used) < len(sides):
        time.sleep(1.0)
        for name, process in sides.items():
            if name in used:
                continue
            if process.poll() is not None:
                raise SystemExit(f"{name} ended before its time with code {process.returncode}; see its log")
            if cpu_minutes(process) >= minutes:
                used[name] = cpu_minutes(process)
                process.send_signal(signal.SIGTERM)
    for process in sides.values():
        process.wait()
    return used


def our_command(files: dict[str, Path], out: Path) -> list[str]:
    """Our training until it is told to stop, from the example configuration."""
    changes = {"run_dir": out / "ours", "data.train": files["train"], "data.test": files["test_300K"]}
    changes |= {"train.max_minutes": "null", "train.epochs": 100000}
    pairs = [f"--set={key}={value}" for key, value in changes.items()]
    return [sys.executable, "-m", "forgefield", "run", str(CONFIG), *pairs]


def their_command(files: dict[str, Path], out: Path, python: Path, epochs: int) -> list[str]:
    """mace-torch with the same model, optimizer, schedule and loss."""
    options = """--name=mace --model=ScaleShiftMACE --hidden_irreps=64x0e+64x1o --r_max=5 --max_ell=3 --correlation=3
        --num_interactions=2 --batch_size=5 --valid_batch_size=32 --valid_fraction=0.1 --lr=0.01 --amsgrad --ema
        --ema_decay=0.99 --scheduler=ReduceLROnPlateau --lr_factor=0.8 --scheduler_patience=5 --energy_weight=1
        --forces_weight=100 --clip_grad=10 --weight_decay=5e-7 --default_dtype=float32 --device=cpu --seed=0
        --eval_interval=1 --patience=100000 --plot=False --restart_latest --E0s=IsolatedAtom"""
    places = [f"--train_file={files['train']}", f"--work_dir={out / 'mace-torch'}", f"--max_num_epochs={epochs}"]
    return [str(python.parent / "mace_run_train"), *options.split(), *places]


def errors(energy: np.ndarray, forces: np.ndarray, test: Path) -> dict[str, float]:
    """RMSE of energy (meV, total) and forces (meV/Å)."""
    structures = list(open_dataset(test))
    e = energy - np.array([float(s.labels["energy"]) for s in structures])
    f = forces - np.concatenate([s.labels["forces"] for s in structures])
    return {"energy": 1e3 * float(np.sqrt((e**2).mean())), "forces": 1e3 * float(np.sqrt((f**2).mean()))}


def test_ours(files: dict[str, Path], out: Path) -> dict[str, dict[str, float]]:
    """Errors of the checkpoint of the lowest validation loss."""
    found = {}
    for name in TESTS:
        target = out / "ours" / name
        command = ["evaluate", "--model", out / "ours" / "checkpoints" / "best", "--data", files[name], "--out", target]
        subprocess.run([sys.executable, "-m", "forgefield", *map(str, command)], check=True, capture_output=True)
        metrics = json.loads((target / "metrics.json").read_text())["all"]
        found[name] = {"energy": 1e3 * metrics["energy_rmse"], "forces": 1e3 * metrics["forces_rmse"]}
    return found


def test_theirs(files: dict[str, Path], out: Path, python: Path) -> dict[str, dict[str, float]]:
    """Errors of mace-torch's model with the lowest validation loss."""
    models = sorted((out / "mace-torch").rglob("*.model"), key=lambda p: ("compiled" in p.name, len(str(p))))
    found = {}
    for name in TESTS:
        target = out / "mace-torch" / f"{name}.npz"
        subprocess.run([python, WORKER, "evaluate", models[0], files[name], target], check=True, capture_output=True)
        with np.load(target, allow_pickle=False) as arrays:
            found[name] = errors(arrays["energy"], arrays["forces"], files[name])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the 3BPA files")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--backend-python", type=Path, default=HERE.parent / ".oracle" / "mace" / "bin" / "python")
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs" / "accuracy_3bpa")
    parser.add_argument("--cores", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="of each side")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True)
    files = prepare(options.data, out)
    cores = list(range(2 * options.cores))
    theirs = their_command(files, out, options.backend_python, 100000)
    sides = {"ours": start(our_command(files, out), cores[: options.cores], out / "ours.log")}
    sides["mace-torch"] = start(theirs, cores[options.cores :], out / "mace.log")
    used = stop_after(options.minutes, sides)
    if sides["ours"].returncode != SAVED:
        raise SystemExit((out / "ours.log").read_text()[-2000:])
    epochs = [int(n) for n in re.findall(r"Epoch (\d+):", (out / "mace.log").read_text())]
    done = their_command(files, out, options.backend_python, 1)  # nothing left to train: writes the best model
    subprocess.run(done, env=environment(len(cores)), check=True, capture_output=True)
    report: dict[str, Any] = {
        "minutes": options.minutes,
        "cores_per_side": options.cores,
        "cpu_minutes": used,
        "epochs": {
            "ours": len((out / "ours" / "history.jsonl").read_text().splitlines()),
            "mace-torch": max(epochs, default=0),
        },
        "ours": test_ours(files, out),
        "mace-torch": test_theirs(files, out, options.backend_python),
    }
    (out / "accuracy.json").write_text(json.dumps(report, indent=1) + "\n")
    for name in TESTS:
        a, b = report["ours"][name], report["mace-torch"][name]
        print(f"{name} energy RMSE: ours {a['energy']:.1f} meV, mace-torch {b['energy']:.1f} meV")
        text = f"{name} force RMSE: ours {a['forces']:.1f} meV/Å, mace-torch {b['forces']:.1f} meV/Å"
        print(f"{text}, ratio: {b['forces'] / a['forces']:.2f}")
    print(f"epochs: {report['epochs']}; CPU minutes: {report['cpu_minutes']}")


if __name__ == "__main__":
    main()
