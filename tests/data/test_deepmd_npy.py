import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.data.dataset import detect_format, open_dataset

CELL = np.diag([4.0, 5.0, 6.0])
VIRIAL = np.diag([1.0, 2.0, 3.0])


def system(path, sets=(2, 1), types=(0, 1, 1), nopbc=False, **changes):
    path.mkdir(parents=True, exist_ok=True)
    (path / "type.raw").write_text(" ".join(map(str, types)))
    (path / "type_map.raw").write_text("O\nH\n")
    if nopbc:
        (path / "nopbc").touch()
    for k, n in enumerate(sets):
        folder = path / f"set.{k:03d}"
        folder.mkdir(exist_ok=True)
        size = 3 * len(types)
        arrays = {
            "coord": np.arange(float(n * size)).reshape(n, size) + 100 * k,
            "box": None if nopbc else np.tile(CELL.ravel(), (n, 1)),
            "energy": np.arange(n) - 10.0 * k,
            "force": np.full((n, size), 0.5),
            "virial": None if nopbc else np.tile(VIRIAL.ravel(), (n, 1)),
        } | changes
        for name, value in arrays.items():
            if value is not None:
                np.save(folder / f"{name}.npy", value)
    return path


def test_sets_are_read_in_their_order(tmp_path):
    path = system(tmp_path / "water")
    assert detect_format(path) == "deepmd_npy"
    dataset = open_dataset(path)
    assert [float(s.labels["energy"]) for s in dataset] == [0.0, 1.0, -10.0]
    s = dataset[2]
    assert s.numbers.tolist() == [8, 1, 1]
    assert s.pbc.all()
    np.testing.assert_array_equal(s.positions, np.arange(9.0).reshape(3, 3) + 100)
    np.testing.assert_array_equal(s.cell, CELL)
    np.testing.assert_array_equal(s.labels["forces"], np.full((3, 3), 0.5))


def test_the_virial_has_the_opposite_sign_of_the_stress(tmp_path):
    """DeePMD: virial = -V stress, in eV; ours is ASE's stress."""
    np.testing.assert_allclose(open_dataset(system(tmp_path / "a"))[0].labels["stress"], -VIRIAL / 120.0)


def test_a_system_without_cell(tmp_path):
    s = open_dataset(system(tmp_path / "a", nopbc=True))[0]
    assert not s.pbc.any()
    assert not s.cell.any()
    assert set(s.labels) == {"energy", "forces"}


def test_mixed_types_with_padding(tmp_path):
    real = np.array([[0, 1, 1], [1, 1, -1]])
    path = system(tmp_path / "a", sets=(2,), types=(0, 0, 0), real_atom_types=real)
    one, two = open_dataset(path)
    assert one.numbers.tolist() == [8, 1, 1]
    assert two.numbers.tolist() == [1, 1]
    assert two.labels["forces"].shape == (2, 3)
    np.testing.assert_array_equal(two.positions, np.arange(9.0, 15.0).reshape(2, 3))


def test_a_tree_of_systems(tmp_path):
    system(tmp_path / "b" / "3", sets=(1,))
    system(tmp_path / "a" / "2", sets=(1,), types=(0, 1))
    dataset = open_dataset(tmp_path)
    assert [len(s) for s in dataset] == [2, 3]
    assert dataset[1].origin.endswith("b/3/set.000: frame 0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coord": np.zeros((2, 8))}, r"coord.npy has shape \(2, 8\), expected \(2, 3, 3\)"),
        ({"box": None}, "has no box.npy"),
        ({"box": np.zeros((1, 9))}, "box.npy has shape"),
        ({"energy": np.zeros(3)}, "energy.npy has"),
        ({"virial": np.zeros((2, 6))}, "virial.npy has shape"),
        ({"coord": np.zeros((2, 9), dtype="S3")}, "coord.npy holds"),
        ({"real_atom_types": np.full((2, 3), 7)}, "names types that type_map.raw has not"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        list(open_dataset(system(tmp_path / "a", sets=(2,), **changes)))


def test_files_that_are_missing_or_wrong(tmp_path):
    path = system(tmp_path / "a")
    (path / "type_map.raw").write_text("O\nQq\n")
    with pytest.raises(DataError, match="names 'Qq', which is no element"):
        open_dataset(path)
    (path / "type_map.raw").unlink()
    with pytest.raises(DataError, match=r"has no type_map.raw"):
        open_dataset(path)
    path = system(tmp_path / "a", types=(0, 1, 2))
    with pytest.raises(DataError, match=r"type\.raw names type 2, type_map\.raw has 2"):
        open_dataset(path)
    (path / "type.raw").write_text("O H H")
    with pytest.raises(DataError, match="something else than whole numbers"):
        open_dataset(path)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_an_array_cut_off(tmp_path, part):
    path = system(tmp_path / "a") / "set.001" / "force.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(DataError, match=r"force.npy: (is|has a|cannot)"):
        open_dataset(tmp_path / "a")


def test_pickled_arrays_are_refused(tmp_path):
    path = system(tmp_path / "a")
    np.save(path / "set.000" / "energy.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="holds Python objects"):
        open_dataset(path)
