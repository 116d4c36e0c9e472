"""Kinds and normalisations of the losses against sums written out by hand."""

import math

import pytest
import torch
from toy import load, make_potential, make_structures

from forgefield.train.loss import build_loss
from forgefield.train.settings import TrainSettings


def huber(d, delta=0.05):
    return 0.5 * d * d if abs(d) < delta else delta * (abs(d) - 0.5 * delta)


def smooth(d, beta=0.2):
    return 0.5 * d * d / beta if abs(d) < beta else abs(d) - 0.5 * beta


KINDS = {"mse": lambda d: d * d, "mae": abs, "huber": huber, "smooth_l1": smooth}
SHAPES = {"huber": {"huber_delta": 0.05}, "smooth_l1": {"smooth_l1_beta": 0.2}}
C = [1.0, 2.0, 1.0, 0.5, 1.0, 3.0]


@pytest.fixture(scope="module")
def case():
    batch = next(load(make_structures(6), 6).batches())
    with torch.no_grad():
        return make_potential()(batch.graph), batch.labels._replace(weight=torch.tensor(C).double())


def value(case, name, **keys):
    return float(build_loss(TrainSettings(**keys))(*case).terms[name])


@pytest.mark.parametrize("normalization", ["per_atom", "per_structure", "total", "sqrt_atoms"])
@pytest.mark.parametrize("kind", KINDS)
def test_energy(case, kind, normalization):
    out, labels = case
    parts = []
    for c, n, a, b in zip(C, labels.n_atoms.tolist(), out.energy.tolist(), labels.energy.tolist(), strict=True):
        d = (a - b) / n if normalization == "per_atom" else a - b
        parts.append(c * KINDS[kind](d) / (math.sqrt(n) if normalization == "sqrt_atoms" else 1.0))
    found = value(case, "energy", loss_energy=kind, energy_normalization=normalization, **SHAPES.get(kind, {}))
    assert found == pytest.approx(sum(parts) / 6, rel=1e-13)


@pytest.mark.parametrize("normalization", ["per_atom", "per_structure", "total", "sqrt_atoms"])
@pytest.mark.parametrize("kind", [*KINDS, "l2mae"])
def test_forces(case, kind, normalization):
    out, labels = case
    difference = (out.forces - labels.forces).tolist()
    of_structure = [[] for _ in C]
    for k, d in zip(labels.structure.tolist(), difference, strict=True):
        of_structure[k].append(math.hypot(*d) if kind == "l2mae" else sum(map(KINDS[kind], d)))
    sums, sizes = [sum(parts) for parts in of_structure], [len(parts) for parts in of_structure]
    width = 1 if kind == "l2mae" else 3
    divided = {
        "per_atom": [c * x * 6 / sum(sizes) for c, x in zip(C, sums, strict=True)],
        "per_structure": [c * x / n for c, x, n in zip(C, sums, sizes, strict=True)],
        "total": [c * x for c, x in zip(C, sums, strict=True)],
        "sqrt_atoms": [c * x / math.sqrt(n) for c, x, n in zip(C, sums, sizes, strict=True)],
    }[normalization]
    found = value(case, "forces", loss_force=kind, force_normalization=normalization, **SHAPES.get(kind, {}))
    assert found == pytest.approx(sum(divided) / 6 / width, rel=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_stress_and_virial(case, kind):
    out, labels = case
    stress, virial = [], []
    for k in range(6):
        if labels.has_stress[k]:
            d = (out.stress - labels.stress)[k].flatten().tolist()
            stress.append(C[k] * sum(map(KINDS[kind], d)))
            scale = float(labels.volume[k]) / int(labels.n_atoms[k])
            virial.append(C[k] * sum(KINDS[kind](-scale * x) for x in d))
    more = SHAPES.get(kind, {})
    assert len(stress) == 2
    found = value(case, "stress", stress_weight=1.0, loss_stress=kind, **more)
    assert found == pytest.approx(sum(stress) / 18, rel=1e-12)
    found = value(case, "virial", targets={"virial": {"loss": kind}}, **more)
    assert found == pytest.approx(sum(virial) / 18, rel=1e-12)


def test_a_delta_for_each_quantity(case):
    keys = {"loss_energy": "huber", "loss_force": "huber", "huber_delta": {"energy": 0.05, "forces": 0.3}}
    alone = value(case, "forces", loss_force="huber", huber_delta=0.3)
    assert value(case, "forces", **keys) == alone
    assert value(case, "energy", **keys) == value(case, "energy", loss_energy="huber", huber_delta=0.05)


def test_huber_is_the_square_near_zero_and_smooth_l1_is_huber_over_beta(case):
    assert value(case, "energy", loss_energy="huber", huber_delta=1e6) == pytest.approx(value(case, "energy") / 2)
    one = value(case, "forces", loss_force="smooth_l1", smooth_l1_beta=0.1)
    assert one == pytest.approx(value(case, "forces", loss_force="huber", huber_delta=0.1) / 0.1, rel=1e-12)
