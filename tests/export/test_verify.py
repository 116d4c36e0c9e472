"""Verification lets equal things pass and stops the others."""

import numpy as np
import pytest
import torch

from forgefield.core.errors import ModelError
from forgefield.export.physics import check_physics
from forgefield.export.prediction import predict
from forgefield.export.probes import bare, probes
from forgefield.export.targets.torchscript import TorchScriptTarget
from forgefield.export.verify import Tolerances, verify
from forgefield.graph.pairs import find_pairs
from forgefield.models.potential import Outputs, Potential


@pytest.fixture(scope="module")
def structures(make_atoms, as_structure):
    return [as_structure(make_atoms(kind)) for kind in ("ethanol", "triclinic")]


def test_the_model_agrees_with_itself(potential, structures):
    certificate = verify(lambda s: predict(potential, [s])[0], potential, structures)
    assert (certificate.n_structures, certificate.n_atoms) == (2, 11)
    assert certificate.max_energy_error == certificate.max_forces_error == certificate.max_stress_error == 0
    assert certificate.dtype == "float64"
    assert certificate.torch == torch.__version__


LIES = {
    "energy": lambda p: p._replace(energy=p.energy + 1e-7),
    "forces": lambda p: p._replace(forces=p.forces + 1e-8 * np.eye(*p.forces.shape)),
    "stress": lambda p: p._replace(stress=p.stress.T + 1e-8 * np.tri(3)),
    "energy of atoms": lambda p: p._replace(atom_energies=p.atom_energies[::-1]),
    "forces NaN": lambda p: p._replace(forces=p.forces * np.nan),
    "energy NaN": lambda p: p._replace(energy=float("nan")),
    "shapes": lambda p: p._replace(forces=p.forces[:1]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_deviation_is_refused(lie, potential, structures):
    with pytest.raises(ModelError, match=lie.split()[0]) as caught:
        verify(lambda s: LIES[lie](predict(potential, [s])[0]), potential, structures, name="liar.pt")
    assert "liar.pt" in str(caught.value) or lie == "shapes"


def test_float32_tolerances_know_the_self_energies(make_potential, structures):
    """Self-energies of -1000 eV must not hide an error of 1 meV per atom."""
    single = make_potential(torch.float32)
    wide = Tolerances.of(torch.float32)
    assert verify(lambda s: predict(single, [s])[0], single, structures).tolerances == wide

    def off(structure):
        found = predict(single, [structure])[0]
        return found._replace(energy=found.energy + 1e-3 * len(structure))

    with pytest.raises(ModelError, match="energy"):
        verify(off, single, structures)


def test_needs_structures(potential):
    with pytest.raises(ModelError, match="no structure"):
        verify(lambda s: predict(potential, [s])[0], potential, [])
    with pytest.raises(ModelError, match="no structure"):
        check_physics(potential, [])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_physics_of_a_good_model(dtype, make_potential, structures):
    potential = make_potential(dtype)
    report = check_physics(potential, structures)
    limit = 1e-7 if dtype == torch.float64 else 1e-6
    assert report.n_structures == 2
    assert 0 < report.forces_finite_difference < limit
    assert 0 < report.stress_finite_difference < limit
    assert report.rotation_energy < limit
    assert report.rotation_forces < limit
    assert potential.dtype == dtype
    molecule = check_physics(potential, structures[:1])
    assert molecule.stress_finite_difference is None


class Wrong(Potential):
    """A potential that breaks one law."""

    law = ""

    def forward(self, graph):
        e, f, s, a = super().forward(graph)[:4]
        if self.law == "forces":
            f = f * 1.001
        elif self.law == "stress":
            s = s * 1.001
        elif self.law == "rotation":  # energy and forces of a field along x: consistent, not invariant
            owner = graph.structure[graph.inverse]
            x = graph.positions[graph.inverse][:, 0]
            e, a = e.index_add(0, owner, 0.01 * x.double()), a + 0.01 * x
            f = f - 0.01 * torch.tensor([1.0, 0, 0], dtype=f.dtype)
        return Outputs(e, f, s, a)


@pytest.mark.parametrize("law", ["forces", "stress", "rotation"])
def test_broken_physics_is_refused(law, make_potential, structures):
    potential = make_potential()
    potential.__class__ = type(law, (Wrong,), {"law": law})
    chosen = structures[:1] if law == "rotation" else structures
    with pytest.raises(ModelError, match=law):
        check_physics(potential, chosen)


class Frozen(Potential):
    """A potential that bakes a size into its trace."""

    def forward(self, graph):
        e, f, s, a = super().forward(graph)[:4]
        return Outputs(e + 1e-3 * float(graph.positions.shape[0]), f, s, a)


def test_a_size_frozen_into_the_file_is_found(make_potential, structures, tmp_path):
    potential = make_potential()
    potential.__class__ = Frozen
    target = TorchScriptTarget()
    target.write(potential, tmp_path / "m.pt", structures[0])
    candidate = target.read(tmp_path / "m.pt")
    verify(candidate, potential, structures[:1], Tolerances(1e-2, 1e-9, 1e-9, 0.0))
    made = probes(structures[:1], potential.elements, potential.heads, potential.cutoff)
    with pytest.raises(ModelError, match="energy: deviates"):
        verify(candidate, potential, made)


def test_probes_differ_from_the_sample(structures):
    made = probes(structures, [1, 6, 8, 14], ["a", "b"], 4.0)
    pairs = [len(find_pairs(s, 4.0).first) for s in made]
    assert len({len(s) for s in made}) >= 3
    assert 0 in pairs
    assert any(n > len(s) and s.pbc.all() for n, s in zip(pairs, made, strict=True))
    assert any(s.head == "b" for s in made)
    assert any(set(s.numbers) < set(structures[0].numbers) for s in made)


def test_bare_drops_labels_and_foreign_heads(structures):
    molecule = structures[0]
    labelled = type(molecule)(
        molecule.numbers, molecule.positions, labels={"energy": np.array(1.0)}, head="elsewhere", origin="f: 3"
    )
    plain = bare(labelled, ["a", "b"])
    assert plain.head == "a"
    assert not plain.labels
    assert plain.origin == "f: 3"
