"""What every physics term must satisfy; a new file in the folder is tested the moment it stands in CASES."""

import itertools

import numpy as np
import physics_sums as sums
import pytest
import torch
from physics_sums import crystal, evaluate, lone, make, molecule

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.graph.graph import Graph
from forgefield.graph.pairs import find_pairs
from forgefield.models.architecture import Geometry
from forgefield.models.potential import PHYSICS

ACCURATE = {"accuracy": 1e-12, "cutoff": 12.0}
D4_CLOSE = {"functional": "pbe", "cutoff": 8.0, "three_body_cutoff": 6.0, "cutoff_width": 2.0}
CASES = {
    "zbl": ("zbl", {}),
    "zbl_lammps": ("zbl", {"form": "lammps", "inner": 1.0, "outer": 2.5}),
    "d3": ("d3", {"functional": "pbe", "cutoff": 9.0, "cn_cutoff": 8.0}),
    "d3_free": ("d3", {"s8": 0.8, "a1": 0.4, "a2": 4.4, "s6": 0.9, "cutoff": 9.0, "cn_cutoff": 8.0}),
    "d4": ("d4", D4_CLOSE),
    "simple": ("coulomb", {"method": "simple"}),
    "dsf": ("coulomb", {"method": "dsf", "cutoff": 9.0, "dsf_alpha": 0.3}),
    "dsf_self": ("coulomb", {"method": "dsf", "dsf_self_energy": "lammps", "short_range": "kept", "cutoff": 9.0}),
    "ewald": ("coulomb", {"method": "ewald", **ACCURATE}),
    "pme": ("coulomb", {"method": "pme", "accuracy": 1e-10, "cutoff": 12.0}),
    "by_element": (
        "coulomb",
        {"method": "ewald", **ACCURATE, "charges": {"H": 0.2, "C": 0, "O": -0.4, "Na": 0.8, "Si": 0.3, "Cl": -0.7}},
    ),
}
EXACT = 1e-9
LATTICE = ("ewald", "pme", "by_element")
PACKAGES = {"d4": "dftd4", "pme": "torchpme", "d3": "tad_dftd3", "d3_free": "tad_dftd3"}


@pytest.fixture(params=CASES)
def case(request):
    if request.param in PACKAGES:
        pytest.importorskip(PACKAGES[request.param])
    return request.param


def term_of(case, **more):
    name, settings = CASES[case]
    return make(name, settings, **more)


def structures(case):
    """What the term is for: crystals, molecules or both."""
    if case in LATTICE:
        return [crystal(), crystal(7)]
    return [molecule(), molecule(5, n=4)] if case == "simple" else [molecule(), crystal()]


def charges_of(case, *given):
    if not term_of(case).uses_charges:
        return None
    return np.random.default_rng(8).normal(0.0, 0.5, sum(len(s) for s in given))


def close(a, b, tolerance=EXACT):
    return a.numel() == 0 or bool((a - b).abs().max() < tolerance)


def moved(s, matrix):
    return Structure(s.numbers, s.positions @ matrix.T, s.cell @ matrix.T, s.pbc)


def test_every_term_is_here():
    assert {name for name, _ in CASES.values()} == set(PHYSICS.names())


def test_settings_survive_being_written_in_full(case):
    name, values = CASES[case]
    settings = PHYSICS.entry(name).settings
    given = settings.model_validate(values)
    assert settings.model_validate(given.model_dump(mode="json")) == given


def test_rotation_and_reflection(case):
    term, rotation = term_of(case), np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    for s in structures(case):
        q = charges_of(case, s)
        a, b = evaluate(term, s, charges=q), evaluate(term, moved(s, -rotation), charges=q)
        m = torch.as_tensor(-rotation)
        tolerance = 1e-7 if case == "pme" else EXACT  # the mesh turns with the cell, rounding apart
        assert close(a.energy, b.energy, tolerance)
        assert close(a.forces @ m.T, b.forces, tolerance)
        assert close(m @ a.stress @ m.T, b.stress, tolerance)


def test_translation_and_images(case):
    term = term_of(case)
    for s in structures(case):
        q = charges_of(case, s)
        shifted = s.positions + np.array([0.3, -4.0, 9.1])
        shifted[0] += s.cell[2] - 2 * s.cell[0]
        a, b = evaluate(term, s, charges=q), evaluate(term, Structure(s.numbers, shifted, s.cell, s.pbc), charges=q)
        tolerance = 1e-6 if case == "pme" else EXACT  # charges sit elsewhere on the mesh
        assert close(a.energy, b.energy, tolerance)
        assert close(a.forces, b.forces, 10 * tolerance)


