"""What every architecture must satisfy; a new file in the folder is tested the moment it exists."""

import numpy as np
import pytest
import torch

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.graph.pairs import Pairs, find_pairs
from forgefield.models.bundle import load_bundle, save_bundle
from forgefield.models.potential import ARCHITECTURES, build_potential

SMALL = {
    "mace": {"hidden_irreps": "4x0e + 4x1o", "max_ell": 2, "radial_mlp": [8, 8], "r_max": 4.0},
    "aimnet2": {
        "aev": {"rc_s": 4.0, "nshifts_s": 6},
        "nfeature": 3,
        "ncomb_v": 4,
        "hidden": [[10], [12], [11]],
        "aim_size": 9,
        "energy_hidden": [8],
        "num_charge_channels": 2,
    },
    "alignn": {
        "cutoff": 4.0,
        "hidden_features": 8,
        "embedding_features": 8,
        "edge_input_features": 12,
        "triplet_input_features": 7,
    },
    "xpainn": {
        "node_dim": 8,
        "node_irreps": "6x0e + 5x1o + 3x2e",
        "num_basis": 6,
        "cutoff": 4.0,
        "hidden_dim": 7,
    },
}
ELEMENTS = [1, 6, 8, 14]
ENERGIES = {h: {1: -13.6, 6: -1029.0, 8: -2041.0, 14: -7000.0} for h in ("default", "low")}
EXACT = 1e-9
BACKENDS = [*ARCHITECTURES.names(), "energy_toy"]  # the last stands for all that write the energy only


@pytest.fixture(params=BACKENDS, scope="module")
def potential(request):
    return make(request.param)


def make(backend, dtype=torch.float64, heads=("default", "low")):
    settings = ARCHITECTURES.entry(backend).settings.model_validate(SMALL.get(backend, {}))
    return build_potential(
        backend,
        settings,
        elements=ELEMENTS,
        heads=heads,
        reference_energies=ENERGIES,
        avg_num_neighbors=8.0,
        scale=[1.3, 0.7],
        shift=[0.1, -0.2],
        dtype=dtype,
        seed=3,
    )


def atoms(numbers, *parts, **more):
    """A closed shell, with a charge where the number of electrons asks for it."""
    return Structure(numbers, *parts, charge=int(numbers.sum()) % 2, multiplicity=1, **more)


def molecule(seed=0, n=7, **more):
    rng = np.random.default_rng(seed)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)])[:n] * 1.3
    return atoms(rng.choice([1, 6, 8], n), grid + rng.normal(0, 0.15, (n, 3)), **more)


def crystal(**more):
    """A triclinic cell with edges shorter than the cutoff: atoms see images of themselves."""
    cell = np.array([[2.9, 0.0, 0.0], [0.7, 3.1, 0.0], [-0.4, 0.5, 3.3]])
    positions = np.array([[0.1, 0.0, 0.2], [1.6, 1.4, 1.8]])
    return atoms(np.array([14, 8]), positions, cell, np.ones(3, bool), **more)


def lone():
    return atoms(np.array([6]), np.zeros((1, 3)))


def predict(potential, *structures, pairs=None):
    graph = build_graph(structures, potential.needs, heads=potential.heads, dtype=potential.dtype, pairs=pairs)
    with torch.no_grad():
        return potential(graph)


def close(a, b, tolerance=EXACT):
    return bool((a - b).abs().max() < tolerance)


def test_rotation_and_reflection(potential):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    for matrix in (rotation, -rotation):
        s = crystal()
        turned = atoms(s.numbers, s.positions @ matrix.T, s.cell @ matrix.T, s.pbc)
        a, b = predict(potential, s), predict(potential, turned)
        m = torch.as_tensor(matrix)
        assert close(a.energy, b.energy)
        assert close(a.forces @ m.T, b.forces)
        assert close(m @ a.stress @ m.T, b.stress)


def test_translation_and_images(potential):
    s = crystal()
    shifted = s.positions + np.array([0.3, -4.0, 9.1])
    shifted[0] += s.cell[2] - 2 * s.cell[0]
    a, b = predict(potential, s), predict(potential, atoms(s.numbers, shifted, s.cell, s.pbc))
    assert close(a.energy, b.energy)
    assert close(a.forces, b.forces)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_forces_do_not_depend_on_the_distance_from_the_origin(backend):
    """By 1000 Å float32 positions have steps of 6e-5 Å: subtracting them would change forces by far more than here."""
    single, box = make(backend, torch.float32), np.diag([2.9, 3.1, 40.0])
    slab = atoms(np.array([14, 8]), crystal().positions, box, np.array([True, True, False]))
    here = [molecule(), crystal(), slab]
    moves = np.array([[1000.0, -1000.0, 1000.0], [0.0, 1000.0, 0.0], [-1000.0, 0.0, 2000.0]])
    away = [atoms(s.numbers, s.positions + m, s.cell, s.pbc) for s, m in zip(here, moves, strict=True)]
    a, b = predict(single, *here), predict(single, *away)
    assert b.forces.dtype == torch.float32
    assert close(a.forces, b.forces, 1e-6 * float(a.forces.abs().max()))
    assert close(a.stress, b.stress, 1e-6 * float(a.stress.abs().max()))
    assert close(a.energy, b.energy, 1e-5)


def test_permutation(potential):
    s, order = molecule(), np.random.default_rng(2).permutation(7)
    a, b = predict(potential, s), predict(potential, atoms(s.numbers[order], s.positions[order]))
    assert close(a.energy, b.energy)
    assert close(a.forces[order.tolist()], b.forces)
    assert close(a.atom_energies[order.tolist()], b.atom_energies)


