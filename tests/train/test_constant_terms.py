"""Terms that follow from the structure alone: the same numbers as in every step, computed once."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from toy import CUTOFF, ENERGIES, Toy, ToySettings, make_potential, make_structures, quiet, same, weights

from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.loader import make_loader
from forgefield.models.architecture import ArchitectureContext, PhysicsContext
from forgefield.models.potential import PHYSICS, Potential
from forgefield.train.constant_terms import ConstantTerms, constant_terms, taken_out
from forgefield.train.evaluate import validate
from forgefield.train.loop import fit
from forgefield.train.loss import build_loss
from forgefield.train.recorder import read_history

HEADS = ("wb97m", "bare")
TERMS = {
    "d3": {"functional": {"wb97m": "wb97m", "bare": None}, "cutoff": 7.0, "cn_cutoff": 6.0},
    "coulomb": {"method": "dsf", "cutoff": 8.0, "charges": {"H": 0.2, "C": -0.3}},
    "zbl": {},
}
TRAIN, VAL = make_structures(9), make_structures(5, seed=7)


def make(terms=TERMS, heads=HEADS, dtype=torch.float64):
    context = ArchitectureContext((1, 6), heads, 3.0)
    factors = PhysicsContext((1, 6), heads, (1.0, 0.5)[: len(heads)])
    physics = {}
    for name, values in terms.items():
        entry = PHYSICS.entry(name)
        physics[name] = entry.build(entry.settings.model_validate(values), factors)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        toy = Toy()
    n = len(heads)
    made = Potential("toy", ToySettings(), toy, context, dict.fromkeys(heads, ENERGIES), [1.0] * n, [0.0] * n, physics)
    return made.to(dtype)


def mixed(structures=TRAIN):
    """The structures, at both levels in turn."""
    return Dataset.of(
        [
            Structure(s.numbers, s.positions, s.cell, s.pbc, labels=s.labels, head=HEADS[k % 2], origin=s.origin)
            for k, s in enumerate(structures)
        ]
    )


def loader_of(dataset, potential, **more):
    more = {"dtype": potential.dtype, "batch_size": 4, "heads": potential.heads, **more}
    return make_loader(dataset, potential.needs, **more)


def sums(potential, dataset):
    """What the steps of training see, with the terms computed in every step and once."""
    whole = [potential(batch.graph) for batch in loader_of(dataset, potential).batches()]
    with taken_out(potential, constant_terms(potential)) as make_constant:
        constant, rest = make_constant(dataset), []
        for batch in loader_of(dataset, potential).batches():
            assert not len(batch.graph.far_first)
            rest.append(constant.add(potential(batch.graph), batch))
    return whole, rest, constant


@pytest.mark.parametrize("terms", [TERMS, {"d3": TERMS["d3"]}, {k: TERMS[k] for k in ("coulomb", "zbl")}])
def test_the_sum_is_that_of_every_step(terms):
    potential = make(terms)
    whole, rest, constant = sums(potential, mixed())
    assert potential.needs.far_cutoff == max(term.far_cutoff for term in potential.physics.values())
    assert constant.computed == len(TRAIN)
    for a, b in zip(rest, whole, strict=True):
        for name in ("energy", "forces", "stress", "atom_energies"):
            assert torch.allclose(getattr(a, name), getattr(b, name), rtol=0, atol=1e-12), name
    with torch.no_grad(), potential.without(terms):
        bare = [potential(batch.graph) for batch in loader_of(mixed(), potential).batches()]
    added = [float((a.forces.detach() - b.forces).abs().max()) for a, b in zip(rest, bare, strict=True)]
    assert min(added) > 1e-4


def test_each_level_gets_its_own():
    """A dispersion that one level has not adds nothing to it."""
    potential = make({"d3": TERMS["d3"]})
    constant = ConstantTerms({"d3": potential.physics["d3"]}, potential.needs, potential.heads, mixed())
    for k in range(4):
        found = constant._of(k)
        assert (float(found.forces.abs().max()) > 1e-6) == (k % 2 == 0)


def test_in_float32_rounding_is_all_that_differs():
    whole, rest, _ = sums(make(dtype=torch.float32), mixed())
    for a, b in zip(rest, whole, strict=True):
        assert torch.allclose(a.energy, b.energy, rtol=0, atol=1e-5)
        assert torch.allclose(a.forces, b.forces, rtol=0, atol=1e-5)


def test_only_what_follows_from_the_structure_is_taken_out():
    assert constant_terms(make()) == ("d3", "coulomb", "zbl")
    assert constant_terms(make({"zbl": {}})) == ()  # cheaper in the step
    assert constant_terms(make({"d3": TERMS["d3"], "coulomb": {"method": "dsf"}})) == ("d3",)  # charges are predicted
    potential = make({"d3": TERMS["d3"], "coulomb": {"method": "dsf", "cutoff": 11.0}})
    with potential.without(["d3"]):
        assert potential.needs.far_cutoff == 11.0
    assert potential.left_out == ()


def test_when_the_memory_is_full_results_are_computed_again():
    potential, dataset, said = make(), mixed(), []
    constant = ConstantTerms(dict(potential.physics.items()), potential.needs, potential.heads, dataset, limit=1000)
    constant.report = said.append
    with potential.without(constant.names):
        batches = list(loader_of(dataset, potential).batches())
        first, again = ([constant.add(potential(b.graph), b) for b in batches] for _ in range(2))
    assert len(dataset) < constant.computed < 2 * len(dataset)
    assert len(said) == 1
    assert "no room for more" in said[0]
    assert all(torch.equal(a.forces, b.forces) for a, b in zip(first, again, strict=True))


def run(folder, once=True, potential=None, **keys):
    potential = potential or make()
    resume = keys.pop("resume", False)
    settings = quiet(constant_physics="once" if once else "every_step", **keys)
    names = constant_terms(potential) if once else ()
    with taken_out(potential, names) as constant:
        train, val = loader_of(mixed(), potential, shuffle=True, seed=3), loader_of(mixed(VAL), potential)
        marks = {"config_fingerprint": "c", "data_fingerprint": "d", "device": "cpu", "resume": resume}
        fit(
            potential,
            train,
            val,
            settings,
            folder=folder,
            console=Console(file=io.StringIO()),
            constant=constant,
            **marks,
        )
    return potential


def test_a_fit_is_the_same_either_way(tmp_path):
    one, other = run(tmp_path / "a"), run(tmp_path / "b", once=False)
    rows = [read_history(tmp_path / name / "history.jsonl") for name in "ab"]
    for a, b in zip(*rows, strict=True):
        for name in ("train_loss", "val_loss", "val_forces_rmse"):
            assert a[name] == pytest.approx(b[name], rel=1e-10)
    for (name, a), b in zip(weights(one).items(), weights(other).values(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9), name
    assert "d3, coulomb, zbl: computed once" in (tmp_path / "a" / "events.jsonl").read_text()


def test_a_fit_leaves_the_potential_whole(tmp_path):
    potential = run(tmp_path / "a")
    loader = loader_of(mixed(VAL), potential)
    loss, _ = validate(potential, loader, build_loss(quiet()))
    best = min(read_history(tmp_path / "a" / "history.jsonl"), key=lambda row: row["val_loss"])
    assert float(loss.total) == pytest.approx(best["val_loss"], rel=1e-12)


def test_continuing_gives_the_same_bits(tmp_path):
    straight = run(tmp_path / "a", epochs=4)
    run(tmp_path / "b", epochs=2)
    continued = run(tmp_path / "b", epochs=4, resume=True)
    assert same(weights(straight), weights(continued))


def test_models_without_such_terms_are_left_alone(tmp_path):
    potential = make_potential()
    with taken_out(potential, constant_terms(potential)) as constant:
        assert constant(mixed()) is None
        assert potential.needs.cutoff == CUTOFF
    assert np.isfinite(potential.needs.far_cutoff)
