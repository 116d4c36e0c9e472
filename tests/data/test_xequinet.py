import json
import pickle
import shutil
from pathlib import Path

import lmdb
import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.units import HARTREE
from forgefield.data.dataset import open_dataset, open_frames
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits

FOLDER = Path(__file__).parent / "xequinet"
EXAMPLES = Path(__file__).parents[2] / "examples" / "3bpa"


def selected(path, select):
    return open_frames(path, "auto", LabelKeys(), LabelUnits(), select)


def write(folder, records, info=None):
    folder.mkdir(exist_ok=True)
    environment = lmdb.open(str(folder / "data.lmdb"), subdir=False, map_size=2**22, lock=False)
    with environment.begin(write=True) as transaction:
        for k, fields in enumerate(records):
            transaction.put(k.to_bytes(8, "little"), pickle.dumps(fields))
    environment.close()
    if info is not None:
        (folder / "info.json").write_text(json.dumps(info))
    return folder


def record(**more):
    return {
        "atomic_numbers": np.array([8, 1], dtype=np.int32),
        "pos": np.eye(3)[:2],
        "energy": np.array([-2.0]),
        **more,
    }


def test_pickles_of_torch_geometric_in_hartree_agree_with_the_frames_in_ev():
    units = LabelUnits()
    for structure, plain in zip(open_dataset(FOLDER), open_dataset(FOLDER, units=units), strict=True):
        assert structure.charge == 0.0
        assert structure.multiplicity == 1
        assert set(structure.labels) == {"energy", "forces", "charges", "dipole"}
        assert set(structure.base) == {"energy", "forces"}
        assert -17661.5 < float(structure.labels["energy"]) < -17659  # eV of this molecule
        assert np.abs(structure.labels["forces"]).max() < 10
        assert float(plain.labels["energy"]) == float(structure.labels["energy"])
    bare = open_dataset(FOLDER, units=LabelUnits(energy="eV"))
    first = float(bare[0].labels["energy"])
    assert float(open_dataset(FOLDER)[0].labels["energy"]) == pytest.approx(first * HARTREE, rel=1e-14)
    assert any("the settings are followed" in note for note in bare.notes)


def test_parts_of_split_json(tmp_path):
    assert len(selected(FOLDER, "train")) == 3
    assert selected(FOLDER, "valid")[0].origin == "data.lmdb: record 3"
    assert any("train 3, valid 1, test 1" in note for note in open_dataset(FOLDER).notes)
    with pytest.raises(DataError, match=r"no part 'validation'.*select one of train, valid, test"):
        selected(FOLDER, "validation")
    with pytest.raises(DataError, match=r"other\.json: does not exist"):
        selected(FOLDER, "other:train")
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    (copy / "other.json").write_text('{"train": [4, 2]}')
    frames = selected(copy, "other:train")
    assert [frames[k].origin for k in range(2)] == ["data.lmdb: record 4", "data.lmdb: record 2"]
    for text, match in (
        ('{"train": [5]}', "record 5 of 5"),
        (json.dumps({"train": [10**30]}), "record 1000"),
        ('{"train": "all"}', "no list"),
        ("[", "JSON"),
    ):
        (copy / "other.json").write_text(text)
        with pytest.raises(DataError, match=match):
            selected(copy, "other:train")


def test_units_charge_spin_and_base_labels(tmp_path):
    info = {"units": {"energy": "kcal/mol", "pos": "Bohr", "forces": "kcal/(mol*Bohr)", "dipole": "D"}}
    fields = record(
        forces=np.ones((2, 3)), charge=np.array([-1]), spin=np.array([1]), base_energy=np.array([-1.5]),
        dipole=np.ones((1, 3)), atomic_charges=np.array([-0.5, -0.5]), polar=np.eye(3)[None],
    )  # fmt: skip
    dataset = open_dataset(write(tmp_path / "set", [fields], info))
    (s,) = dataset
    units = LabelUnits(energy="kcal/mol", length="bohr", dipole="Debye")
    assert s.multiplicity == 2
    assert s.charge == -1.0
    assert float(s.labels["energy"]) == pytest.approx(-2.0 * units.energy_factor, rel=1e-14)
    assert float(s.base["energy"]) == pytest.approx(-1.5 * units.energy_factor, rel=1e-14)
    np.testing.assert_allclose(s.positions, np.eye(3)[:2] * units.length_factor)
    np.testing.assert_allclose(s.labels["forces"], units.energy_factor / units.length_factor)
    np.testing.assert_allclose(s.labels["dipole"], units.factor_of("dipole"))
    np.testing.assert_array_equal(s.labels["charges"], [-0.5, -0.5])
    np.testing.assert_array_equal(s.labels["polarizability"], np.eye(3))


def test_a_virial_is_minus_the_derivative_by_strain(tmp_path):
    fields = record(cell=2 * np.eye(3)[None], pbc=np.ones((1, 3), dtype=bool), virial=np.full((1, 3, 3), 4.0))
    (s,) = open_dataset(write(tmp_path / "set", [fields], {"units": {"energy": "eV", "pos": "Ang"}}))
    np.testing.assert_allclose(s.labels["stress"], np.full((3, 3), -0.5))
    del fields["virial"]
    (s,) = open_dataset(write(tmp_path / "other", [fields | {"stress": np.full((1, 3, 3), 0.5)}], {"units": {}}))
    np.testing.assert_allclose(s.labels["stress"], np.full((3, 3), -0.5))


def test_without_info_json_the_units_are_assumed_and_told(tmp_path):
    dataset = open_dataset(write(tmp_path / "set", [record()]))
    assert float(dataset[0].labels["energy"]) == -2.0
    assert any("declares no unit of energy, pos" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("info", "match"),
    [
        ({"units": {"energy": "parsec"}}, "'parsec' for energy"),
        ({"units": ["eV"]}, "no mapping"),
        ({"units": {"energy": "Ha", "base_energy": "eV"}}, "base_energy"),
    ],
)
def test_info_json_that_is_wrong(tmp_path, info, match):
    with pytest.raises(DataError, match=match):
        open_dataset(write(tmp_path / "set", [record(base_energy=np.array([1.0]))], info))


def test_records_that_are_missing(tmp_path):
    folder = write(tmp_path / "set", [record() for _ in range(4)], {"units": {}})
    environment = lmdb.open(str(folder / "data.lmdb"), subdir=False, map_size=2**22, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.delete((2).to_bytes(8, "little"))
    environment.close()
    with pytest.raises(DataError, match=r"3 entries but no record 2|record 2: is missing"):
        list(open_dataset(folder))


def test_a_pickle_that_names_something_else_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, ("raise SystemExit('it ran')",)

    with pytest.raises(DataError, match="refused"):
        list(open_dataset(write(tmp_path / "set", [Evil()], {"units": {}})))
