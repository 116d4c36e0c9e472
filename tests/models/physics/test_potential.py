"""Physics terms in a potential: bundles, what is refused, what is exported."""

import json

import numpy as np
import pytest
import torch
from physics_sums import crystal, make, molecule

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.export.artifact import TARGETS, export_artifacts
from forgefield.export.target import METADATA, directed_edges
from forgefield.graph.build import build_graph
from forgefield.models.bundle import load_bundle, save_bundle
from forgefield.models.physics.coulomb import ewald
from forgefield.models.potential import ARCHITECTURES, PHYSICS, build_potential

ELEMENTS = [1, 6, 8, 11, 14, 17]
CHARGES = {"H": 0.2, "C": 0, "O": -0.4, "Na": 0.8, "Si": 0.3, "Cl": -0.7}
SMALL = {"hidden_irreps": "2x0e", "max_ell": 1, "radial_mlp": [4], "r_max": 4.0, "correlation": 1}


def potential_with(dtype=torch.float64, **terms):
    return build_potential(
        "mace",
        ARCHITECTURES.entry("mace").settings.model_validate(SMALL),
        elements=ELEMENTS,
        reference_energies={"default": dict.fromkeys(ELEMENTS, -1.0)},
        avg_num_neighbors=8.0,
        physics={name: PHYSICS.entry(name).settings.model_validate(v) for name, v in terms.items()},
        dtype=dtype,
    )


def predict(potential, *structures):
    with torch.no_grad():
        return potential(build_graph(structures, potential.needs, dtype=potential.dtype))


EWALD = {"method": "ewald", "charges": CHARGES}


def test_a_bundle_gives_the_same(tmp_path):
    potential = potential_with(
        d3={"functional": "pbe"}, coulomb=EWALD, zbl={"form": "lammps", "inner": 1.0, "outer": 2}
    )
    save_bundle(potential, tmp_path / "bundle", provenance={})
    again = load_bundle(tmp_path / "bundle", dtype=torch.float64)
    a, b = predict(potential, crystal()), predict(again, crystal())
    assert torch.equal(a.energy, b.energy)
    assert torch.equal(a.forces, b.forces)
    plain = predict(potential_with(), crystal())
    assert float((a.stress - plain.stress).abs().max()) > 1e-3


def test_pairs_must_reach():
    with pytest.raises(ModelError, match=r"reaches to 4\.5 Å, the architecture to 4 Å"):
        potential_with(zbl={"form": "lammps", "inner": 1.0, "outer": 4.5})


def test_a_mesh_is_handed_out_without_files(tmp_path):
    pytest.importorskip("torchpme")
    potential = potential_with(coulomb={**EWALD, "method": "pme"})
    assert potential.unexportable == ["coulomb"]
    with pytest.raises(ModelError, match="cannot be in a file of torchscript"):
        export_artifacts(potential, tmp_path / "a", provenance={}, sample=[crystal()])
    with pytest.raises(ModelError, match="no structure of the sample"):
        export_artifacts(potential, tmp_path / "a", targets=(), provenance={}, sample=[molecule()])
    export_artifacts(potential, tmp_path / "a", targets=(), provenance={}, sample=[crystal(), molecule()])
    assert (tmp_path / "a" / "manifest.json").is_file()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_all_pairs_of_molecules_are_exported(tmp_path):
    potential = potential_with(coulomb={"method": "simple", "charges": CHARGES}, d3={"functional": "pbe"})
    assert potential.takes([False] * 3)
    assert not potential.takes([True] * 3)
    made = export_artifacts(potential, tmp_path / "a", provenance={}, sample=[molecule(), molecule(3)])
    file, one = torch.jit.load(str(made.path("torchscript"))), molecule()
    tensors = [torch.from_numpy(a) for a in (one.positions, one.numbers, 20.0 * np.eye(3), *directed_edges(one, 99.0))]
    with pytest.raises(torch.jit.Error, match="this model is for molecules"):
        file(*tensors)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_lattice_sum_is_exported_for_cells_of_any_size(tmp_path):
    """The file finds its waves by itself; molecules, which have no lattice, are refused."""
    potential = potential_with(coulomb=EWALD, d3={"functional": "pbe"})
    made = export_artifacts(potential, tmp_path / "a", provenance={}, sample=[crystal(), molecule()])
    file, target = made.path("torchscript"), TARGETS.entry("torchscript").build()
    torch.jit.load(str(file), _extra_files=(about := {METADATA: ""}))
    assert json.loads(about[METADATA])["device"] == "any"
    small = crystal()
    grid = np.array([[i, j, 0] for i in range(3) for j in range(2)]) @ small.cell
    positions = (small.positions[None] + grid[:, None]).reshape(-1, 3)
    numbers, cell = np.tile(small.numbers, 6), small.cell * np.array([[3.0], [2.0], [1.0]])
    large = Structure(numbers, positions + 0.05 * np.sin(np.arange(54.0).reshape(-1, 3)), cell, np.ones(3, bool))
    for structure in (small, large):
        found, expected = target.read(file)(structure), predict(potential, structure)
        assert found.energy == pytest.approx(float(expected.energy[0]), abs=1e-9)
        assert np.abs(found.forces - expected.forces.numpy()).max() < 1e-10
        assert np.abs(found.stress - expected.stress[0].numpy()).max() < 1e-10
    with pytest.raises(torch.jit.Error, match="this model is for crystals"):
        target.read(file)(molecule())


def test_many_waves_are_summed_in_parts(monkeypatch):
    potential = potential_with(coulomb=EWALD)
    whole = predict(potential, crystal(), crystal(9))
    monkeypatch.setattr(ewald, "LARGEST", 100)
    parts = predict(potential, crystal(), crystal(9))
    for a, b in zip(whole[:4], parts[:4], strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11)


def test_what_a_term_is_for():
    assert make("coulomb", {"method": "dsf"}).periodic is None
    assert make("coulomb", {"method": "simple"}).periodic is False
    assert make("coulomb", {"method": "ewald"}).periodic is True
