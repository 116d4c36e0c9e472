import pickle
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.io.formats import ioformats

from forgefield.core.errors import DataError
from forgefield.core.units import factor
from forgefield.data.ase_kinds import SAFE
from forgefield.data.dataset import detect_format, open_dataset
from forgefield.data.label_names import LabelKeys
from forgefield.data.unit_expressions import find_unit

HERE = Path(__file__).parent / "ase_files"
CRYSTAL = Atoms("Si2", [[0, 0, 0], [1.3, 1.4, 1.5]], cell=[4, 5, 6], pbc=True)


def test_a_trajectory_with_results_constraints_and_tags():
    images = ase.io.read(HERE / "silicon.traj", ":")
    dataset = open_dataset(HERE / "silicon.traj")
    for structure, atoms in zip(dataset, images, strict=True):
        np.testing.assert_array_equal(structure.positions, atoms.positions)
        np.testing.assert_array_equal(structure.labels["forces"], atoms.get_forces(apply_constraint=False))
        np.testing.assert_array_equal(structure.labels["stress"], atoms.get_stress(voigt=False))
        assert float(structure.labels["energy"]) == atoms.get_potential_energy()
    assert np.flatnonzero(dataset[1].fixed).tolist() == [0, 2]
    assert dataset[1].tags.tolist() == [1] * len(dataset[1])
    free = open_dataset(HERE / "silicon.traj", keys=LabelKeys(energy="free_energy"))
    assert float(free[0].labels["energy"]) == images[0].calc.results["free_energy"]


def test_vasp_in_ase_signs():
    xml, traj = open_dataset(HERE / "vasprun.xml"), open_dataset(HERE / "silicon.traj")
    for one, other in ((xml[0], traj[0]), (xml[1], traj[2])):
        np.testing.assert_allclose(one.labels["stress"], other.labels["stress"], atol=1e-8)
        np.testing.assert_allclose(one.labels["forces"], other.labels["forces"], atol=1e-7)
        assert float(one.labels["energy"]) == pytest.approx(float(other.labels["energy"]), abs=1e-7)
    assert any("free energies" in note for note in xml.notes)


@pytest.mark.parametrize("kind", ["vasp", "vasp-xdatcar", "cif", "proteindatabank", "xsf", "gen", "res"])
def test_structures_of_many_formats(tmp_path, kind):
    path = tmp_path / f"a.{ioformats[kind].extensions[0] if ioformats[kind].extensions else kind}"
    path = tmp_path / "XDATCAR" if kind == "vasp-xdatcar" else path
    images = [CRYSTAL, CRYSTAL] if kind == "vasp-xdatcar" else CRYSTAL
    ase.io.write(path, images, format=kind)
    (first, *_) = open_dataset(path, "ase_files" if kind in ("gen", "res") else "auto")
    assert sorted(first.numbers.tolist()) == [14, 14]
    np.testing.assert_allclose(abs(np.linalg.det(first.cell)), 120, rtol=1e-4)


def test_formats_that_could_run_something_are_refused(tmp_path):
    (tmp_path / "a.py").write_text("raise SystemExit('it ran')\n")
    (tmp_path / "a.gpw").write_bytes(b"- of UlmGPAW" + bytes(50))
    (tmp_path / "a.traj").write_bytes(pickle.dumps({"positions": [1]}))
    for path in tmp_path.iterdir():
        with pytest.raises(DataError):
            open_dataset(path, "ase_files")
    dangerous = {
        "py",
        "db",
        "json",
        "gpw",
        "bundletrajectory",
        "postgresql",
        "mysql",
        "netcdftrajectory",
        "lammps-data",
    }
    assert not SAFE & dangerous
    assert set(ioformats) >= SAFE


def test_readers_of_safe_formats_hold_no_pickle_and_no_eval():
    import importlib

    for kind in SAFE:
        source = Path(importlib.import_module(ioformats[kind].module_name).__file__).read_text()
        for word in ("pickle.load", "eval(", "exec(", "subprocess.", "os.system"):
            found = source.replace("add_eval(", "").replace("_eval(", "")
            assert word not in found, f"{kind}: {word}"


def test_dumps_of_lammps_need_elements(tmp_path):
    head = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 5\n0 5\n0 5\n"
    (tmp_path / "types").write_text(head + "ITEM: ATOMS id type x y z\n1 1 0 0 0\n")
    with pytest.raises(DataError, match="no elements"):
        open_dataset(tmp_path / "types")
    (tmp_path / "named").write_text(head + "ITEM: ATOMS id element x y z\n1 Si 0 0 0\n")
    assert open_dataset(tmp_path / "named")[0].numbers.tolist() == [14]


def test_a_calculation_that_was_cut_off(tmp_path):
    text = (HERE / "vasprun.xml").read_text()
    (tmp_path / "vasprun.xml").write_text(text[: text.rindex("<calculation>") + 400])
    with pytest.raises(DataError, match="has no end"):
        open_dataset(tmp_path / "vasprun.xml")


def test_an_at_sign_in_a_name_is_no_index(tmp_path):
    ase.io.write(tmp_path / "POSCAR", CRYSTAL, format="vasp")
    (tmp_path / "POSCAR").rename(tmp_path / "si@0")
    assert detect_format(tmp_path / "si@0") == "ase_files"
    assert len(open_dataset(tmp_path / "si@0")) == 1


@pytest.mark.parametrize(
    ("quantity", "text", "name"),
    [
        ("energy", "Hartree", "Ha"),
        ("energy", "AU", "Ha"),
        ("energy", "kcal/mol", "kcal/mol"),
        ("energy", "kJ/mol", "kJ/mol"),
        ("length", "a0", "bohr"),
        ("length", "Angstrom", "Ang"),
        ("forces", "kcal/(mol*Ang)", "kcal/mol/Ang"),
        ("forces", "AU", "Ha/bohr"),
        ("stress", "Ha/Bohr^3", "Ha/bohr^3"),
        ("stress", "GPa", "GPa"),
        ("dipole", "D", "Debye"),
        ("dipole", "e*Bohr", "e*bohr"),
        ("polarizability", "a0^3", "bohr^3"),
        ("energy", "GHz", None),
        ("energy", "Ang", None),
        ("energy", "cal/mol/K", None),
        ("energy", "9**9**9**9", None),
        ("energy", "(-1)**0.5", None),
        ("energy", "__import__('os')", None),
        ("energy", "(" * 5000, None),
        ("energy", "", None),
    ],
)
def test_units_as_files_write_them(quantity, text, name):
    assert find_unit(quantity, text) == name
    assert name is None or factor(quantity, name) > 0
