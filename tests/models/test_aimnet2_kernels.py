"""AIMNet2 in the compiled operators beside plain PyTorch: predictions, and the gradients of every weight."""

import numpy as np
import pytest
import torch

from forgefield.app.physics_block import physics_settings
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.kernels.choice import kernels
from forgefield.kernels.library import load
from forgefield.models.architecture import Fidelity
from forgefield.models.architectures.aimnet2.settings import Aimnet2Settings
from forgefield.models.potential import build_potential
from forgefield.models.traced.traces import Traces

pytestmark = pytest.mark.skipif(load().path is None, reason=f"no compiled operators: {load().words}")
SMALL = {"nfeature": 3, "ncomb_v": 4, "hidden": [[10], [12, 7], [11]], "aim_size": 9, "energy_hidden": [8]}
AEV = {"rc_s": 4.0, "nshifts_s": 6}
VARIANTS = {
    "usual": {"aev": AEV},
    "open": {"aev": AEV, "num_charge_channels": 2},
    "own vectors": {"aev": {**AEV, "rc_v": 3.0, "nshifts_v": 4}, "d2features": False},
    "whole vectors": {"aev": {"rc_s": 4.0, "nshifts_s": 16}, "hidden": [[10], [12, 7], [8, 9], [11]]},
}
HEADS = ("low", "high")


@pytest.fixture(autouse=True)
def _no_traces(monkeypatch):
    """Plain PyTorch by automatic differentiation: tracing each model would take seconds."""
    monkeypatch.setattr(Traces, "_trusted", lambda *_: None)


def made(variant, **more):
    settings = Aimnet2Settings(**{**SMALL, **VARIANTS[variant]})
    energies = {head: dict.fromkeys([1, 6, 8], 0.0) for head in ("default", *HEADS)}
    known = {"elements": [1, 6, 8], "reference_energies": energies, "avg_num_neighbors": 5.0, "dtype": torch.float64}
    return build_potential("aimnet2", settings, **{**known, **more})


def batch(potential, sizes=(5, 1, 7, 2)):
    rng = np.random.default_rng(5)
    names = potential.heads
    structures = []
    for k, n in enumerate(sizes):
        numbers, charge = rng.choice([1, 6, 8], n), k % 2
        more = {"charge": charge, "multiplicity": 1 + int(numbers.sum() - charge) % 2, "head": names[k % len(names)]}
        structures.append(Structure(numbers, rng.uniform(0, 3.5, (n, 3)), **more))
    return build_graph(structures, potential.needs, heads=names, dtype=torch.float64)


def answers(potential, graph, choice):
    """Predictions, and the gradients of a loss of all of them."""
    potential.zero_grad()
    with kernels(choice):
        out = potential(graph)
        values = {"energy": out.energy, "forces": out.forces, "stress": out.stress, **out.extra}
        loss = sum(
            (v * torch.cos(torch.arange(v.numel(), dtype=v.dtype)).reshape(v.shape)).sum() for v in values.values()
        )
        loss.backward()
    gradients = {name: p.grad.clone() for name, p in potential.named_parameters() if p.grad is not None}
    return {name: v.detach() for name, v in values.items()} | gradients


def assert_equal(potential, graph):
    own, plain = (answers(potential, graph, choice) for choice in ("auto", "plain"))
    assert set(plain) <= set(own)
    for name, value in own.items():
        wanted = plain.get(name, torch.zeros_like(value))
        assert float((value - wanted).abs().max()) <= 1e-10 * (1 + float(wanted.abs().max())), name


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_equals_plain_pytorch(variant):
    potential = made(variant)
    assert_equal(potential, batch(potential))


@pytest.mark.parametrize("embedding", ["none", "added", "elements"])
def test_levels_equal_plain_pytorch(embedding):
    potential = made("usual", heads=HEADS, fidelity=Fidelity(embedding=embedding))
    assert_equal(potential, batch(potential))


def test_charges_in_physics_equal_plain_pytorch():
    potential = made("usual", physics=physics_settings({"coulomb": {"method": "simple"}}))
    assert_equal(potential, batch(potential))


def test_nothing_is_traced_in_the_operators():
    potential = made("usual")
    graph = batch(potential)
    with torch.no_grad():
        plainly = potential(graph)
    with torch.inference_mode():
        inside = potential(batch(potential))
    assert torch.equal(plainly.forces, inside.forces)
    assert not inside.forces.requires_grad
    assert not plainly.forces.requires_grad
    assert potential.architecture.traces.made() == []
    assert potential.architecture.traces.notes == []
