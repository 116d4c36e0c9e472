import json
import sqlite3
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian

from forgefield.core.errors import DataError
from forgefield.core.units import HARTREE
from forgefield.data.dataset import open_dataset, open_frames
from forgefield.data.label_names import LabelKeys, TargetKey
from forgefield.data.label_units import LabelUnits

HERE = Path(__file__).parent
OXIDES, QM9 = HERE / "ase_db" / "oxides.db", HERE / "schnetpack" / "qm9.db"


def water(shift=0.0, **results):
    atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, shift], [-0.24, 0.93, 0]])
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def database(path, rows):
    with ase.db.connect(path, use_lock_file=False) as db:
        for atoms, pairs, data in rows:
            db.write(atoms, key_value_pairs=pairs, data=data)
    return path


def selected(path, select):
    return open_frames(Path(path), "auto", LabelKeys(), LabelUnits(), select)


def test_rows_agree_with_ase():
    rows = ase.db.connect(OXIDES)
    for structure, row in zip(open_dataset(OXIDES), rows.select(), strict=True):
        atoms = row.toatoms()
        np.testing.assert_array_equal(structure.positions, atoms.positions)
        np.testing.assert_array_equal(structure.cell, atoms.cell)
        np.testing.assert_array_equal(structure.labels["forces"], atoms.get_forces())
        assert float(structure.labels["energy"]) == atoms.get_potential_energy()
        assert structure.tags.tolist() == atoms.get_tags().tolist()
        assert structure.info["status"] == row.status


@pytest.mark.parametrize("select", ["status=completed", "natoms<10", "source_id>=60,status=failed", "Sn", "id<3"])
def test_selection_is_that_of_ase(select):
    expected = [row.id for row in ase.db.connect(OXIDES).select(select)]
    frames = selected(OXIDES, select)
    assert [frames[k].origin for k in range(len(frames))] == [f"oxides.db: row {k}" for k in expected]


def test_a_selection_that_matches_nothing_shows_what_there_is():
    with pytest.raises(DataError, match=r"no row matches.*status=completed \(4\), status=failed \(2\)"):
        selected(OXIDES, "status=done")


def test_a_selection_that_is_nonsense():
    with pytest.raises(DataError, match="cannot be understood"):
        selected(OXIDES, "natoms=many")


def test_the_mask_of_forces_in_data_is_told_and_can_be_used():
    assert any("force_mask" in note for note in open_dataset(OXIDES).notes)
    masked = open_dataset(OXIDES, keys=LabelKeys(force_mask="force_mask"))
    assert masked[1].force_mask.tolist() == [k % 2 == 0 for k in range(6)]
    assert masked[0].force_mask is None


def test_nothing_is_written(tmp_path):
    path = database(tmp_path / "a.db", [(water(energy=-1.0), {}, {})])
    before = path.read_bytes(), sorted(p.name for p in tmp_path.iterdir())
    list(open_dataset(path))
    assert (path.read_bytes(), sorted(p.name for p in tmp_path.iterdir())) == before


