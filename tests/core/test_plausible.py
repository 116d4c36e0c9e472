import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure

CELL = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [0.5, 0.2, 6.0]])


def make(numbers=(14, 8), positions=None, cell=CELL, pbc=True, **labels):
    positions = np.eye(3)[: len(numbers)] if positions is None else positions
    return Structure(np.array(numbers), positions, cell, pbc, labels, origin="a.xyz: frame 7")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64, ">i4"])
def test_numbers_of_any_type_are_read_if_they_are_whole(dtype):
    assert make(np.array([14, 8], dtype=dtype)).numbers.tolist() == [14, 8]


@pytest.mark.parametrize("numbers", [[14.5, 8.0], [np.nan, 8.0], ["Si", "O"], [14 + 0j, 8], [[14], [8]]])
def test_other_numbers_are_refused(numbers):
    with pytest.raises(DataError, match="frame 7: atomic numbers"):
        make(np.array(numbers), np.zeros((2, 3)))


@pytest.mark.parametrize("numbers", [[-1, 8], [0, 8], [119, 8]])
def test_numbers_of_no_element(numbers):
    with pytest.raises(DataError, match=r"must lie in 1\.\.118"):
        make(numbers)


def test_no_atoms():
    with pytest.raises(DataError, match="frame 7: holds no atoms"):
        make(np.zeros(0, dtype=int), np.zeros((0, 3)))


@pytest.mark.parametrize("order", [[1, 0, 2], [2, 1, 0]])
def test_a_left_handed_cell_is_as_good_as_any(order):
    s = make(cell=CELL[order])
    assert np.linalg.det(s.cell) < 0
    assert s.volume == pytest.approx(np.linalg.det(CELL))


@pytest.mark.parametrize(
    ("cell", "pbc", "message"),
    [
        (np.zeros((3, 3)), True, "its cell has zero volume"),
        (CELL[[0, 0, 2]], True, "its cell has zero volume"),
        (CELL * [[1], [1], [0]], True, "its cell has zero volume"),
        (np.diag([9.0, 9.0, 0.04]), True, "its cell is 0.04 Å thin"),
        (np.diag([9.0, 9.0, 0.04]), [False, False, True], "its cell is 0.04 Å thin"),
        (np.diag([0.2, 0.2, 0.2]), True, "with 0.004 Å^3 per atom"),
        (np.diag([1e7, 9.0, 9.0]), True, "cell reach 1e+07 Å"),
        (np.full((3, 3), np.nan), True, "cell hold NaN"),
    ],
)
def test_cells_that_cannot_be(cell, pbc, message):
    import re

    with pytest.raises(DataError, match=re.escape(message)):
        make(cell=cell, pbc=pbc)


def test_cells_that_can_be():
    make(cell=np.zeros((3, 3)), pbc=False)
    make(cell=np.diag([9.0, 9.0, 0.0]), pbc=[True, True, False])
    make(cell=np.array([[4.0, 0, 0], [40.0, 5.0, 0], [0, 0, 6.0]]))  # skewed
    make([1], cell=np.diag([0.7, 0.7, 0.7]))  # hydrogen under great pressure


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("energy", -3e7, "energy reaches 1.5e+07 in eV and Å per atom"),
        ("forces", np.full((2, 3), 2e6), "forces reaches 2e+06"),
        ("stress", np.eye(3) * 2e5, "stress reaches 2e+05"),
        ("charges", np.array([0.0, 1e4]), "charges reaches 1e+04"),
    ],
)
def test_labels_that_cannot_be(name, value, message):
    import re

    with pytest.raises(DataError, match=re.escape(message)):
        make(**{name: value})


def test_positions_that_cannot_be():
    with pytest.raises(DataError, match="positions reach"):
        make(positions=np.array([[0, 0, 0], [0, -1e9, 0]]))
    make(positions=np.array([[0, 0, 0], [0, -1e5, 0]]))


def test_heavy_atoms_with_all_their_electrons_pass():
    make([92, 92], energy=-2 * 7.6e5)


def test_a_million_atoms_are_read():
    n = 100
    grid = np.stack(np.meshgrid(*[np.arange(float(n))] * 3), axis=-1).reshape(-1, 3) * 2.5
    s = Structure(np.full(n**3, 13), grid, np.eye(3) * 250.0, True, {"forces": np.zeros((n**3, 3))})
    assert len(s) == 10**6
