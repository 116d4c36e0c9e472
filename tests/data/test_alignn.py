import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.units import GPA
from forgefield.data.dataset import open_dataset
from forgefield.data.json_list import JsonList
from forgefield.data.label_names import LabelKeys, TargetKey
from forgefield.data.label_units import LabelUnits

HERE = Path(__file__).parent / "alignn"
CACHE = Path(__file__).parent / "alignn_cache"
FORCES, SIX = HERE / "forces" / "id_prop.json", HERE / "mlearn_six" / "id_prop.json"


def entry(n=2, energy=-3.0, **more):
    atoms = {
        "lattice_mat": (4 * np.eye(3)).tolist(),
        "coords": [[k / 10, 0.5, 0.25] for k in range(n)],
        "elements": ["Si"] * n,
        "cartesian": False,
    }
    return {"jid": "x", "atoms": atoms, "total_energy": energy, "forces": np.ones((n, 3)).tolist(), **more}


def write(path, entries):
    path.write_text(json.dumps(entries))
    return path


def test_energies_per_atom_become_totals_and_it_is_said():
    stored = json.loads(SIX.read_text())
    dataset = open_dataset(SIX)
    for structure, record in zip(dataset, stored, strict=True):
        assert float(structure.labels["energy"]) == pytest.approx(record["total_energy"] * len(structure), rel=1e-15)
        np.testing.assert_array_equal(structure.labels["forces"], record["forces"])
        fractional = np.array(record["atoms"]["coords"])
        np.testing.assert_allclose(structure.positions, fractional @ np.array(record["atoms"]["lattice_mat"]))
    assert any("multiplied by the number of atoms" in note for note in dataset.notes)
    own = open_dataset(SIX, units=LabelUnits(energy_per="structure"))
    assert float(own[0].labels["energy"]) == stored[0]["total_energy"]


def test_totals_are_seen_and_told(tmp_path):
    path = write(tmp_path / "a", [entry(n, -5.0 * n - 0.01 * n % 3) for n in (2, 3, 5, 8)])
    dataset = open_dataset(path)
    assert float(dataset[3].labels["energy"]) == json.loads(path.read_text())[3]["total_energy"]
    assert any("read as total energies" in note for note in dataset.notes)


def test_what_is_not_used_is_said(tmp_path):
    path = write(
        tmp_path / "a", [entry(2, dos=[0.5, 1.0], gap=0.25, moments=[[1.0], [2.0]], name="x") for _ in range(3)]
    )
    (note,) = [n for n in open_dataset(path).notes if "not used" in n]
    assert note.startswith("also in the file and not used: dos (2 numbers), gap, moments (2 numbers); data.targets")
    targets = {
        "dos": TargetKey(key="dos", per="structure", components=2),
        "moments": TargetKey(key="moments", per="atom"),
    }
    dataset = open_dataset(path, keys=LabelKeys(targets=targets, features={"gap": "gap"}))
    assert not any("not used" in n for n in dataset.notes)
    refused = open_dataset(FORCES, keys=LabelKeys(stress=None, features={"extra_features": "extra_features"}))
    assert not any("stress" in n or "not used" in n for n in refused.notes)


def test_units_that_are_stated_are_not_guessed_at(tmp_path):
    stated = LabelUnits(stress="kbar", stress_sign="vasp", energy_per="structure")
    assert not any("stresses" in n or "total_energy" in n for n in open_dataset(FORCES, units=stated).notes)


def test_three_by_three_stresses_are_gpa():
    stored = json.loads(FORCES.read_text())[0]["stresses"]
    found = open_dataset(FORCES)[0].labels["stress"]
    np.testing.assert_allclose(found, (np.array(stored) + np.array(stored).T) / 2 * GPA, rtol=1e-12)
    other = open_dataset(FORCES, units=LabelUnits(stress="kbar", stress_sign="vasp"))
    np.testing.assert_allclose(other[0].labels["stress"], -found / 10, rtol=1e-12)


def test_six_stresses_wait_for_the_user():
    """The frames of mlearn are known: kbar, VASP's order and sign; the first one's stress in eV/Å^3 is published."""
    plain = open_dataset(SIX)
    assert "stress" not in plain[0].labels
    assert any("stresses of six numbers are not read" in note for note in plain.notes)
    keys = LabelKeys(stress="stresses")
    (xx, yy, zz, xy, yz, zx) = json.loads(SIX.read_text())[0]["stresses"]
    vasp = open_dataset(SIX, keys=keys, units=LabelUnits(stress="kbar", stress_sign="vasp"))[0].labels["stress"]
    np.testing.assert_allclose(vasp, -np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]]) * GPA / 10, rtol=1e-12)
    ase = open_dataset(SIX, keys=keys)[0].labels["stress"]
    np.testing.assert_allclose(ase, np.array([[xx, zx, yz], [zx, yy, xy], [yz, xy, zz]]) * GPA, rtol=1e-12)


