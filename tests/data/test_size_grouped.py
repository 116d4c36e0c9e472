import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import open_dataset
from forgefield.data.writers.size_grouped import ENTRY

HERE = Path(__file__).parent
REAL = HERE / "aimnet" / "dataset.h5"


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copy(REAL, tmp_path / "a.h5"))


def rewrite(path, group, name, value, **how):
    with h5py.File(path, "r+") as file:
        if name in file[group]:
            del file[group][name]
        if value is not None:
            file[group].create_dataset(name, data=value, **how)


def test_a_real_file_is_read_whole():
    dataset = open_dataset(REAL)
    assert len(dataset) == 195
    assert dataset.describe()["labels"] == {
        **dict.fromkeys(("energy", "forces", "charges", "spin_charges", "dipole", "quadrupole"), 195),
        "stress": 0,
    }
    with h5py.File(REAL) as file:
        at = 0
        for name, group in sorted(file.items()):
            for k in range(len(group["energy"])):
                s = dataset[at]
                assert len(s) == int(name)
                assert s.charge == group["charge"][k]
                assert s.multiplicity == group["mult"][k]
                assert s.labels["energy"] == group["energy"][k]
                np.testing.assert_array_equal(s.labels["forces"], group["forces"][k])
                np.testing.assert_array_equal(s.labels["spin_charges"], group["spin_charges"][k])
                at += 1


def test_the_order_of_the_quadrupole_follows_the_charges():
    """Moments of the atomic charges are not the molecules' own, but correlate with them: in the right order only."""
    found, moments = [], []
    for s in open_dataset(REAL):
        moment = np.einsum("i,ij,ik->jk", s.labels["charges"], s.positions, s.positions)
        if s.charge == 0:
            found.append(s.labels["quadrupole"])
            moments.append(moment - np.trace(moment) / 3 * np.eye(3))
    found, moments = np.array(found), np.array(moments)
    for i in range(3):
        for j in range(3):
            assert np.corrcoef(found[:, i, j], moments[:, i, j])[0, 1] > 0.9


def test_groups_with_different_keys_are_refused(copy):
    rewrite(copy, "009", "mult", None)
    with pytest.raises(DataError, match="groups 007 and 009 have different keys: mult"):
        open_dataset(copy)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("coord", np.zeros((20, 9, 2)), r"009: coord has shape \(20, 9, 2\)"),
        ("numbers", np.zeros((20, 8), dtype=int), "009: numbers has shape"),
        ("energy", np.zeros(19), "009: energy has shape"),
        ("forces", np.zeros((20, 9, 3), dtype="S3"), "009: forces holds"),
    ],
)
def test_arrays_that_do_not_fit(copy, name, value, message):
    rewrite(copy, "009", name, value)
    with pytest.raises(DataError, match=message):
        open_dataset(copy)


def test_a_number_that_is_not_finite_names_file_and_place(copy):
    with h5py.File(copy, "r+") as file:
        file["009/forces"][3, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"a\.h5: 009: structure 3: forces holds NaN"):
        list(open_dataset(copy))


def test_padding_is_left_out(copy):
    with h5py.File(copy, "r+") as file:
        file["009/numbers"][0, 7:] = 0
    s = open_dataset(copy)[11 + 15]
    assert len(s) == 7
    assert s.labels["forces"].shape == (7, 3)


