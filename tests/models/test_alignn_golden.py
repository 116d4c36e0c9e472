"""ALIGNN with the same weights as the alignn package: graphs, energies, forces, stress, targets, classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from forgefield.core.quantities import Quantity
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.models.architectures.alignn.foreign import INSTEAD
from forgefield.models.architectures.alignn.package import load_package_weights
from forgefield.models.architectures.alignn.settings import AlignnSettings
from forgefield.models.potential import build_potential
from forgefield.models.targets import Aims

GOLDEN = Path(__file__).parents[1] / "golden" / "alignn"
CASES = sorted(folder.name for folder in GOLDEN.iterdir())
EXACT = {torch.float32: 1e-6, torch.float64: 1e-10}
"""How far from the package's float64 results. Its own float32 results are up to 7e-7 from these: two roundings
compared with each other would say less about ours."""
PRESSURE = 160.21766208  # of the package: GPa per eV/Å^3
OLD = {"compat": "alignn", "use_cutoff_function": False, "use_penalty": False}


def structures(case, boxed):
    """Molecules as such, or as crystals of wide cells: so the package finds their nearest neighbours."""
    with np.load(GOLDEN / case / "structures.npz", allow_pickle=False) as file:
        s = dict(file)
    cuts = zip(s["ptr"][:-1], s["ptr"][1:], s["cell"], s["periodic"], strict=True)
    return [
        Structure(
            s["numbers"][i:j], s["positions"][i:j], cell if p or boxed else np.zeros((3, 3)), np.full(3, p or boxed)
        )
        for i, j, cell, p in cuts
    ]


def settings_of(model, graph):
    """Settings of ours that mean the same; what the package does not let one choose is refused there."""
    aimed = ("output_features", "additional_output_features", "atomwise_output_features")
    known = {k: v for k, v in model.items() if k not in INSTEAD and k not in aimed}
    known = {**OLD, "multiply_cutoff": model.get("use_cutoff_function", False) is False, **known}
    known |= {"atom_features": graph["atom_features"], "cutoff": graph["cutoff"]}
    if not known["use_cutoff_function"]:
        known.pop("multiply_cutoff")
    if graph["three_body"]:
        known["three_body_cutoff"] = graph["three_body"]
    if graph["nearest"]:
        known |= {"neighbor_strategy": "k-nearest", "max_neighbors": graph["nearest"]}
        known["use_canonize"] = graph["canonize"]
    return AlignnSettings.model_validate(known)


def aims_of(model):
    """What the package returns under out, additional and atomwise_pred, as targets."""
    kind = "class" if model.get("classification") else "number"
    whole = lambda name, n, kind="number": Quantity(name, "", "structure", () if n == 1 else (n,), "", kind=kind)  # noqa: E731
    targets = []
    if not model.get("calculate_gradient", True):
        targets.append(whole("out", model.get("output_features", 1), kind))
    if model.get("additional_output_features"):
        targets.append(whole("additional", model["additional_output_features"]))
    if model.get("atomwise_output_features"):
        targets.append(Quantity("atomwise", "", "atom", (model["atomwise_output_features"],), ""))
    return Aims(tuple(targets), energy=model.get("calculate_gradient", True))


def load(case, dtype):
    description = json.loads((GOLDEN / case / "model.json").read_text())
    model, made = description["model"], structures(case, boxed=bool(description["graph"]["nearest"]))
    elements = sorted({int(z) for s in made for z in s.numbers})
    potential = build_potential(
        "alignn",
        settings_of(model, description["graph"]),
        elements=elements,
        reference_energies={"default": dict.fromkeys(elements, 0.0)},
        avg_num_neighbors=1.0,
        aims=aims_of(model),
        dtype=dtype,
    )
    with np.load(GOLDEN / case / "weights.npz", allow_pickle=False) as file:
        weights = {name: torch.tensor(file[name]).to(dtype) for name in file.files}
    load_package_weights(potential.architecture, weights)
    with np.load(GOLDEN / case / "expected.npz", allow_pickle=False) as file:
        expected = {n.split("_", 1)[1]: file[n] for n in file.files if n.startswith("float64")}  # see EXACT
    return potential, made, expected


def close(found, expected, dtype):
    wanted = np.asarray(expected, dtype=float)
    assert np.abs(np.asarray(found, dtype=float) - wanted).max() < EXACT[dtype] * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_package(case, dtype):
    """All structures in one batch against the package one by one."""
    potential, made, expected = load(case, dtype)
    graph = build_graph(made, potential.needs, dtype=dtype)
    counts = expected["edges"].sum(0)
    assert 2 * len(graph.pair_first) == counts[0]
    if potential.needs.triplets:
        assert len(graph.triplet_filled) == counts[1]
    with torch.no_grad():
        out = potential(graph)
    if potential.context.energy:
        sizes = np.array([len(s) for s in made])
        n = sizes if potential.settings.energy_mult_natoms else np.ones_like(sizes)
        penalty = out.energy.numpy() - expected["out"][:, 0] * n
        assert (np.abs(penalty).max() > 1e-3) == potential.settings.use_penalty  # theirs leaves it out of the energy
        if not potential.settings.use_penalty:
            close(out.energy.numpy() / n, expected["out"][:, 0], dtype)
        close(out.forces, expected["forces"], dtype)
        crystals = [k for k, s in enumerate(made) if s.pbc.all()]
        close(out.stress[crystals], expected["stress"][crystals] / PRESSURE, dtype)
        assert np.abs(expected["forces"]).max() > 1e-2
    for name, value in out.extra.items():
        if potential.architecture.context.targets[0].kind == "class":
            close(value, np.exp(expected["out"][:, 1]), dtype)
        else:
            close(value.reshape(expected[name].shape), expected[name], dtype)


def test_all_outputs_are_compared():
    potential, _, expected = load("outputs", torch.float64)
    assert {q.name for q in potential.context.targets} == set(expected) - {"edges"}


def test_golden_files_say_where_they_come_from():
    for case in CASES:
        meta = json.loads((GOLDEN / case / "meta.json").read_text())
        assert meta["command"] == "python scripts/oracle alignn"
        assert meta["versions"]["alignn"] == "2026.8.11"
