"""Write the golden forward cases of AIMNet2. Runs in the interpreter that has aimnet."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

torch.set_default_dtype(torch.float64)  # before the package: its inputs are cast to what it finds here

from aimnet.config import build_module  # noqa: E402
from aimnet.modules import Dipole, LRCoulomb  # noqa: E402
from ase.build import molecule  # noqa: E402

WORKER = Path(__file__).resolve().parents[2] / "src/forgefield/engines/workers/aimnet.py"
SMALL = {
    "nfeature": 4,
    "d2features": True,
    "ncomb_v": 5,
    "hidden": [[14, 12], [13, 11], [12, 10, 9]],
    "aim_size": 8,
    "num_charge_channels": 1,
    "aev": {"rc_s": 5.0, "nshifts_s": 6},
}


class Case(NamedTuple):
    """One model."""

    purpose: str
    choices: dict[str, Any]


CASES = {
    "closed": Case("closed shell, one charge channel, features by radial function", {}),
    "open": Case("open shell, two charge channels", {"num_charge_channels": 2}),
    "plain_features": Case(
        "features not by radial function, two passes, another basis",
        {"d2features": False, "hidden": [[14], [12]], "aev": {"rc_s": 4.2, "nshifts_s": 5, "rmin": 0.5}},
    ),
    "open_deep": Case(
        "open shell, four passes, eta and centres given, no combination count of its own",
        {
            "num_charge_channels": 2,
            "hidden": [[10], [11], [9], [12]],
            "ncomb_v": 7,
            "aev": {"rc_s": 3.6, "nshifts_s": 7, "eta_s": 9.5, "shifts_s": [0.6, 0.9, 1.3, 1.8, 2.2, 2.7, 3.1]},
        },
    ),
}
STRUCTURES = [  # molecule, total charge, multiplicity
    ("CH3CONH2", 0, 1),
    ("CH3CONH2", 1, 2),
    ("CH3CONH2", -1, 2),
    ("CH3CONH2", 0, 3),
    ("H2O", 0, 1),
    ("H2O", 1, 2),
    ("CH3NO2", 0, 1),
    ("CH3NO2", -1, 2),
    ("N", 0, 4),
    ("OH", -1, 1),
    ("trans-butane", 0, 1),
]
SPREAD = 1.7  # stretches the last molecule, so that pairs lie beyond the cutoff


def load_worker() -> ModuleType:
    """The project's own worker as a module: golden files have the form that users' imports have."""
    spec = importlib.util.spec_from_file_location("aimnet_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def structures() -> list[dict[str, Any]]:
    """Displaced molecules; coordinates rounded, so that a text file carries them exactly."""
    found = []
    for k, (name, charge, multiplicity) in enumerate(STRUCTURES):
        atoms = molecule(name)
        stretch = SPREAD if k == len(STRUCTURES) - 1 else 1.0
        noise = np.random.default_rng(k).normal(0.0, 0.06, atoms.positions.shape)
        positions = np.round(stretch * atoms.positions + noise, 8)
        found.append({"numbers": atoms.numbers, "positions": positions, "charge": charge, "mult": multiplicity})
    return found


def build(choices: dict[str, Any], seed: int) -> torch.nn.Module:
    """The package's model with random weights, biases and shifts included."""
    torch.manual_seed(seed)
    output = lambda name, **more: {"class": f"aimnet.modules.{name}", "kwargs": more}  # noqa: E731
    mlp = {"activation_fn": "torch.nn.GELU", "last_linear": True, "hidden": [7, 6]}
    settings = {**SMALL, **choices}
    keys = {"key_in": "energy", "key_out": "energy"}
    settings["outputs"] = {
        "energy_mlp": output("Output", n_in=settings["aim_size"], n_out=1, key_in="aim", key_out="energy", mlp=mlp),
        "atomic_shift": output("AtomicShift", **keys),
        "atomic_sum": output("AtomicSum", **keys),
        "dipole": output("Dipole", key_in="charges", key_out="dipole"),
        "quadrupole": output("Quadrupole", key_in="charges", key_out="quadrupole"),
    }
    model = build_module({"class": "aimnet.models.AIMNet2", "kwargs": settings}).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not name.startswith("aev."):
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                scale = 1.4 / np.sqrt(parameter.shape[1]) if "weight" in name and "mlp" in name else 0.3
                parameter.copy_(torch.round(drawn * scale * 16384) / 16384)
        model.afv.weight[0] = 0.0
        model.outputs.atomic_shift.shifts.weight[0] = 0.0  # of the empty atom that ends flat lists
    return model