def test_batch_equals_singles(potential):
    structures = [molecule(), crystal(head="low"), lone(), molecule(5, n=4)]
    batch = predict(potential, *structures)
    singles = [predict(potential, s) for s in structures]
    assert close(batch.energy, torch.cat([o.energy for o in singles]))
    assert close(batch.forces, torch.cat([o.forces for o in singles]))
    assert close(batch.stress, torch.cat([o.stress for o in singles]))


def test_lone_atom_is_finite_and_has_no_force(potential):
    out = predict(potential, lone())
    assert bool(torch.isfinite(out.energy).all())
    assert close(out.forces, torch.zeros(1, 3))


def test_forces_are_finite_differences(potential):
    step = 1e-4
    for s in (molecule(), crystal()):
        forces = predict(potential, s).forces
        for atom, axis in ((0, 0), (1, 2)):
            energies = []
            for k in (-2, -1, 1, 2):
                moved = s.positions.copy()
                moved[atom, axis] += k * step
                energies.append(float(predict(potential, atoms(s.numbers, moved, s.cell, s.pbc)).energy[0]))
            slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
            assert abs(float(forces[atom, axis]) + slope) < 1e-7


def test_stress_is_finite_strain(potential):
    s, step = crystal(), 1e-4
    stress = predict(potential, s).stress[0]
    for a, b in ((0, 0), (1, 2)):
        energies = []
        for k in (-2, -1, 1, 2):
            strain = np.eye(3)
            strain[a, b] += k * step / 2
            strain[b, a] += k * step / 2
            strained = atoms(s.numbers, s.positions @ strain.T, s.cell @ strain.T, s.pbc)
            energies.append(float(predict(potential, strained).energy[0]))
        slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
        assert abs(float(stress[a, b]) - slope / s.volume) < 1e-8


def test_smooth_at_the_cutoff(potential):
    """An atom that crosses the cutoff changes neither energy nor forces by a jump."""
    found = []
    for gap in (-1e-9, 1e-9):
        positions = np.array([[0.0, 0, 0], [1.1, 0, 0], [np.sqrt(potential.cutoff**2 - 0.04) + gap, 0.2, 0]])
        s = atoms(np.array([8, 1, 1]), positions)
        assert len(find_pairs(s, potential.cutoff).first) == (3 if gap < 0 else 2)
        found.append(predict(potential, s))
    assert close(found[0].energy, found[1].energy)
    assert close(found[0].forces, found[1].forces, 1e-8)


def test_pairs_beyond_the_cutoff_do_nothing(potential):
    s = molecule(n=27)
    wide = find_pairs(s, potential.cutoff + 1.0)
    assert len(wide.first) > len(find_pairs(s, potential.cutoff).first)
    a, b = predict(potential, s), predict(potential, s, pairs=[Pairs(*wide)])
    assert close(a.energy, b.energy)
    assert close(a.forces, b.forces)


def test_single_precision_follows_double():
    for backend in BACKENDS:
        double, single = make(backend), make(backend, torch.float32)
        a, b = predict(double, molecule()), predict(single, molecule())
        assert b.forces.dtype == torch.float32
        assert b.energy.dtype == torch.float64
        assert close(a.energy, b.energy, 1e-4)
        assert close(a.forces, b.forces, 1e-4)


def test_every_parameter_learns(potential):
    """Energy and forces together give every parameter a gradient, by one ordinary backward."""
    structures = [molecule(), crystal(head="low"), molecule(3, head="low"), crystal()]
    graph = build_graph(structures, potential.needs, heads=potential.heads, dtype=potential.dtype)
    potential.zero_grad()
    out = potential(graph)
    (out.energy.sum() + (out.forces**2).sum() + (out.stress**2).sum()).backward()
    dead = [n for n, p in potential.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert dead == []


def test_parameter_gradients_are_finite_differences(potential):
    """The derivative of a force loss by the weights goes through the written adjoint."""
    graph = build_graph([molecule()], potential.needs, heads=potential.heads, dtype=potential.dtype)
    weights = torch.linspace(-1, 1, graph.n_atoms * 3, dtype=torch.float64).reshape(-1, 3)
    loss = lambda: (potential(graph).forces * weights).sum()  # noqa: E731
    potential.zero_grad()
    loss().backward()
    step = 1e-5
    for name, parameter in potential.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad  # shifts move no force
        index = int(gradient.abs().argmax())
        flat = parameter.data.view(-1)
        with torch.no_grad():
            start = float(flat[index])
            flat[index] = start + step
            up = float(loss())
            flat[index] = start - step
            down = float(loss())
            flat[index] = start
        slope = (up - down) / (2 * step)
        wanted = float(gradient.view(-1)[index])
        assert abs(slope - wanted) < 1e-6 * max(1.0, abs(wanted)), name


def test_save_and_load_is_bit_equal(potential, tmp_path):
    save_bundle(potential, tmp_path, provenance={"made_by": "test"})
    again = load_bundle(tmp_path)
    a, b = predict(potential, molecule(), crystal()), predict(again, molecule(), crystal())
    assert torch.equal(a.energy, b.energy)
    assert torch.equal(a.forces, b.forces)
    assert torch.equal(a.stress, b.stress)


def test_unknown_element_is_named(potential):
    with pytest.raises(ModelError, match="does not know Au"):
        predict(potential, atoms(np.array([79]), np.zeros((1, 3))))


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    for backend in BACKENDS:
        make(backend)
    assert torch.equal(before, torch.get_rng_state())
