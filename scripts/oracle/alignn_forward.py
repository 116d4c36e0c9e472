"""Write the golden forward cases of ALIGNN. Runs in the interpreter that has alignn."""

from __future__ import annotations

import argparse
import json
import shutil
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from alignn.graphs import build_undirected_edgedata, nearest_neighbor_edges
from alignn.models.alignn_atomwise_pure import ALIGNNAtomWisePure, ALIGNNAtomWisePureConfig
from alignn.torch_graph_builder import TorchGraph, _line_graph_edges, build_pure_torch_graph, torch_bond_cosines
from ase.build import bulk, molecule
from jarvis.core.atoms import Atoms
from jarvis.core.specie import get_node_attributes

SMALL = {
    "hidden_features": 7,
    "embedding_features": 6,
    "edge_input_features": 12,
    "triplet_input_features": 8,
    "alignn_layers": 2,
    "gcn_layers": 1,
    "use_penalty": False,
    "use_zbl": False,
    "stresswise_weight": 0.1,
}


class Case(NamedTuple):
    """One model and its graph."""

    purpose: str
    choices: dict[str, Any]
    atom_features: str = "cgcnn"
    cutoff: float = 4.0
    three_body: float | None = None
    nearest: int = 0
    canonize: bool = True


CASES = {
    "plain": Case("as published: no cutoff function, features cgcnn", {}),
    "angles": Case("angles up to their own cutoff, atomic numbers", {"gcn_layers": 2}, "atomic_number", 4.5, 3.0),
    "multiplied": Case(
        "cutoff function times the bonds' features, one layer",
        {"use_cutoff_function": True, "multiply_cutoff": True, "inner_cutoff": 3.6, "alignn_layers": 1, "exponent": 4},
        "basic",
    ),
    "replaced": Case(
        "cutoff function in the distance's place, no layer after the angles' last",
        {"use_cutoff_function": True, "inner_cutoff": 4.0, "gcn_layers": 0},
        "cfid",
    ),
    "atoms_only": Case("no angles, the mean as energy", {"alignn_layers": 0, "energy_mult_natoms": False}),
    "penalty": Case("atoms pushed apart", {"use_penalty": True, "penalty_factor": 0.3, "penalty_threshold": 1.3}),
    "outputs": Case(
        "numbers of atoms, three of structures, five more",
        {
            "atomwise_output_features": 2,
            "atomwise_weight": 1.0,
            "output_features": 3,
            "additional_output_features": 5,
            "calculate_gradient": False,
        },
    ),
    "log": Case("exponential after the readout", {"link": "log", "calculate_gradient": False}),
    "logit": Case("logistic curve after the readout", {"link": "logit", "calculate_gradient": False}),
    "classes": Case("two classes", {"classification": True, "calculate_gradient": False}),
    "nearest": Case("4 nearest neighbours, canonised", {}, nearest=4),
    "nearest_twice": Case("4 nearest neighbours, as they are found", {}, nearest=4, canonize=False),
}


def structures() -> list[dict[str, Any]]:
    """Displaced molecules in wide boxes and crystals, the last one smaller than the cutoff."""
    found = []
    salt, semiconductor = bulk("NaCl", "rocksalt", 5.6, cubic=True), bulk("GaAs", "zincblende", 5.6)
    made = [molecule("CH3CONH2"), molecule("H2O"), salt, semiconductor]
    for k, atoms in enumerate(made):
        if not atoms.pbc.any():
            atoms.set_cell(np.eye(3) * 30.0)
        noise = np.random.default_rng(k).normal(0.0, 0.06, atoms.positions.shape)
        cell, periodic = np.array(atoms.cell.array), bool(atoms.pbc.any())
        positions = np.round(atoms.positions + noise, 8)
        found.append({"numbers": atoms.numbers, "positions": positions, "cell": cell, "periodic": periodic})
    return found


def jarvis_atoms(s: dict[str, Any]) -> Atoms:
    """The same in the package's form."""
    from ase.data import chemical_symbols

    names = [chemical_symbols[z] for z in s["numbers"]]
    return Atoms(lattice_mat=s["cell"], coords=s["positions"], elements=names, cartesian=True)


