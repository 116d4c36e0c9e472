"""What every architecture must satisfy where one model knows several levels of theory."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from test_architecture import BACKENDS, ELEMENTS, SMALL, crystal, molecule, predict

from forgefield.core.errors import ModelError
from forgefield.graph.build import build_graph
from forgefield.models.architecture import Fidelity
from forgefield.models.bundle import load_bundle, save_bundle
from forgefield.models.correcting import as_correction, inventory_of_correction
from forgefield.models.potential import ARCHITECTURES, build_potential
from forgefield.models.widening import Growth, alone, widen
from forgefield.train.groups import freeze

HEADS = ("cc", "dft", "gfn")
ENERGIES = {h: {1: -13.6 - k, 6: -1029.0, 8: -2041.0, 14: -7000.0} for k, h in enumerate(HEADS)}
CHOICES = [
    *itertools.product((True, False), ("none", "added", "elements"), (None,)),
    (True, "none", "gfn"),
    (False, "added", "gfn"),
]
EXACT = 1e-9


def built(backend, heads=HEADS, **more):
    return build_potential(
        backend,
        ARCHITECTURES.entry(backend).settings.model_validate(SMALL.get(backend, {})),
        elements=ELEMENTS,
        heads=heads,
        reference_energies=ENERGIES,
        avg_num_neighbors=8.0,
        dtype=torch.float64,
        seed=3,
        **more,
    )


def make(backend, readouts, embedding, base):
    fidelity = Fidelity(readouts=readouts, embedding=embedding, base=base)
    potential = built(backend, scale=[1.3, 0.7, 1.0], shift=[0.1, -0.2, 0.0], fidelity=fidelity)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, axes in potential.architecture.indexed().items():  # what begins at zero must not stay there
            parameter = dict(potential.architecture.named_parameters()).get(name)
            if parameter is not None and "heads" in axes:
                parameter += 0.1 * torch.randn(parameter.shape, generator=random, dtype=torch.float64)
    return potential


@pytest.fixture(params=BACKENDS, scope="module")
def backend(request):
    return request.param


@pytest.fixture(params=CHOICES, ids=lambda c: f"{'own' if c[0] else 'shared'}-{c[1]}-{c[2]}", scope="module")
def choice(request):
    return request.param


@pytest.fixture(scope="module")
def potential(backend, choice):
    return make(backend, *choice)


def stated(structures):
    """Structures with a charge and the multiplicity that goes with their electrons."""
    return [dataclasses.replace(s, charge=int(s.numbers.sum()) % 2, multiplicity=1) for s in structures]


def as_level(structure, head):
    return dataclasses.replace(structure, head=head)


def mixed():
    """Three structures, one of each level, in an order that is not that of the levels."""
    return stated([molecule(n=7, head="gfn"), crystal(head="cc"), molecule(2, n=9, head="dft")])


def test_mixed_batches_equal_single_structures(potential):
    structures = mixed()
    together = predict(potential, *structures)
    ends = np.cumsum([len(s) for s in structures])
    for k, structure in enumerate(structures):
        one = predict(potential, structure)
        rows = slice(ends[k] - len(structure), ends[k])
        assert abs(float(one.energy[0] - together.energy[k])) < EXACT
        assert float((one.forces - together.forces[rows]).abs().max()) < EXACT
        assert float((one.stress[0] - together.stress[k]).abs().max()) < EXACT


def test_what_the_levels_share(potential, choice):
    """Forces of one geometry differ between levels exactly where the settings give them something of their own."""
    (molecule_,) = stated([molecule()])
    readouts, embedding, _ = choice
    forces = {}
    for head in ("cc", "dft"):
        found = predict(potential, as_level(molecule_, head))
        forces[head] = found.forces / float(potential.scale[potential.heads.index(head)])
    same = float((forces["cc"] - forces["dft"]).abs().max()) < EXACT
    assert same == (not readouts and embedding == "none")


def test_a_level_alone_predicts_what_it_did(potential):
    for head in HEADS:
        one = alone(potential, head)
        assert one.heads == [head]
        for structure in stated([molecule(), crystal()]):
            before, after = (predict(p, as_level(structure, head)) for p in (potential, one))
            assert abs(float(before.energy - after.energy)) < EXACT
            assert float((before.forces - after.forces).abs().max()) < EXACT


def test_a_new_level_begins_as_the_one_it_copies(potential):
    wide = widen(potential, Growth(elements={9: [8]}, heads={"mine": "dft"}))
    for structure in stated([molecule(), crystal()]):
        wanted = predict(potential, as_level(structure, "dft"))
        for head in ("mine", "dft"):
            found = predict(wide, as_level(structure, head))
            assert abs(float(found.energy - wanted.energy)) < EXACT
            assert float((found.forces - wanted.forces).abs().max()) < EXACT


def test_only_rows_of_the_levels_of_a_batch_are_trained(potential):
    structures = stated([molecule(head="cc"), crystal(head="cc")])
    graph = build_graph(structures, potential.needs, heads=HEADS, dtype=torch.float64)
    outputs = potential(graph)
    loss = outputs.energy.sum() + (outputs.forces**2).sum()
    architecture = potential.architecture
    named = dict(architecture.named_parameters())
    grads = dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))
    counts = {"heads": (1, len(HEADS)), "kinds": (len(ELEMENTS), len(HEADS))}
    seen = 0
    for name, axes in architecture.indexed().items():
        for axis, kind in enumerate(axes):
            if kind not in counts or grads.get(name) is None:
                continue
            outer, inner = counts[kind]
            rows = grads[name].unflatten(axis, (outer, inner, -1)).movedim(axis + 1, 0)
            assert float(rows[0].abs().max()) > 0, name
            assert float(rows[1:].abs().max()) == 0, name
            seen += 1
    assert seen or potential.context.fidelity in (Fidelity(readouts=False), Fidelity(readouts=False, base="gfn"))


def test_disk_keeps_it(potential, tmp_path):
    save_bundle(potential, tmp_path, provenance={})
    again = load_bundle(tmp_path)
    assert again.context.fidelity == potential.context.fidelity
    for structure in mixed():
        before, after = (predict(p, structure) for p in (potential, again))
        assert torch.equal(before.energy, after.energy)
        assert torch.equal(before.forces, after.forces)


def test_the_base_is_a_network_of_its_own(backend):
    """The base level is its network alone; the others are that and more, and train both networks."""
    potential = make(backend, True, "none", "gfn")
    architecture = potential.architecture
    (structure,) = stated([molecule()])
    graph = lambda head: build_graph([as_level(structure, head)], potential.needs, heads=HEADS, dtype=torch.float64)  # noqa: E731
    for head, corrected in (("gfn", False), ("dft", True)):
        potential.zero_grad(set_to_none=True)
        found = potential(graph(head))
        (found.forces**2).sum().backward()
        gradients = [p.grad for n, p in architecture.named_parameters() if n.startswith("correction.")]
        assert any(g is not None and float(g.abs().max()) > 0 for g in gradients) == corrected
        beneath = [p.grad for n, p in architecture.named_parameters() if n.startswith("base.")]
        assert any(g is not None and float(g.abs().max()) > 0 for g in beneath)
        below = architecture.base(graph(head), *_of(potential, graph(head)))
        scale = float(potential.scale[HEADS.index(head)])
        more = found.atom_energies.detach().sum() - scale * float(below.energies.detach().sum())
        offset = sum(ENERGIES[head][int(z)] + float(potential.shift[HEADS.index(head)]) for z in structure.numbers)
        assert (abs(float(more) - offset) > 1e-6) == corrected


def _of(potential, graph):
    return graph.pair_vectors(), *potential.count_elements(graph)


def test_a_copy_of_the_base_has_no_correction_yet(backend):
    """It would begin with one that nobody trained: refused."""
    with pytest.raises(ModelError, match="gfn"):
        widen(make(backend, True, "none", "gfn"), Growth(heads={"mine": "gfn"}))


def corrected(backend, scale=0.2):
    """A model of one level, and the same as the base of a correction."""
    plain = built(backend, ("gfn",), scale=1.3, shift=0.1)
    return plain, as_correction(widen(plain, Growth(heads={"dft": "gfn"})), "gfn", scale, seed=5)


def test_a_finished_model_stays_below_its_correction(backend, tmp_path):
    """Its level predicts what it did; the new one something else, in proportion to its unit; disk keeps both."""
    plain, potential = corrected(backend)
    twice = corrected(backend, scale=0.4)[1]
    save_bundle(potential, tmp_path, provenance={})
    again = load_bundle(tmp_path)
    for structure in stated([molecule(), crystal()]):
        wanted, base = predict(plain, as_level(structure, "gfn")), predict(potential, as_level(structure, "gfn"))
        assert abs(float(wanted.energy - base.energy)) < EXACT
        assert float((wanted.forces - base.forces).abs().max()) < EXACT
        one, two = (predict(p, as_level(structure, "dft")) for p in (potential, twice))
        assert float((one.forces - base.forces).abs().max()) > 1e-6
        assert float((two.forces - base.forces - 2 * (one.forces - base.forces)).abs().max()) < EXACT
        assert torch.equal(predict(again, as_level(structure, "dft")).forces, one.forces)


def test_a_frozen_base_is_not_trained(backend):
    potential = corrected(backend)[1]
    frozen = freeze(potential, "base")
    assert frozen == [name for name, _ in potential.named_parameters() if name.startswith("architecture.base.")]
    (structure,) = stated([molecule(head="dft")])
    outputs = potential(build_graph([structure], potential.needs, heads=potential.heads, dtype=torch.float64))
    ((outputs.forces**2).sum() + outputs.energy.sum()).backward()
    trained = [p for _, p in potential.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 0]
    assert trained
    assert all(p.grad is None for name, p in potential.named_parameters() if name in frozen)


def test_where_the_numbers_of_a_correction_come_from(backend):
    plain, potential = corrected(backend)
    rows = inventory_of_correction(plain, potential, Growth(heads={"dft": "gfn"}))
    named = dict(potential.architecture.named_parameters())
    assert sorted(row.name for row in rows) == sorted([*named, "self_energies", "scale", "shift"])
    own = dict(plain.architecture.named_parameters())
    readouts = set(potential.architecture.head_parameters())
    for row in rows:
        if row.name in named:
            base = own.get(row.name.split(".", 1)[1])
            copied = base is not None and torch.equal(base, named[row.name])
            assert row.loaded + row.new == named[row.name].numel()
            assert not (row.name in readouts and row.name.startswith("correction.") and row.loaded)
            assert copied or row.loaded == 0, row.name
    assert any(row.loaded for row in rows if row.name.startswith("correction."))


@pytest.mark.parametrize("fidelity", [Fidelity(base="gfn"), Fidelity(), Fidelity(embedding="added")])
def test_only_a_network_of_one_level_is_a_base(backend, fidelity):
    with pytest.raises(ModelError, match=r"finetune\.correction"):
        as_correction(built(backend, fidelity=fidelity), "gfn", 1.0, seed=0)
