import gzip
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from forgefield.core.errors import ConfigError, DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import detect_format, open_dataset
from forgefield.data.label_names import LabelKeys
from forgefield.data.writers.pacemaker import ENTRY

FILES = sorted((Path(__file__).parent / "pacemaker").glob("*.pckl.gzip"))
WITHOUT_PANDAS = """
import sys
for name in ("pandas", "pyarrow"):
    sys.modules[name] = None
from forgefield.data.dataset import open_dataset
print(sum(float(s.labels["energy"]) for s in open_dataset(sys.argv[1])))
"""


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name.split(".pckl")[0])
def test_tables_of_many_versions_of_pandas_say_the_same(path):
    assert detect_format(path) == "pacemaker"
    dataset = open_dataset(path)
    assert len(dataset) == 3
    for k, s in enumerate(dataset):
        n = 2 if k else 3
        assert s.numbers.tolist() == ([29, 13] if k else [1, 1, 8])
        np.testing.assert_array_equal(s.positions, np.arange(3.0 * n).reshape(n, 3) * 1.1)
        np.testing.assert_array_equal(s.cell, np.eye(3) * 4 * bool(k))
        assert s.pbc.tolist() == [bool(k)] * 3
        assert s.labels["energy"] == -1.5 * k
        np.testing.assert_array_equal(s.labels["forces"], np.full((n, 3), float(k)))
        assert (s.info["name"], s.info["energy_corrected"], s.weight) == (f"s{k}", -1.0 * k, 0.5)
        assert s.force_mask.all()
        if "protocol4" in path.name:
            assert s.fixed.tolist() == [True] + [False] * (n - 1)
            assert s.info["x"] == 1.5


def test_pandas_is_not_needed_to_read():
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_PANDAS, str(FILES[-1])], capture_output=True, text=True, check=True
    )
    assert float(found.stdout) == -4.5


def test_the_corrected_energy_is_read_when_it_is_named():
    dataset = open_dataset(FILES[0])
    assert "energy_corrected differs from energy" in " ".join(dataset.notes)
    assert open_dataset(FILES[0], keys=LabelKeys(energy="energy_corrected"))[2].labels["energy"] == -2.0


def table(path, **changes):
    """A table written by pandas, with columns replaced or, where None, left out."""
    pandas = pytest.importorskip("pandas")
    atoms = [Atoms("CuAl", positions=[[0, 0, 0], [0, 0, 2 + k]], cell=[5, 5, 5], pbc=True) for k in range(3)]
    atoms[1].set_constraint(FixAtoms([-1]))
    columns = {
        "ase_atoms": atoms,
        "energy": [0.0, 1.0, 2.0],
        "forces": [np.ones((2, 3)) * k for k in range(3)],
        "energy_corrected": [0.0, 1.0, 2.0],
    } | changes
    columns = {k: v for k, v in columns.items() if v is not None}
    pandas.DataFrame(columns).to_pickle(path, compression="gzip", protocol=4)
    return path


def test_weights_that_add_up_to_one_become_weights_of_structures(tmp_path):
    forces = [np.array([0.1, 0.0]), np.array([0.2, 0.2]), np.zeros(2)]
    dataset = open_dataset(table(tmp_path / "a.pckl.gzip", w_energy=[0.5, 0.25, 0.25], w_forces=forces))
    assert [s.weight for s in dataset] == [1.5, 0.75, 0.75]
    assert [s.force_mask.tolist() for s in dataset] == [[True, False], [True, True], [False, False]]
    assert "times the number of rows" in dataset.notes[0]