def test_cartesian_coordinates_molecules_and_features(tmp_path):
    molecule = entry(extra_features=[1.0, 2.0])
    molecule["atoms"] |= {
        "lattice_mat": (500 * np.eye(3)).tolist(),
        "coords": [[1, 2, 3], [4, 5, 6]],
        "cartesian": True,
    }
    keys = LabelKeys(features={"cell": "extra_features"})
    (s,) = open_dataset(write(tmp_path / "a", [molecule]), keys=keys)
    assert not s.pbc.any()
    assert not s.cell.any()
    np.testing.assert_array_equal(s.positions, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(s.features["cell"], [1.0, 2.0])


def test_an_archive_says_the_same():
    plain, zipped = open_dataset(FORCES), open_dataset(HERE / "zipped")
    assert plain.fingerprint == zipped.fingerprint


@pytest.mark.parametrize("blank", ["", "\n  ", "\r\n\t "])
@pytest.mark.parametrize("chunk", [7, 64, 1 << 20])
def test_entries_are_found_whatever_lies_between(tmp_path, monkeypatch, blank, chunk):
    monkeypatch.setattr("forgefield.data.json_list.CHUNK", chunk)
    entries = [{"a": 'é,]}"[', "b": [1, [2.5e-3]]}, 7, "x" * 50, [], {"z": {}}]
    text = blank.join(["[", f"{blank},{blank}".join(json.dumps(e, ensure_ascii=False) for e in entries), "]"])
    (tmp_path / "a").write_bytes(text.encode())
    found = JsonList(tmp_path / "a")
    assert [found[k] for k in range(len(found))] == entries


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"lattice_mat": [[1, 2], [3, 4], [5, 6]]}, "entry 1: lattice_mat has shape"),
        ({"coords": [[0, 0, 0]]}, "entry 1: coords has shape"),
        ({"elements": ["Si", "Xx"]}, "entry 1: .*Xx"),
        ({"elements": []}, "entry 1: .*(shape|no atoms)"),
        ({"elements": "SiSi"}, "entry 1: its atoms have no list of elements"),
        ({"cartesian": "no"}, "entry 1: cartesian"),
    ],
)
def test_bad_atoms_are_named(tmp_path, change, match):
    bad = entry()
    bad["atoms"] |= change
    with pytest.raises(DataError, match=match):
        list(open_dataset(write(tmp_path / "a", [entry(), bad])))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"forces": [[0, 0, 1]]}, "forces has shape"),
        ({"forces": [[0, 0, 1], [0]]}, "forces is no array"),
        ({"total_energy": "low"}, "is not a number"),
        ({"atoms": None}, "no 'atoms'"),
        ({"stresses": [1, 2, 3, 4]}, "4 numbers"),
    ],
)
def test_bad_labels_are_named(tmp_path, change, match):
    with pytest.raises(DataError, match=rf"entry 1: .*{match}|{match}"):
        list(open_dataset(write(tmp_path / "a", [entry(), entry() | change])))


def test_other_json_and_archives_are_no_alignn(tmp_path):
    (tmp_path / "a").write_text('[{"name": 1}]')
    with zipfile.ZipFile(tmp_path / "b", "w") as archive:
        archive.writestr("x.json", "{}")
    for name in "ab":
        with pytest.raises(DataError, match="format is not known"):
            open_dataset(tmp_path / name)


def test_columns_of_a_table_are_targets():
    table = open_dataset(HERE / "table")
    assert table[0].labels["target"].shape == ()
    assert any("target (1 number)" in note for note in table.notes)
    vectors = open_dataset(HERE / "vectors")
    first = (HERE / "vectors" / "id_prop.csv").read_text().splitlines()[0].split(",")
    np.testing.assert_array_equal(vectors[0].labels["target"], [float(x) for x in first[1:]])
    assert vectors[0].info["file"] == first[0]


def table(folder, text, **files):
    folder.mkdir()
    (folder / "id_prop.csv").write_text(text)
    for name, content in files.items():
        (folder / f"{name}.xyz").write_text(content)
    return folder


WATER = "3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"


def test_a_header_names_the_columns_and_xyz_files_are_molecules(tmp_path):
    dataset = open_dataset(table(tmp_path / "t", "id,gap,energy\na.xyz,1.5,-3\nb.xyz,2.5,-4\n", a=WATER, b=WATER))
    assert float(dataset[1].labels["gap"]) == 2.5
    assert float(dataset[1].labels["energy"]) == -4.0
    assert not dataset[0].pbc.any()
    assert dataset[0].numbers.tolist() == [8, 1, 1]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a.xyz,1\nb.xyz\n", "line 2"),
        ("a.xyz,1\nb.xyz,high\n", "line 2.*no number"),
        ("a.xyz,1\nc.xyz,2\n", r"line 2 \(c\.xyz\).*not there"),
        ("a.xyz,1\n../a.xyz,2\n", "line 2.*no name of a file"),
        ("a.xyz\n", "line 1"),
    ],
)
def test_bad_tables_are_named(tmp_path, text, match):
    with pytest.raises(DataError, match=match):
        list(open_dataset(table(tmp_path / "t", text, a=WATER, b=WATER), "alignn"))


def test_the_graph_cache_says_what_the_file_says():
    cache, file = open_dataset(CACHE / "numbers"), open_dataset(FORCES)
    for one, other in zip(cache, file, strict=False):
        assert one.numbers.tolist() == other.numbers.tolist()
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-5)
        for label in ("energy", "forces", "stress"):
            np.testing.assert_allclose(one.labels[label], other.labels[label], rtol=1e-6, atol=1e-7)


def test_a_cache_without_elements_shows_the_way_out():
    with pytest.raises(DataError, match=r"record 0: does not say its elements.*id_prop\.json"):
        open_dataset(CACHE / "cgcnn")