def test_constraints_tags_and_labels_of_every_place(tmp_path):
    fixed = water(energy=-1.0, forces=np.ones((3, 3)), dipole=[0.1, 0.2, 0.3], magmoms=[1.0, 0.0, -1.0])
    fixed.set_constraint([FixAtoms([1]), FixCartesian([2]), FixCartesian([0], mask=[True, False, False])])
    fixed.set_tags([2, 1, 0])
    kept = water()
    rows = [(fixed, {"gap": 1.5}, {"note": "x"}), (kept, {}, {"energy": -2.0, "forces": np.full((3, 3), 2.0)})]
    keys = LabelKeys(dipole="dipole", spin_charges="magmoms", targets={"gap": TargetKey(key="gap", per="structure")})
    one, two = open_dataset(database(tmp_path / "a.db", rows), keys=keys)
    assert one.fixed.tolist() == [False, True, True]
    assert one.tags.tolist() == [2, 1, 0]
    assert one.labels["gap"] == 1.5
    np.testing.assert_array_equal(one.labels["dipole"], [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(one.labels["spin_charges"], [1.0, 0.0, -1.0])
    assert one.info["note"] == "x"
    assert float(two.labels["energy"]) == -2.0
    np.testing.assert_array_equal(two.labels["forces"], np.full((3, 3), 2.0))


def test_a_stress_of_three_atoms_in_data_is_a_stress(tmp_path):
    atoms = water(energy=-1.0)
    atoms.set_cell([9, 9, 9])
    stress = np.diag([1.0, 2.0, 3.0])
    (one,) = open_dataset(database(tmp_path / "a.db", [(atoms, {}, {"stress": stress})]))
    np.testing.assert_array_equal(one.labels["stress"], stress)


def test_data_that_contradict_the_row_do_not_replace_it(tmp_path):
    path = database(tmp_path / "a.db", [(water(energy=-1.0), {}, {"energy": -5.0})])
    assert float(open_dataset(path)[0].labels["energy"]) == -1.0
    assert float(open_dataset(path, keys=LabelKeys(energy="data.energy"))[0].labels["energy"]) == -5.0


def test_a_free_energy_beside_the_energy_is_told(tmp_path):
    path = database(tmp_path / "a.db", [(water(energy=-1.0, free_energy=-1.2), {}, {})])
    dataset = open_dataset(path)
    assert float(dataset[0].labels["energy"]) == -1.0
    assert "free energies" in dataset.notes[0]
    assert float(open_dataset(path, keys=LabelKeys(energy="free_energy"))[0].labels["energy"]) == -1.2


def test_units_of_schnetpack_are_declared_by_the_file():
    plain = open_dataset(QM9)
    assert not plain[0].labels
    assert any("energy_U0" in note for note in plain.notes)
    keys = LabelKeys(energy="energy_U0", targets={"gap": TargetKey(key="gap", per="structure")})
    dataset = open_dataset(QM9, keys=keys)
    stored = ase.db.connect(QM9).get(1).data
    assert float(dataset[0].labels["energy"]) == pytest.approx(float(stored["energy_U0"][0]) * HARTREE, rel=1e-14)
    assert float(dataset[0].labels["gap"]) == float(stored["gap"][0])
    assert any("energy Ha" in note for note in dataset.notes)
    own = open_dataset(QM9, keys=keys, units=LabelUnits(energy="eV"))
    assert float(own[0].labels["energy"]) == float(stored["energy_U0"][0])
    assert any("declares 'Ha'" in note for note in own.notes)


def test_an_unknown_unit_of_a_label_is_refused(tmp_path):
    path = tmp_path / "a.db"
    database(path, [(water(), {}, {"energy": np.array([1.0])})])
    ase.db.connect(path).metadata = {"_property_unit_dict": {"energy": "furlong"}, "_distance_unit": "Ang"}
    with pytest.raises(DataError, match=r"'furlong' for energy.*energy_unit"):
        open_dataset(path)


def test_other_databases_are_told_apart(tmp_path):
    path = tmp_path / "a.db"
    sqlite3.connect(path).execute("CREATE TABLE people (name TEXT)").connection.close()
    with pytest.raises(DataError, match="no ASE database"):
        open_dataset(path)
    newer = database(tmp_path / "b.db", [(water(), {}, {})])
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE information SET value='4' WHERE name='version'")
    connection.close()
    with pytest.raises(DataError, match=r"version 4.*ase\.db\.convert b\.db"):
        open_dataset(newer)


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("forces", b"\0" * 24, "forces has shape"),
        ("positions", b"\0" * 20, "damaged"),
        ("numbers", b"", "holds no atoms|no atomic numbers|0 atomic"),
        ("numbers", "text", "damaged"),
        ("cell", b"\0" * 64, "cell has shape"),
        ("constraints", '[{"name": "FixAtoms", "kwargs": {"indices": [99]}}]', "constraints"),
        ("key_value_pairs", "{", "damaged"),
        ("data", b"\xff" * 30, "damaged"),
        ("tags", b"\0" * 4, "tags has shape"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path, column, value, match):
    path = database(tmp_path / "a.db", [(water(energy=-1.0), {}, {}) for _ in range(2)])
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE systems SET {column}=? WHERE id=2", (value,))
    connection.close()
    with pytest.raises(DataError, match=rf"a\.db: row 2: .*({match})"):
        list(open_dataset(path))


def test_json_databases(tmp_path):
    path = database(tmp_path / "a.json", [(water(energy=-k), {"status": "ok" if k else "bad"}, {}) for k in range(3)])
    assert [float(s.labels["energy"]) for s in open_dataset(path)] == [0.0, -1.0, -2.0]
    assert len(selected(path, "status=ok")) == 2
    path.write_text(json.dumps({"1": {"numbers": [1]}, "ids": [1], "nextid": 2}))
    with pytest.raises(DataError, match=r"a\.json"):
        open_dataset(path)


def test_postgresql_says_how_to_install_it():
    with pytest.raises(DataError, match=r"pip install ase-db-backends") as caught:
        open_dataset("postgresql://me:secret@host:5432/sets")
    assert "secret" not in str(caught.value)
    assert "host:5432/sets" in str(caught.value)