def test_permutation(case):
    term = term_of(case)
    s = structures(case)[0]
    order, q = np.random.default_rng(2).permutation(len(s)), charges_of(case, s)
    a = evaluate(term, s, charges=q)
    turned = Structure(s.numbers[order], s.positions[order], s.cell, s.pbc)
    b = evaluate(term, turned, charges=None if q is None else q[order])
    assert close(a.energy, b.energy)
    assert close(a.forces[order.tolist()], b.forces)


def test_batch_equals_singles(case):
    given = structures(case) + ([] if case in LATTICE else [lone()])
    term, q = term_of(case), charges_of(case, *given)
    batch = evaluate(term, *given, charges=q)
    ends = np.cumsum([0, *(len(s) for s in given)])
    parts = [None if q is None else q[a:b] for a, b in itertools.pairwise(ends)]
    singles = [evaluate(term, s, charges=p) for s, p in zip(given, parts, strict=True)]
    for name in ("energy", "forces", "stress"):
        assert close(getattr(batch, name), torch.cat([getattr(o, name) for o in singles]))
    if q is not None:
        assert close(batch.charges, torch.cat([o.charges for o in singles]))


def energies(term, variants, q):
    return [float(evaluate(term, s, charges=q).energy[0]) for s in variants]


def slope(e, step):
    return (e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * step)


STEPS = (-2, -1, 1, 2)


def test_forces_are_finite_differences(case):
    term, step = term_of(case), 1e-4
    for s in structures(case):
        q = charges_of(case, s)
        forces = evaluate(term, s, charges=q).forces
        for atom, axis in ((0, 0), (1, 2), (2, 1)):
            shift = np.zeros_like(s.positions)
            shift[atom, axis] = step
            variants = [Structure(s.numbers, s.positions + k * shift, s.cell, s.pbc) for k in STEPS]
            assert abs(float(forces[atom, axis]) + slope(energies(term, variants, q), step)) < 1e-7


def test_stress_is_finite_strain(case):
    term, step = term_of(case), 1e-4
    for s in structures(case):
        q = charges_of(case, s)
        stress = evaluate(term, s, charges=q).stress[0]
        for a, b in ((0, 0), (1, 2), (2, 2)):
            bend = np.zeros((3, 3))
            bend[a, b] += step / 2
            bend[b, a] += step / 2
            found = slope(energies(term, [moved(s, np.eye(3) + k * bend) for k in STEPS], q), step)
            assert abs(float(stress[a, b]) - found) < 1e-7


def test_charge_gradients_are_finite_differences(case):
    term, s = term_of(case), structures(case)[0]
    q = charges_of(case, s)
    found = evaluate(term, s, charges=q).charges
    assert (found is not None) == term.uses_charges
    for atom in range(len(s)) if term.uses_charges else ():
        e = []
        for k in STEPS:
            other = q.copy()
            other[atom] += k * 1e-3
            e.append(float(evaluate(term, s, charges=other).energy[0]))
        assert abs(float(found[atom]) - slope(e, 1e-3)) < 1e-7


def test_heads_scale_and_zero(case):
    heads = ("low", "high")
    name, settings = CASES[case]
    whole = make(name, settings, heads=heads, scale=[1.0, 1.0])
    half = make(name, settings, heads=heads, scale=[0.0, 0.5])
    s = structures(case)[-1]
    q = charges_of(case, s, s)
    given = [Structure(s.numbers, s.positions, s.cell, s.pbc, head=h) for h in heads]
    a, b = evaluate(whole, *given, charges=q, heads=heads), evaluate(half, *given, charges=q, heads=heads)
    n = len(s)
    assert float(b.energy[0].abs()) == 0.0
    assert close(b.energy[1], 0.5 * a.energy[1])
    assert float(b.forces[:n].abs().max()) == 0.0
    assert float(b.stress[0].abs().max()) == 0.0
    assert close(b.forces[n:], 0.5 * a.forces[n:])
    assert close(b.stress[1], 0.5 * a.stress[1])
    if q is not None:
        assert float(b.charges[:n].abs().max()) == 0.0