def test_links_and_foreign_arrays_are_refused(copy, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["energy"] = np.zeros(20)
    with h5py.File(copy, "r+") as file:
        del file["009/energy"]
        file["009/energy"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/energy")
    with pytest.raises(DataError, match="is a link to another place"):
        open_dataset(copy)
    with h5py.File(copy, "r+") as file:
        del file["009/energy"]
        file["009"].create_dataset("energy", (20,), "f8", external=[(str(tmp_path / "raw"), 0, 160)])
    with pytest.raises(DataError, match="lies in other files"):
        open_dataset(copy)
    with h5py.File(copy, "r+") as file:
        del file["009/energy"]
        layout = h5py.VirtualLayout(shape=(20,), dtype="f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "energy", shape=(20,))
        file["009"].create_virtual_dataset("energy", layout)
    with pytest.raises(DataError, match="lies in other files"):
        open_dataset(copy)


def test_texts_of_any_length_and_records_are_refused(copy):
    rewrite(copy, "009", "energy", np.array(["x"] * 20, dtype=object), dtype=h5py.string_dtype())
    with pytest.raises(DataError, match="instead of plain numbers"):
        open_dataset(copy)
    rewrite(copy, "009", "energy", np.zeros(20, dtype=[("a", "f8")]))
    with pytest.raises(DataError, match="instead of plain numbers"):
        open_dataset(copy)


def test_huge_claims_take_no_memory(copy):
    """Pieces that were never written are zeros in HDF5: a claim of 10^12 energies fits into a small file."""
    with h5py.File(copy, "r+") as file:
        for name in ("energy", "coord"):
            del file["009"][name]
        file["009"].create_dataset("energy", (10**12,), "f8", chunks=(1000,))
        file["009"].create_dataset("coord", (10**12, 9, 3), "f4", chunks=(1000, 9, 3))
    with pytest.raises(DataError, match=r"has 0 of \d+ pieces"):
        open_dataset(copy)
    rewrite(copy, "009", "energy", np.zeros(2**22), chunks=(2**22,), compression="gzip", maxshape=(None,))
    with h5py.File(copy, "r+") as file:
        del file["009/coord"]
        file["009"].create_dataset("coord", (1, 2**27, 3), "f4", chunks=(1, 2**27, 3), compression="gzip")
    with pytest.raises(DataError, match="stored in pieces of shape"):
        open_dataset(copy)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_off(copy, part):
    whole = copy.read_bytes()
    copy.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(DataError, match="cut off or damaged"):
        list(open_dataset(copy))


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = tmp_path / "long.h5"
    with h5py.File(path, "w") as file:
        file["001/coord"] = np.zeros((100_000, 1, 3))
        file["001/numbers"] = np.ones((100_000, 1), dtype=int)
    dataset = open_dataset(path)
    assert len(dataset[50_000]) == 1
    with path.open("r+b") as stream:
        stream.seek(100_000)
        stream.write(b"xyz")
    with pytest.raises(DataError, match="changed while it was in use"):
        dataset[10_000], dataset[90_000]


def test_other_groups_are_refused(copy):
    with h5py.File(copy, "r+") as file:
        file.create_group("metadata")
    with pytest.raises(DataError, match="has a group 'metadata'"):
        open_dataset(copy)


def test_a_folder_of_npz_files_reads_the_same(tmp_path):
    with h5py.File(REAL) as file:
        for name, group in file.items():
            np.savez(tmp_path / f"{name}.npz", **{k: v[()].astype(v.dtype.str) for k, v in group.items()})
    assert open_dataset(tmp_path).fingerprint == open_dataset(REAL).fingerprint


def write(path, structures, **settings):
    writer = ENTRY.build(path, ENTRY.settings(**settings))
    for s in structures:
        writer.add(s)
    return writer.finish()


def test_what_is_written_comes_back_in_its_order(tmp_path):
    source = list(open_dataset(REAL))[::-1]
    write(tmp_path / "b.h5", source, precision="float64")
    back = open_dataset(tmp_path / "b.h5")
    assert len(back) == len(source)
    for one, other in zip(source, back, strict=True):
        assert one.numbers.tolist() == other.numbers.tolist()
        assert (one.charge, one.multiplicity) == (other.charge, other.multiplicity)
        np.testing.assert_array_equal(one.positions, other.positions)
        assert one.labels.keys() == other.labels.keys()
        for name in one.labels:
            np.testing.assert_array_equal(one.labels[name], other.labels[name])


def test_the_written_layout_is_that_of_the_real_file(tmp_path):
    write(tmp_path / "b.h5", open_dataset(REAL))
    with h5py.File(tmp_path / "b.h5") as ours, h5py.File(REAL) as theirs:
        assert set(ours) == set(theirs)
        assert len({tuple(sorted(g)) for g in ours.values()}) == 1
        for name in theirs["009"].keys() - {"_id"}:
            assert ours["009"][name].shape == theirs["009"][name].shape
            np.testing.assert_array_equal(ours["009"][name][()], theirs["009"][name][()])
            if name not in ("charge", "mult"):
                assert ours["009"][name].dtype == theirs["009"][name].dtype


def structures():
    crystal = Structure([14, 14], np.eye(3)[:2], np.eye(3) * 5, True, {"energy": -1.0, "stress": np.eye(3)})
    molecule = Structure([8], np.zeros((1, 3)), labels={"energy": -2.0, "forces": np.zeros((1, 3))}, charge=-1)
    return [crystal, molecule, crystal]


def test_different_labels_are_refused_or_split(tmp_path):
    with pytest.raises(DataError, match="lacks cell, pbc, stress and also has charge, forces, unlike"):
        write(tmp_path / "b.h5", structures())
    assert not (tmp_path / "b.h5").exists()
    notes = write(tmp_path / "c.h5", structures(), different="split")
    assert "c.2.h5: " in notes[-1]
    one, two = open_dataset(tmp_path / "c.h5"), open_dataset(tmp_path / "c.2.h5")
    assert (len(one), len(two)) == (2, 1)
    np.testing.assert_array_equal(one[0].cell, np.eye(3) * 5)
    assert one[0].pbc.all()
    assert two[0].charge == -1


def test_what_is_abandoned_leaves_nothing(tmp_path):
    writer = ENTRY.build(tmp_path / "b.h5", ENTRY.settings())
    writer.add(structures()[0])
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_the_user_is_told_what_is_lost(tmp_path):
    s = Structure([8], np.zeros((1, 3)), labels={"energy": -2.0}, fixed=np.array([True]), weight=2.0)
    assert (
        write(tmp_path / "b.h5", [s])[0]
        == "AIMNet2's layout has no place for: fixed (1 structures), weight (1 structures)"
    )


def test_three_atoms_keep_their_stress_and_quadrupole(tmp_path):
    """(n, 3, 3) is the shape of a tensor per structure and of a vector per atom."""
    from forgefield.data.writers.size_grouped import SizeGroupedSettings, SizeGroupedWriter

    labels = {"energy": 1.0, "stress": np.diag([1.0, 2.0, 3.0]), "quadrupole": np.diag([1.0, 1.0, -2.0])}
    writer = SizeGroupedWriter(tmp_path / "a.h5", SizeGroupedSettings(precision="float64"))
    writer.add(Structure([8, 1, 1], np.eye(3), 5 * np.eye(3), [True] * 3, labels=labels))
    writer.finish()
    (found,) = open_dataset(tmp_path / "a.h5")
    assert sorted(found.labels) == sorted(labels)
    np.testing.assert_allclose(found.labels["stress"], labels["stress"], atol=1e-12)
    np.testing.assert_allclose(found.labels["quadrupole"], labels["quadrupole"], atol=1e-12)