def graph_of(s: dict[str, Any], case: Case) -> tuple[TorchGraph, TorchGraph]:
    """The package's graph and line graph."""
    atoms = jarvis_atoms(s)
    if not case.nearest:
        return build_pure_torch_graph(
            atoms=atoms,
            two_body_cutoff=case.cutoff,
            three_body_cutoff=case.three_body,
            atom_features=case.atom_features,
            use_matscipy_topology=False,
        )
    edges, _ = nearest_neighbor_edges(
        atoms=atoms, cutoff=case.cutoff, max_neighbors=case.nearest, use_canonize=case.canonize
    )
    source, target, r, images = build_undirected_edgedata(atoms, edges)
    features = np.array([get_node_attributes(e, case.atom_features) for e in atoms.elements], dtype=float)
    n, volume = len(atoms.elements), torch.tensor(abs(np.linalg.det(s["cell"])))
    nodes = {"atom_features": torch.tensor(features).to(torch.get_default_dtype())}
    nodes |= {"V": volume.expand(n), "Z": torch.tensor(s["numbers"])}
    g = TorchGraph(num_nodes=n, src=source, dst=target, ndata=nodes, edata={"r": r, "images": images})
    first, second = _line_graph_edges(source, target, n)
    h = torch_bond_cosines(r[first], r[second])
    return g, TorchGraph(num_nodes=g.num_edges, src=first, dst=second, ndata={"r": r}, edata={"h": h})


def build(case: Case, seed: int) -> torch.nn.Module:
    """The package's model with random weights."""
    widths = {"cgcnn": 92, "atomic_number": 1, "basic": 11, "cfid": 438}
    settings = {**SMALL, **case.choices, "atom_input_features": widths[case.atom_features]}
    torch.manual_seed(seed)
    model = ALIGNNAtomWisePure(ALIGNNAtomWisePureConfig(name="alignn_atomwise_pure", **settings))
    model = model.to(torch.get_default_dtype())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            scale = 1.5 * parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.3
            drawn = torch.round(drawn * scale * 16384) / 16384
            parameter.copy_(drawn + 1.0 if ("bn_" in name or "layer.1" in name) and "weight" in name else drawn)
    return model


def evaluate(model: torch.nn.Module, s: dict[str, Any], case: Case) -> dict[str, np.ndarray]:
    """Predictions of one structure."""
    g, lg = graph_of(s, case)
    out = model((g, lg, torch.tensor(s["cell"])))
    found = {"out": out["out"].reshape(1, -1), "edges": torch.tensor([[g.num_edges, lg.num_edges]])}
    if model.config.calculate_gradient:
        found |= {"forces": out["grad"], "stress": out["stresses"].reshape(-1, 3, 3)}
    if model.config.atomwise_output_features:
        found["atomwise"] = out["atomwise_pred"]
    if model.config.additional_output_features:
        found["additional"] = out["additional"].reshape(1, -1)
    return {name: value.detach().numpy() for name, value in found.items()}


def write_case(name: str, case: Case, seed: int, target: Path) -> str:
    """One folder: settings, weights, structures and expected numbers in both precisions."""
    folder, group = target / name, structures()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    numbers: dict[str, np.ndarray] = {}
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        model = build(case, seed)
        parts = [evaluate(model, s, case) for s in group]
        label = str(dtype).removeprefix("torch.")
        for key in parts[0]:
            numbers[f"{label}_{key}"] = np.concatenate([part[key] for part in parts])
    state = {n: p.detach().numpy().astype(np.float32) for n, p in model.named_parameters()}
    np.savez_compressed(folder / "weights.npz", **state)
    np.savez_compressed(folder / "expected.npz", **numbers)
    packed = {
        "ptr": np.cumsum([0] + [len(s["numbers"]) for s in group]),
        "numbers": np.concatenate([s["numbers"] for s in group]),
        "positions": np.concatenate([s["positions"] for s in group]),
        "cell": np.stack([s["cell"] for s in group]),
        "periodic": np.array([s["periodic"] for s in group]),
    }
    np.savez_compressed(folder / "structures.npz", **packed)
    choices = {**SMALL, **case.choices}
    graph = case._asdict()
    graph.pop("choices")
    (folder / "model.json").write_text(json.dumps({"model": choices, "graph": graph}, indent=1) + "\n")
    packages = {p: version(p) for p in ("alignn", "jarvis-tools", "torch", "numpy")}
    origin = {"purpose": case.purpose, "command": "python scripts/oracle alignn", "seed": seed}
    origin |= {"date": date.today().isoformat(), "versions": packages}
    (folder / "meta.json").write_text(json.dumps(origin, indent=1) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"{name:16s} {size / 1e3:7.1f} kB"


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
