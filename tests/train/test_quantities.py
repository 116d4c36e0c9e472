"""Charges, dipole and targets of a model's own: predicted, labelled, counted and learned like energy and forces."""

import io

import pytest
import torch
from charged_toy import charged_structures, make_charged
from rich.console import Console
from toy import load, make_potential, quiet

from forgefield.core.errors import ConfigError
from forgefield.train.compiled import CompiledPotential
from forgefield.train.loop import fit, prepare
from forgefield.train.loss import build_loss
from forgefield.train.settings import TrainSettings

TARGETS = {
    "charges": {"weight": 3.0, "loss": "mae"},
    "dipole": {"weight": 2.0, "loss": "l2mae"},
    "gap": {"weight": 5.0},
    "virial": {"weight": 0.5},
}


@pytest.fixture(scope="module")
def case():
    batch = next(load(charged_structures(), 9).batches())
    return make_charged().eval()(batch.graph), batch


def test_predictions_of_atoms_are_in_the_original_order(case):
    outputs, batch = case
    structures = charged_structures()
    numbers = torch.cat([torch.as_tensor(s.numbers) for s in structures])
    charges, n = outputs.extra["charges"].detach(), batch.labels.n_atoms
    shift = charges - torch.where(numbers == 1, 0.1, -0.2).double()
    for k in range(len(structures)):  # one shift per structure; 0.1 is a float32 above
        own = shift[batch.labels.structure == k]
        assert own.max() - own.min() < 1e-7
    assert outputs.extra["dipole"].shape == (len(n), 3)


def test_each_term_by_hand(case):
    outputs, batch = case
    labels = batch.labels
    report = build_loss(TrainSettings(targets=TARGETS), make_charged())(outputs, labels)
    there = labels.has_extra["dipole"]
    assert there.tolist() == [bool(k % 4) for k in range(9)]
    atoms = there[labels.structure]
    charges = (outputs.extra["charges"] - labels.extra["charges"])[atoms].abs().mean()
    dipole = (outputs.extra["dipole"] - labels.extra["dipole"])[there].norm(dim=1).mean()
    gap = (outputs.extra["gap"] - labels.extra["gap"])[there].square().mean()
    boxes = labels.has_stress
    scale = -(labels.volume / labels.n_atoms)[boxes].reshape(-1, 1, 1)
    virial = (scale * (outputs.stress - labels.stress)[boxes]).square().mean()
    for name, value in {"charges": charges, "dipole": dipole, "gap": gap, "virial": virial}.items():
        assert torch.allclose(report.terms[name], value, rtol=1e-13), name
    weighed = sum(TARGETS[name]["weight"] * report.terms[name] for name in TARGETS)
    assert torch.allclose(report.total, weighed + report.terms["energy"] + 100 * report.terms["forces"], rtol=1e-13)


def test_what_a_model_does_not_predict_is_refused():
    for name in ("charges", "gap", "chrages"):
        settings = TrainSettings(targets={name: {"weight": 1.0}})
        with pytest.raises(ConfigError, match=f"{name} has weight") as error:
            prepare(make_potential(), settings, torch.device("cpu"))
        assert f"train.targets.{name}.weight" in str(error.value)
        assert "predicts energy, forces, stress, virial" in str(error.value)
    prepare(make_potential(), TrainSettings(targets={"charges": {"weight": 0.0}}), torch.device("cpu"))
    prepare(make_charged(), TrainSettings(targets=TARGETS), torch.device("cpu"))


def test_charges_are_learned(tmp_path):
    potential = make_charged()
    settings = quiet(epochs=30, lr=0.05, ema_decay=None, targets={"charges": {"weight": 10.0}, "dipole": {}})
    loaders = load(charged_structures(), 4, shuffle=True), load(charged_structures(6, seed=3))
    console = Console(file=io.StringIO())
    marks = {"config_fingerprint": "c", "data_fingerprint": "d", "console": console}
    before = (potential.architecture.charge[0] - potential.architecture.charge[1]).item()
    fit(potential, *loaders, settings, folder=tmp_path, device="cpu", **marks)
    after = (potential.architecture.charge[0] - potential.architecture.charge[1]).item()
    assert abs(after - 0.7) < 0.03 < abs(before - 0.7)  # only differences matter: the structures are neutral


def test_compiled_predictions_hold_them_too():
    said = []
    run = CompiledPotential(make_charged().train(), said.append)
    batches = [b.graph for b in load(charged_structures(12), 4).batches()]
    run.prepare(batches)
    for graph in batches:
        ours, theirs = run(graph), make_charged().train()(graph)
        for name, value in theirs.extra.items():
            assert torch.allclose(ours.extra[name], value, rtol=1e-12, atol=1e-13), name
    assert (run.off, run.graphs > 0) == (None, True), said


def test_a_wrong_compiled_charge_is_noticed():
    from forgefield.train.compiled import compare

    potential, graph = make_charged(), next(load(charged_structures(12), 4).batches()).graph

    def wrong(x):
        outputs = potential(x)
        return outputs._replace(extra={**outputs.extra, "charges": outputs.extra["charges"] * 1.001})

    assert compare(potential, potential, graph).share <= 1.0
    assert compare(potential, wrong, graph).what.endswith("charges")
