from pathlib import Path

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.units import BOHR, HARTREE, KCAL_PER_MOL
from forgefield.data.dataset import detect_format, open_dataset
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits

REAL = Path(__file__).parent / "rmd17" / "ethanol.npz"


def save(path, **changes):
    fields = {
        "nuclear_charges": np.array([8, 1, 1], dtype=np.uint8),
        "coords": np.arange(36.0).reshape(4, 3, 3),
        "energies": np.arange(4.0),
        "forces": np.ones((4, 3, 3)),
    } | changes
    np.savez(path, **{k: v for k, v in fields.items() if v is not None})
    return path


def test_a_real_file_is_read_in_the_unit_that_its_kind_has():
    dataset, raw = open_dataset(REAL), np.load(REAL)
    assert len(dataset) == 20
    assert dataset[3].labels["energy"] == raw["energies"][3] * KCAL_PER_MOL
    np.testing.assert_array_equal(dataset[3].labels["forces"], raw["forces"][3] * KCAL_PER_MOL)
    np.testing.assert_array_equal(dataset[3].positions, raw["coords"][3])
    assert dataset[3].numbers.tolist() == raw["nuclear_charges"].tolist()
    assert not dataset[3].pbc.any()
    assert "units kcal/mol and Ang, as all files of this kind" in dataset.notes[0]


def test_the_older_labels_are_read_when_they_are_named():
    old = open_dataset(REAL, keys=LabelKeys(energy="old_energies", forces="old_forces"))
    raw = np.load(REAL)
    assert old[5].labels["energy"] == raw["old_energies"][5] * KCAL_PER_MOL
    np.testing.assert_array_equal(old[5].labels["forces"], raw["old_forces"][5] * KCAL_PER_MOL)


def test_a_unit_that_the_user_gives_wins_and_is_told():
    dataset = open_dataset(REAL, units=LabelUnits(energy="eV"))
    assert dataset[0].labels["energy"] == np.load(REAL)["energies"][0]
    assert "the settings are followed" in dataset.notes[0]


def test_the_files_of_sgdml_declare_their_units(tmp_path):
    path = tmp_path / "water.npz"
    fields = {"z": np.array([8, 1, 1]), "R": np.arange(18.0).reshape(2, 3, 3), "E": np.array([[1.0], [2.0]])}
    np.savez(path, **fields, F=np.ones((2, 3, 3)), e_unit="Ha", r_unit="bohr", name="water", theory="x", type="d")
    assert detect_format(path) == "md17_npz"
    s = open_dataset(path)[1]
    assert s.labels["energy"] == 2.0 * HARTREE
    np.testing.assert_allclose(s.labels["forces"], HARTREE / BOHR)
    np.testing.assert_allclose(s.positions, fields["R"][1] * BOHR)
    np.savez(path, **fields, e_unit="furlong")
    with pytest.raises(DataError, match="e_unit is 'furlong', no unit we know"):
        open_dataset(path)


def test_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "a.npz"
    np.savez(path, nuclear_charges=np.array([1]), coords=np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="coords: holds Python objects"):
        open_dataset(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coords": np.zeros((4, 9))}, r"coords has shape \(4, 9\), expected \(n, n, 3\)"),
        ({"nuclear_charges": np.array([8, 1])}, "nuclear_charges has shape"),
        ({"energies": np.zeros(3)}, "energies has shape"),
        ({"forces": np.zeros((4, 2, 3))}, "forces has shape"),
        ({"coords": None}, "holds nuclear_charges, energies, forces"),
        ({"coords": np.zeros((0, 3, 3)), "energies": np.zeros(0), "forces": np.zeros((0, 3, 3))}, "no structures"),
        ({"energies": np.zeros((4, 2))}, r"a\.npz: frame 0: energies has shape"),
        ({"nuclear_charges": np.array([8, 1, 0.5])}, "not whole numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        list(open_dataset(save(tmp_path / "a.npz", **changes), "md17_npz"))


def test_a_number_that_is_not_finite_names_file_and_frame(tmp_path):
    energies = np.array([0.0, 1.0, np.nan, 3.0])
    with pytest.raises(DataError, match=r"a\.npz: frame 2: energies holds NaN"):
        list(open_dataset(save(tmp_path / "a.npz", energies=energies)))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("part", [0.2, 0.7, 0.99])
def test_a_file_cut_off(tmp_path, compressed, part):
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **np.load(REAL))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    assert detect_format(path) == "md17_npz"
    with pytest.raises(DataError, match="cut off or damaged"):
        open_dataset(path)


def test_a_changed_byte_is_noticed(tmp_path):
    path = save(tmp_path / "a.npz")
    raw = bytearray(path.read_bytes())
    raw[raw.index(np.arange(36.0).tobytes()[8:24])] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="cut off or damaged"):
        open_dataset(path)


def test_a_claim_larger_than_the_file(tmp_path):
    path = save(tmp_path / "a.npz")
    raw = path.read_bytes().replace(b"'shape': (4, 3, 3), }", b"'shape': (40000,3,3)}")
    path.write_bytes(raw)
    with pytest.raises(DataError, match="cut off"):
        open_dataset(path)


def test_frames_are_mapped_not_loaded(tmp_path):
    """Only the pages that are looked at are read: the arrays are views of the file."""
    dataset = open_dataset(save(tmp_path / "a.npz"))
    assert isinstance(dataset.parts[0]._blocks[0].positions, np.memmap)


def test_a_file_that_changes_while_it_is_opened(tmp_path):
    from forgefield.data.npy_file import NpzFile

    file = NpzFile(save(tmp_path / "a.npz"))
    save(tmp_path / "a.npz", energies=np.arange(4.0) + 1)
    with pytest.raises(DataError, match="changed while it was in use"):
        file["energies"]