def inputs(group: list[dict[str, Any]], flat: bool) -> dict[str, torch.Tensor]:
    """A batch: dense (all of one size), or one list of atoms with a table of neighbours and a last empty atom."""
    total = lambda key: torch.tensor([s[key] for s in group], dtype=torch.float64)  # noqa: E731
    data = {"charge": total("charge"), "mult": total("mult")}
    if not flat:
        data["coord"] = torch.tensor(np.stack([s["positions"] for s in group]))
        return data | {"numbers": torch.tensor(np.stack([s["numbers"] for s in group]))}
    sizes = [len(s["numbers"]) for s in group]
    n, widest, start = sum(sizes), max(sizes), 0
    table = np.full((n + 1, widest), n)
    for size in sizes:
        for i in range(size):
            others = [start + j for j in range(size) if j != i]
            table[start + i, : len(others)] = others
        start += size
    owner = np.append(np.repeat(np.arange(len(group)), sizes), len(group) - 1)
    coord = np.concatenate([s["positions"] for s in group] + [np.zeros((1, 3))])
    numbers = np.append(np.concatenate([s["numbers"] for s in group]), 0)
    data |= {"coord": torch.tensor(coord), "numbers": torch.tensor(numbers), "mol_idx": torch.tensor(owner)}
    return data | {"nbmat": torch.tensor(table), "nbmat_lr": torch.tensor(table)}


def evaluate(model: torch.nn.Module, data: dict[str, torch.Tensor], coulomb: str | None) -> dict[str, np.ndarray]:
    """Predictions of one batch, atoms and structures along the first axis."""
    data = dict(data)
    data["coord"] = data["coord"].clone().requires_grad_()
    out = model(data)
    if coulomb is not None:
        term = LRCoulomb(key_in="charges", key_out="energy", method=coulomb).double()
        out = term(out, training_derivatives=True)
        out = out[0] if isinstance(out, tuple) else out
    if "mol_idx" not in data:  # the package's centre of mass does not know flat lists
        out = Dipole("charges", "dipole_mass", center_coord=True).double()(out)
    (gradient,) = torch.autograd.grad(out["energy"].sum(), data["coord"])
    n = int((data["numbers"] > 0).sum())
    found = {"energy": out["energy"], "forces": -gradient.reshape(-1, 3)[:n]}
    for name in ("charges", "spin_charges"):
        if name in out:
            found[name] = out[name].reshape(-1)[:n]
    found |= {name: out[name] for name in ("dipole", "quadrupole", "dipole_mass") if name in out}
    return {name: value.detach().double().numpy() for name, value in found.items()}


def expected(model: torch.nn.Module, group: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """One by one, dense; with the Coulomb sums; and all at once as a flat list."""
    joined: dict[str, np.ndarray] = {}
    for label, method in (("", None), ("simple_", "simple"), ("dsf_", "dsf")):
        parts = [evaluate(model, inputs([s], flat=False), method) for s in group]
        for name in parts[0] if method is None else ("energy", "forces"):
            joined[label + name] = np.concatenate([part[name] for part in parts])
    for name, value in evaluate(model, inputs(group, flat=True), None).items():
        joined["flat_" + name] = value
    same = [s for s in group if len(s["numbers"]) == len(group[0]["numbers"])]
    for name, value in evaluate(model, inputs(same, flat=False), None).items():
        joined["dense_" + name] = value
    return joined


def write_case(name: str, case: Case, seed: int, target: Path) -> str:
    """One folder: exported model, structures, expected numbers and their origin."""
    worker, group = load_worker(), structures()
    model = build(case.choices, seed).eval()
    folder = target / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = worker.Found(dict(model.state_dict()), {"implemented_species": [1, 6, 7, 8]}, None)
    settings = worker.describe(found)
    (folder / "model.json").write_text(json.dumps(settings, indent=1) + "\n")
    arrays = {n: v.numpy() for n, v in found.state.items() if ".mass" not in n}
    np.savez_compressed(folder / "arrays.npz", **arrays)
    numbers = expected(model, group)
    np.savez_compressed(folder / "expected.npz", **numbers)
    packed = {
        "ptr": np.cumsum([0] + [len(s["numbers"]) for s in group]),
        "numbers": np.concatenate([s["numbers"] for s in group]),
        "positions": np.concatenate([s["positions"] for s in group]),
        "charge": np.array([s["charge"] for s in group], dtype=float),
        "multiplicity": np.array([s["mult"] for s in group]),
    }
    np.savez_compressed(folder / "structures.npz", **packed)
    own = max(np.abs(numbers["flat_" + key] - numbers[key]).max() for key in ("energy", "forces", "charges"))
    origin = {
        "purpose": case.purpose,
        "command": "python scripts/oracle aimnet",
        "date": date.today().isoformat(),
        "seed": seed,
        "versions": settings["versions"],
        "dense_against_flat": own,
    }
    (folder / "meta.json").write_text(json.dumps(origin, indent=1) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"{name:16s} {size / 1e3:7.1f} kB   the package's dense against its flat mode {own:.1e}"


def main() -> None:
    """Write all cases, or those that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", type=Path)
    parser.add_argument("--case", action="append")
    options = parser.parse_args()
    for seed, (name, case) in enumerate(CASES.items()):
        if options.case is None or name in options.case:
            print(write_case(name, case, seed, options.target), flush=True)


if __name__ == "__main__":
    main()
