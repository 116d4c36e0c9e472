"""The dictionary interface: dense batches of molecules, charges, padding, dispersion inside, the meta file."""

import json

import numpy as np
import pytest
import torch
from ase.build import molecule
from ruamel.yaml import YAML

from forgefield.app.blocks import ExportSettings
from forgefield.app.tasks.steps.levels import handed_out
from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.export.artifact import export_artifacts
from forgefield.export.prediction import predict
from forgefield.export.targets.torchscript import quiet
from forgefield.models.potential import ARCHITECTURES, build_potential

SMALL = {"aev": {"rc_s": 4.0, "nshifts_s": 6}, "nfeature": 3, "ncomb_v": 4, "hidden": [[10], [12], [11]], "aim_size": 9,
         "energy_hidden": [8], "num_charge_channels": 2}  # fmt: skip
NAMES = ("CH3CH2OH", "H2O", "CH4")
ENERGIES = {h: {1: -13.6, 6: -1029.0, 8: -2041.0} for h in ("pbe", "high")}


def make(heads=("pbe", "high")):
    return build_potential(
        "aimnet2", ARCHITECTURES.entry("aimnet2").settings.model_validate(SMALL), elements=[1, 6, 8], heads=heads,
        reference_energies=ENERGIES, avg_num_neighbors=8.0, dtype=torch.float64, seed=1,
        dispersion={"pbe": "absent", "high": "included"},
    )  # fmt: skip


def structures(head=None, charges=(0, 0, 0), spins=(1, 1, 1)):
    made = []
    for name, charge, spin in zip(NAMES, charges, spins, strict=True):
        atoms = molecule(name)
        made.append(Structure(atoms.numbers, atoms.positions, head=head, charge=charge, multiplicity=spin))
    return made


def exported(potential, folder):
    export_artifacts(potential, folder, targets=["aimnet_jit"], provenance={}, sample=structures(potential.heads[0]))
    with quiet():
        return torch.jit.load(str(folder / "model.jpt"))


@pytest.fixture(scope="module")
def level(tmp_path_factory):
    (one,) = handed_out(make(), ExportSettings(fidelity="pbe"))
    folder = tmp_path_factory.mktemp("pbe") / "artifacts"
    return one.potential, exported(one.potential, folder), folder


def dense(given):
    n = max(len(s) for s in given)
    coord, numbers = np.zeros((len(given), n, 3)), np.zeros((len(given), n), int)
    for k, s in enumerate(given):
        coord[k, : len(s)], numbers[k, : len(s)] = s.positions, s.numbers
    charge, mult = (torch.tensor([float(getattr(s, name)) for s in given]) for name in ("charge", "multiplicity"))
    return {"coord": torch.tensor(coord), "numbers": torch.tensor(numbers), "charge": charge, "mult": mult}


def test_a_dense_batch_equals_the_molecules(level):
    potential, module, _ = level
    given = structures("pbe", (1, 0, -1), (2, 1, 2))
    found = module(dense(given))
    assert set(found) >= {"energy", "forces", "atom_energies", "charges", "spin_charges"}
    for k, structure in enumerate(given):
        (wanted,) = predict(potential, [structure])
        n = len(structure)
        assert float(found["energy"][k]) == pytest.approx(wanted.energy, abs=1e-9)
        assert np.abs(found["forces"][k, :n].numpy() - wanted.forces).max() < 1e-10
        assert float(found["charges"][k].sum()) == pytest.approx(
            structure.charge, abs=1e-3
        )  # E.3 divides by the sum + 1e-6
        assert float(found["spin_charges"][k].sum()) == pytest.approx(
            structure.multiplicity - 1, abs=1e-3
        )  # E.3 divides by the sum + 1e-6
        for name in ("forces", "charges", "spin_charges", "atom_energies"):
            assert float(found[name][k, n:].abs().sum()) == 0.0
    one = dense(given[:1])
    alone = module(
        {"coord": one["coord"][0], "numbers": one["numbers"][0], "charge": one["charge"], "mult": one["mult"]}
    )
    assert torch.allclose(alone["energy"], found["energy"][:1], atol=1e-10)


def test_what_is_wrong_is_said(level):
    _, module, _ = level
    given = dense(structures())
    for wrong, says in (
        ({"chrage": given["charge"]}, "unknown input chrage"),
        ({"charge": given["charge"][:2]}, "charge has 2 numbers for 3 molecules"),
    ):
        with pytest.raises((RuntimeError, torch.jit.Error), match=says):
            module({**given, **wrong})
    del given["mult"]
    with pytest.raises((RuntimeError, torch.jit.Error), match="needs the input mult"):
        module(given)


def test_dispersion_is_inside_and_told(level, tmp_path):
    bare, module, folder = level
    (one,) = handed_out(make(), ExportSettings(fidelity="pbe", dispersion="pbe"))
    with_d3 = exported(one.potential, tmp_path / "d3")
    given = dense(structures())
    gained = with_d3(given)["energy"] - module(given)["energy"]
    term = one.potential.physics["d3"]
    for k, structure in enumerate(structures("pbe")):
        a, b = (predict(p, [structure])[0].energy for p in (one.potential, bare))
        assert float(gained[k]) == pytest.approx(a - b, abs=1e-9)
        assert gained[k] < 0
    assert float(term.scale[0]) == 1.0
    meta = YAML(typ="safe").load((tmp_path / "d3" / "model_meta.yaml").read_text())
    assert meta["dispersion"]["type"] == "d3bj"
    assert meta["dispersion"]["functional"] == "pbe"
    assert meta["dispersion"]["embedded"] is True
    plain = YAML(typ="safe").load((folder / "model_meta.yaml").read_text())
    assert plain["dispersion"] == {"type": "none", "embedded": False}
    assert plain["sae"] == {1: -13.6, 6: -1029.0, 8: -2041.0}
    assert (plain["fidelity_name"], plain["num_fidelities"]) == ("pbe", 1)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert files["aimnet_jit_model_meta"]["path"] == "model_meta.yaml"


def test_several_levels_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"one level of theory, not pbe, high.*export\.fidelity"):
        export_artifacts(make(), tmp_path / "a", targets=["aimnet_jit"], provenance={}, sample=structures("pbe"))
    assert not (tmp_path / "a").exists()