def test_gradients_wanted_or_not_make_no_difference(case):
    """The numbers are those of inference, and forces have a gradient by the charges in training."""
    term, given = term_of(case), structures(case)
    if case == "pme":
        term = make("coulomb", {"method": "pme", "accuracy": 1e-5})  # a coarse mesh is enough
    graph = sums.graph_of(term, given)
    q = charges_of(case, *given)
    quiet = evaluate(term, *given, charges=q)
    q = None if q is None else torch.tensor(q, requires_grad=True)
    loud = sums.total(term, graph, q)
    assert close(quiet.energy, loud.energy, 1e-12)
    assert close(quiet.forces, loud.forces, 1e-12)
    if q is None:
        assert not loud.forces.requires_grad
        return
    weights = torch.linspace(-1, 1, loud.forces.numel(), dtype=torch.float64).reshape(-1, 3)
    (found,) = torch.autograd.grad((loud.forces * weights).sum() + loud.energy.sum(), q)
    e = []
    for k in STEPS:
        other = q.detach().clone().numpy()
        other[1] += k * 1e-3
        out = evaluate(term, *given, charges=other)
        e.append(float((out.forces * weights).sum() + out.energy.sum()))
    assert abs(float(found[1]) - slope(e, 1e-3)) < 1e-7


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_traced_compiled_and_exported(case):
    """Other sizes come out right from what was recorded on one batch."""
    if case == "pme":
        return  # automatic differentiation of another library: it stays outside
    term, given = term_of(case), structures(case)
    other = [*given, given[0]]
    inputs = []
    for batch in (given, other):
        q = charges_of(case, *batch)
        graph = sums.graph_of(term, batch)
        q = torch.zeros(graph.n_atoms, dtype=torch.float64) if q is None else torch.as_tensor(q)
        inputs.append((q, *graph))
    module = Alone(term)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = module(*inputs[1])
        forms = [torch.compile(module, backend="aot_eager", dynamic=True, fullgraph=True)]
        if term.exportable:
            forms.append(torch.jit.trace(module, inputs[0], check_trace=False))
            axes = tuple({0: torch.export.Dim.AUTO} for _ in inputs[0])
            shapes = (axes[0], axes[1:])
            forms.append(torch.export.export(module, inputs[0], dynamic_shapes=shapes, strict=False).module())
        for form in forms:
            form(*inputs[0])
            for a, b in zip(form(*inputs[1]), expected, strict=True):
                assert close(a, b, 1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["d4", "pme"])
def test_what_cannot_be_exported_says_so(name):
    pytest.importorskip(PACKAGES.get(name, "torch"))
    term, given = term_of(name), [crystal()]
    graph = sums.graph_of(term, given)
    q = torch.zeros(graph.n_atoms, dtype=torch.float64)
    assert not term.exportable
    with pytest.raises(ModelError, match="cannot be exported"):
        torch.jit.trace(Alone(term), (q, *graph), check_trace=False)
    with pytest.raises(ModelError, match="cannot be exported"):
        torch.export.export(Alone(term), (q, *graph), strict=False)


class Alone(torch.nn.Module):
    """A term as a function of tensors."""

    def __init__(self, term):
        super().__init__()
        self.term = term

    def forward(self, charges, *tensors):
        graph = Graph(*tensors)
        geometry = Geometry(graph, graph.pair_vectors(), graph.far_vectors())
        return tuple(t for t in self.term(geometry, charges if self.term.uses_charges else None) if t is not None)


def test_single_precision_follows_double(case):
    given = structures(case)
    q = charges_of(case, *given)
    a = evaluate(term_of(case), *given, charges=q)
    b = evaluate(term_of(case, dtype=torch.float32), *given, charges=q, dtype=torch.float32)
    assert b.forces.dtype == torch.float32
    bound = 2e-5 * float(a.forces.abs().max() + 1.0)
    assert close(a.energy, b.energy, bound)
    assert close(a.forces, b.forces, bound)


def test_lone_atom_is_finite_and_has_no_force(case):
    if case in LATTICE:
        atom = Structure(np.array([11]), np.zeros((1, 3)), np.eye(3) * 12.0, np.ones(3, bool))
    else:
        atom = lone()
    out = evaluate(term_of(case), atom, charges=charges_of(case, atom))
    assert bool(torch.isfinite(out.energy).all())
    assert close(out.forces, torch.zeros(1, 3), 1e-8)


def test_pairs_beyond_the_cutoff_do_nothing(case):
    """The far list is as long as the longest of all terms, the near one as long as the architecture's."""
    term, s = term_of(case), structures(case)[-1]
    q = charges_of(case, s)
    if case == "simple":
        return  # its list holds all pairs already
    graph, wide = sums.graph_of(term, [s]), find_pairs(s, max(term.far_cutoff, 5.0) + 3.0)
    index = lambda a: graph.inverse[torch.as_tensor(a).long()]  # noqa: E731
    shift = torch.as_tensor(wide.shift @ s.cell)
    longer = graph._replace(far_first=index(wide.first), far_second=index(wide.second), far_shift=shift)
    assert len(longer.far_first) > len(graph.far_first)
    order = None if q is None else torch.as_tensor(q)[graph.order]
    run = lambda g: term(Geometry(g, g.pair_vectors(), g.far_vectors()), order)  # noqa: E731
    assert close(run(graph).energies, run(longer).energies)
