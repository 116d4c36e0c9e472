"""Read an aimnet checkpoint inside the interpreter that has aimnet.

Run as a script by that interpreter and never imported by ours; it imports nothing of forgefield.

    python aimnet.py export MODEL FOLDER

`export` leaves FOLDER/model.json (settings) and FOLDER/arrays.npz (plain numpy arrays, under the package's names). A
model that this worker does not understand leaves FOLDER/error.json instead and the process ends with exit code 3.

MODEL is a .pt file of the package (format 2), a TorchScript file (.jpt), or a training checkpoint (weights alone, or
under the key model). TorchScript is code: open files of people you trust.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import aimnet  # noqa: E402, F401  (this file has the package's name: its folder is no place to look)
import numpy as np  # noqa: E402
import torch  # noqa: E402

FORMAT = "aimnet-export-1"
UNSUPPORTED = 3
ROWS = 64  # of the package's tables by element; more mean several levels of theory in one table
KNOWN = re.compile(
    r"afv\.weight|aev\.\w+|conv_[aq]\.agh|mlps\.\d+\.\d+\.(weight|bias)|outputs\.energy_mlp\.mlp\.\d+\.(weight|bias)"
    r"|outputs\.atomic_shift\.shifts\.weight|outputs\.(lrcoulomb|srcoulomb)\.rc|outputs\.(dipole|quadrupole)\.mass"
    r"|outputs\.(dftd3|d3bj)\.\w+"
)


class Unsupported(Exception):
    """The checkpoint is readable but is not a model that can be described by the arrays."""


class Found(NamedTuple):
    """What a file holds."""

    state: dict[str, torch.Tensor]
    facts: dict[str, Any]  # of format 2: what belongs to the model beside its weights
    module: torch.nn.Module | None  # TorchScript


def read(path: str) -> Found:
    """Open a checkpoint of any of the three kinds; only plain weights are ever unpickled."""
    if path.lower().endswith(".jpt"):
        module = torch.jit.load(path, map_location="cpu")
        return Found(dict(module.state_dict()), {}, module)
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise Unsupported(f"is neither weights nor TorchScript ({first})") from error
    if isinstance(data, dict) and "state_dict" in data:
        return Found(dict(data["state_dict"]), {k: v for k, v in data.items() if k != "state_dict"}, None)
    if isinstance(data, dict) and "model" in data:
        data = data["model"]
    if not isinstance(data, dict) or not all(isinstance(value, torch.Tensor) for value in data.values()):
        raise Unsupported("holds no weights")
    state = {re.sub(r"^module\.", "", name): value for name, value in data.items()}
    return Found(state, {}, None)


# --------------------------------------------------------------------------------------------- describing


def describe(found: Found) -> dict[str, Any]:
    """The settings that the shapes and buffers of the weights tell."""
    state = found.state
    missing = [n for n in ("afv.weight", "aev.rc_s", "conv_a.agh", "conv_q.agh", "mlps.0.0.weight") if n not in state]
    if missing:
        raise Unsupported(f"is no AIMNet2 model: {', '.join(missing)} is missing")
    unknown = sorted(name for name in state if not KNOWN.fullmatch(name))
    if unknown:
        raise Unsupported(f"has parts that ForgeField's AIMNet2 does not have: {', '.join(unknown[:4])}")
    if state["afv.weight"].shape[0] > 2 * ROWS + 1:
        raise Unsupported("has a table for several levels of theory")
    n_features, n_vector, n_combinations = state["conv_a.agh"].shape
    n_scalar = len(state["aev.shifts_s"])
    if n_vector != n_scalar:
        raise Unsupported("has other radial functions for vectors than for scalars, which the package never uses")
    passes = [layers(state, f"mlps.{k}.") for k in range(1 + max(int(n.split(".")[1]) for n in state if "mlps." in n))]
    elements = [int(z) for z in found.facts.get("implemented_species") or filled_rows(state["afv.weight"])]
    return {
        "format": FORMAT,
        "elements": elements,
        "nfeature": n_features,
        "d2features": state["afv.weight"].shape[1] != n_features,
        "ncomb_v": n_combinations,
        "num_charge_channels": state["conv_q.agh"].shape[0],
        "hidden": [[len(state[name + "bias"]) for name in names[:-1]] for names in passes],
        "aim_size": len(state[passes[-1][-1] + "bias"]),
        "energy_hidden": [len(state[n + "bias"]) for n in layers(state, "outputs.energy_mlp.mlp.")[:-1]],
        "aev": {
            "rc_s": float(state["aev.rc_s"].double()),
            "eta_s": float(state["aev.eta_s"].double()),
            "shifts_s": state["aev.shifts_s"].double().tolist(),
        },
        "dtype": str(state["conv_a.agh"].dtype).removeprefix("torch."),
        "physics": physics(found),
        "versions": {"aimnet": version("aimnet"), "torch": torch.__version__, "numpy": np.__version__},
    }


def layers(state: dict[str, torch.Tensor], prefix: str) -> list[str]:
    """Beginnings of the names of a network's linear layers, in order; activations lie between them."""
    places = sorted({int(name[len(prefix) :].split(".")[0]) for name in state if name.startswith(prefix)})
    if places != list(range(0, 2 * len(places), 2)) or not places:
        raise Unsupported(f"has a network {prefix[:-1]} whose layers do not alternate with activations")
    return [f"{prefix}{k}." for k in places]