def test_forces_as_lists_and_energies_alone(tmp_path):
    path = table(tmp_path / "a.pckl.gzip", forces=[[[0, 0, k], [0.5, 0, 0]] for k in range(3)], energy=None)
    dataset = open_dataset(path)
    assert dataset[2].labels["energy"] == 2.0
    np.testing.assert_array_equal(dataset[2].labels["forces"], [[0, 0, 2], [0.5, 0, 0]])
    assert dataset[1].fixed.tolist() == [False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ase_atoms": None}, "has no column 'ase_atoms'. Fix: its columns: energy, "),
        ({"ase_atoms": ["Cu"] * 3}, "record 0: holds no ASE structure"),
        ({"forces": [np.ones((2, 3)), np.ones((1, 3)), np.ones((2, 3))]}, r"record 1: forces has shape \(1, 3\)"),
        ({"energy": [0.0, 1.0, float("nan")]}, "record 2: energy holds NaN"),
        ({"w_energy": [0.5, -0.5, 1.0]}, "record 1: w_energy is -0.5"),
        ({"w_forces": [np.ones(3)] * 3}, "record 0: w_forces has shape"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        list(open_dataset(table(tmp_path / "a.pckl.gzip", **changes)))


def test_an_empty_table_and_another_pickle(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "a.pckl.gzip"
    pandas.DataFrame({"ase_atoms": []}).to_pickle(path, compression="gzip")
    with pytest.raises(DataError, match="holds no structures"):
        open_dataset(path)
    path.write_bytes(gzip.compress(pickle.dumps({"pandas": "DataFrame"})))
    with pytest.raises(DataError, match="is no pickled DataFrame"):
        open_dataset(path)


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_file_cut_off(tmp_path, part):
    whole = FILES[0].read_bytes()
    path = tmp_path / "a.pckl.gzip"
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(DataError, match="cut off"):
        open_dataset(path, "pacemaker")
    path.write_bytes(gzip.compress(gzip.decompress(whole)[: int(len(gzip.decompress(whole)) * part)]))
    with pytest.raises(DataError, match=r"damaged|refused"):
        open_dataset(path, "pacemaker")


def structures():
    random = np.random.default_rng(0)
    for k in range(4):
        labels = {"energy": random.normal() - 100, "forces": random.normal(size=(2, 3))}
        yield Structure(
            [29, 13], random.normal(size=(2, 3)), np.eye(3) * (5 + k), True, labels, config_type=f"t{k % 2}"
        )


def write(path, frames, **settings):
    writer = ENTRY.build(path, ENTRY.settings(**settings))
    for s in frames:
        writer.add(s)
    return writer.finish()


def test_what_is_written_comes_back(tmp_path):
    pytest.importorskip("pandas")
    source = [
        replace(s, weight=1.0 + k, force_mask=np.array([True, k % 2 == 0]), tags=np.array([0, k]))
        for k, s in enumerate(structures())
    ]
    source[1] = replace(source[1], labels={**source[1].labels, "stress": np.eye(3)})
    notes = write(tmp_path / "a.pckl.gzip", source)
    assert "adding up to 1" in notes[0]
    for one, other in zip(source, open_dataset(tmp_path / "a.pckl.gzip"), strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.cell, other.cell)
        assert one.labels.keys() == other.labels.keys()
        for name in one.labels:
            np.testing.assert_array_equal(one.labels[name], other.labels[name])
        assert (one.weight, one.config_type) == (other.weight, other.config_type)
        assert one.force_mask.tolist() == other.force_mask.tolist()
        assert one.tags.tolist() == other.tags.tolist()


def test_pacemaker_finds_what_it_wants(tmp_path):
    """Read by pandas itself, as Pacemaker does."""
    pandas = pytest.importorskip("pandas")
    source = [replace(s, weight=1.0 + k) for k, s in enumerate(structures())]
    source[0] = replace(source[0], force_mask=np.array([False, True]))
    write(tmp_path / "a.pckl.gzip", source, reference_energies={"Cu": -1.0, "Al": -2.0})
    frame = pandas.read_pickle(tmp_path / "a.pckl.gzip", compression="gzip")
    assert {"ase_atoms", "energy", "forces", "energy_corrected", "w_energy", "w_forces", "name"} <= set(frame.columns)
    np.testing.assert_allclose(frame["energy_corrected"], frame["energy"] + 3.0)
    assert isinstance(frame["ase_atoms"][0], Atoms)
    assert frame["forces"][2].shape == (2, 3)
    assert frame["w_energy"].sum() == pytest.approx(1.0)
    assert sum(w.sum() for w in frame["w_forces"]) == pytest.approx(1.0)
    assert frame["w_forces"][0][0] == 0
    assert frame["w_energy"][3] == pytest.approx(4 * frame["w_energy"][0])
    raw = gzip.decompress((tmp_path / "a.pckl.gzip").read_bytes())
    assert raw[:2] == b"\x80\x04"
    assert b"StringDtype" not in raw  # pandas before 2.3 has no such texts


def test_uniform_weights_are_left_to_pacemaker(tmp_path):
    pandas = pytest.importorskip("pandas")
    write(tmp_path / "a.pckl.gzip", structures())
    assert not {"w_energy", "w_forces"} & set(pandas.read_pickle(tmp_path / "a.pckl.gzip", compression="gzip").columns)


def test_structures_that_pacemaker_cannot_use(tmp_path):
    pytest.importorskip("pandas")
    s = next(structures())
    with pytest.raises(DataError, match="has no forces, which Pacemaker needs"):
        write(tmp_path / "a.pckl.gzip", [replace(s, labels={"energy": np.array(1.0)})])
    with pytest.raises(DataError, match="element 29 has no reference energy"):
        write(tmp_path / "a.pckl.gzip", [s], reference_energies={"Al": 1.0})
    with pytest.raises(ValueError, match="'Xy' is no element"):
        ENTRY.settings(reference_energies={"Xy": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_without_pandas_the_writer_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"pip install 'forgefield\[pacemaker\]'"):
        ENTRY.build(tmp_path / "a", ENTRY.settings())