def filled_rows(table: torch.Tensor) -> list[int]:
    """Atomic numbers whose features are there: neither all 0 nor NaN."""
    there = torch.isfinite(table).all(1) & (table != 0).any(1)
    return [int(z) for z in there.nonzero().flatten() if z > 0]


def physics(found: Found) -> dict[str, Any]:
    """Coulomb and dispersion that belong to the energy: {} or coulomb {rc, envelope, method}, d3 {s6, s8, a1, a2}."""
    facts, out = found.facts, {}
    for name in ("lrcoulomb", "srcoulomb"):
        if f"outputs.{name}.rc" in found.state:
            envelope = facts.get("coulomb_sr_envelope") or attribute(found.module, name, "envelope") or "exp"
            method = attribute(found.module, name, "method") or "simple"
            rc = float(found.state[f"outputs.{name}.rc"].double())
            out["coulomb"] = {"rc": rc, "envelope": envelope, "method": method}
    if facts.get("needs_coulomb") and "coulomb" not in out:
        rc, envelope = facts.get("coulomb_sr_rc"), facts.get("coulomb_sr_envelope") or "exp"
        out["coulomb"] = {"rc": float(rc or 0.0), "envelope": envelope, "method": "simple"}
    if facts.get("d3_params"):
        out["d3"] = {key: float(value) for key, value in facts["d3_params"].items()}
    for name in ("dftd3", "d3bj"):
        if any(key.startswith(f"outputs.{name}.") for key in found.state):
            values = {key: attribute(found.module, name, key) for key in ("s6", "s8", "a1", "a2")}
            if None in values.values():
                raise Unsupported("adds dispersion whose parameters cannot be read from the file")
            out["d3"] = values
    return out


def attribute(module: torch.nn.Module | None, output: str, name: str) -> Any:
    """A plain attribute of an output of a TorchScript module, or None."""
    part = getattr(getattr(module, "outputs", None), output, None)
    value = getattr(part, name, None)
    return value if isinstance(value, str | float | int) else None


def check_activations(found: Found) -> None:
    """Refuse TorchScript whose networks have other activations than GELU; plain weights cannot tell."""
    if found.module is None:
        return
    for name, part in found.module.named_modules():
        kind = getattr(part, "original_name", type(part).__name__)
        if re.fullmatch(r"(mlps\.\d+|outputs\.energy_mlp\.mlp)\.\d+", name) and kind not in ("Linear", "GELU"):
            raise Unsupported(f"has the activation {kind}")


def export(model_path: str, folder: Path) -> None:
    """Write model.json and arrays.npz of a checkpoint."""
    found = read(model_path)
    check_activations(found)
    settings = describe(found)
    arrays = {name: value.detach().cpu().numpy() for name, value in found.state.items() if ".mass" not in name}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "arrays.npz", **{n: v for n, v in arrays.items() if not re.search("dftd3|d3bj", n)})
    (folder / "model.json").write_text(json.dumps(settings, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command; the exit code is UNSUPPORTED for a refused model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export")
    exporting.add_argument("model")
    exporting.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    try:
        export(options.model, options.folder)
    except Unsupported as error:
        options.folder.mkdir(parents=True, exist_ok=True)
        (options.folder / "error.json").write_text(json.dumps({"error": str(error)}) + "\n")
        print(error, file=sys.stderr)
        return UNSUPPORTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
