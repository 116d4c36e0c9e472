from pathlib import Path

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.checks import check_elements, check_labels
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.isolated import is_isolated, separate_isolated
from forgefield.data.statistics import Statistics, measure

EXAMPLE = Path(__file__).parents[2] / "examples" / "3bpa"
TRUE = {1: -13.6, 6: -1030.0, 8: -2042.0}


def molecule(*numbers, seed=0, e0=TRUE, bound=0.0, **more):
    random = np.random.default_rng(seed)
    energy = sum(e0[z] for z in numbers) + bound
    labels = {"energy": energy, "forces": random.normal(size=(len(numbers), 3))}
    return Structure(numbers, np.arange(3.0 * len(numbers)).reshape(-1, 3) * 0.5, labels=labels, **more)


def atom(z, energy=None, **more):
    return Structure([z], np.zeros((1, 3)), labels={} if energy is None else {"energy": energy}, **more)


MOLECULES = [molecule(8, 1, 1, seed=1), molecule(6, 8, seed=2), molecule(6, 1, 1, 1, 1, seed=3), molecule(1, 1, seed=4)]


@pytest.fixture(scope="module")
def example():
    return open_dataset(EXAMPLE / "train.xyz")


def test_the_bundled_example(example):
    """The neighbours are those of mace-torch 0.3.16, compute_avg_num_neighbors, 5 Å, on the same 500 frames."""
    found = measure(example, 5.0)
    assert found.avg_num_neighbors == pytest.approx(16.717037037037038, rel=1e-12)
    assert (found.n_structures, found.n_atoms, found.n_isolated) == (500, 13500, 4)
    assert found.reference_source == "isolated atoms"
    assert found.reference_energies["default"][8] == -2041.9816003861047
    assert found.force_rms == pytest.approx(0.94798, abs=1e-5)
    assert any("4 frames of one free atom" in note for note in found.notes)
    test = open_dataset(EXAMPLE / "test_300K.xyz")
    assert len(test) == 279
    check_labels(test, {"energy", "forces"})
    check_labels(example, {"energy", "forces"})
    check_elements(test, found.elements)


def test_atoms_without_neighbours_are_not_counted(example):
    """Also as mace-torch 0.3.16: 1.0 Å gives 1.0757855822550833."""
    rest, _ = separate_isolated(example)
    assert measure(rest, 1.0).avg_num_neighbors == pytest.approx(1.0757855822550833, rel=1e-12)


def test_periodic_neighbours():
    """Simple cubic: 6 neighbours at a, 12 more at sqrt(2) a; each is an image of the one atom."""
    cubic = Structure([14], np.zeros((1, 3)), 2.0 * np.eye(3), True, labels={"energy": -1.0})
    assert measure(Dataset.of([cubic]), 2.1).avg_num_neighbors == 6
    assert measure(Dataset.of([cubic]), 2.9).avg_num_neighbors == 18


def test_least_squares_recovers_the_energies():
    found = measure(Dataset.of(MOLECULES), 5.0, "least_squares")
    for z, energy in TRUE.items():
        assert found.reference_energies["default"][z] == pytest.approx(energy, rel=1e-12)
    assert found.elements == [1, 6, 8]
    assert found.notes == []
    assert found.energy_mean_per_atom == pytest.approx(0.0, abs=1e-9)


def test_one_composition_only_gives_the_smallest_norm_and_a_note():
    data = Dataset.of([molecule(8, 1, 1, seed=k, bound=0.01 * k) for k in range(5)])
    found = measure(data, 5.0)
    assert found.reference_source == "least squares"
    energies = found.reference_energies["default"]
    total = TRUE[8] + 2 * TRUE[1] + 0.02
    assert energies[8] + 2 * energies[1] == pytest.approx(total, rel=1e-13)
    assert energies[1] == pytest.approx(2 * total / 5)
    assert "determine only 1 of 2 (H, O)" in found.notes[0]
    spread = np.array([0.0, 0.01, 0.02, 0.03, 0.04]) / 3
    assert found.energy_std_per_atom == pytest.approx(spread.std(ddof=1))


def test_isolated_atoms_are_preferred_and_left_out():
    atoms = [atom(1, -13.0), atom(6, -1000.0, config_type="ISOLATED_ATOM"), atom(8, -2000.0), atom(7, -1.0)]
    found = measure(Dataset.of([*atoms, *MOLECULES]), 5.0)
    assert found.reference_energies == {"default": {1: -13.0, 6: -1000.0, 8: -2000.0}}
    assert (found.n_structures, found.n_isolated, found.elements) == (4, 4, [1, 6, 8])
    assert any("isolated atoms of N are not used" in note for note in found.notes)
    without = measure(Dataset.of([*atoms, *MOLECULES]), 5.0, {"H": -1, "C": -2, "O": -3})
    assert without.reference_energies["default"] == {1: -1.0, 6: -2.0, 8: -3.0}
    assert without.avg_num_neighbors == found.avg_num_neighbors
    assert any("are not used" in note for note in without.notes)


def test_what_is_an_isolated_atom():
    cell = 3 * np.eye(3)
    assert is_isolated(atom(1))
    assert is_isolated(atom(1, cell=20 * np.eye(3), pbc=True, config_type="isolatedatom"))
    assert not is_isolated(atom(29, cell=cell, pbc=True))
    assert not is_isolated(MOLECULES[0])
    with pytest.raises(DataError, match="IsolatedAtom but it has 2 atoms"):
        is_isolated(molecule(1, 1, config_type="IsolatedAtom"))
    touching = atom(1, -13.6, cell=cell, pbc=True, config_type="IsolatedAtom")
    with pytest.raises(DataError, match="periodic images are within"):
        measure(Dataset.of([touching, molecule(1, 1)]), 5.0)


@pytest.mark.parametrize("e0", ["auto", "isolated", {"H": -13.6, "O": -1.0}])
def test_an_element_without_reference_energy(e0):
    data = Dataset.of([atom(1, -13.6), atom(8, -2000.0), *MOLECULES], "set.xyz")
    with pytest.raises(DataError, match=r"no reference energy \(E0\) for C") as caught:
        measure(data, 5.0, e0)
    assert "least_squares" in str(caught.value)


def test_isolated_without_such_frames():
    with pytest.raises(DataError, match="no frame of one free atom with an energy"):
        measure(Dataset.of([atom(1), *MOLECULES]), 5.0, "isolated")
    with pytest.raises(DataError, match="two energies for the isolated atom H"):
        measure(Dataset.of([atom(1, -13.6), atom(1, -13.7), *MOLECULES]), 5.0)


def test_reference_energies_from_files(tmp_path):
    path = tmp_path / "e0.json"
    path.write_text('{"H": -13.5, "6": -1000, "O": -2000.25}')
    given = {1: -13.5, 6: -1000.0, 8: -2000.25}
    assert measure(Dataset.of(MOLECULES), 5.0, path).reference_energies["default"] == given
    assert measure(Dataset.of(MOLECULES), 5.0, str(path)).reference_source == "given"
    path.write_text("[1]")
    with pytest.raises(DataError, match="no mapping"):
        measure(Dataset.of(MOLECULES), 5.0, path)
    atoms = tmp_path / "atoms.xyz"
    atoms.write_text("".join(f"1\nenergy={e}\n{s} 0 0 0\n" for s, e in (("H", -13.5), ("C", -1000), ("O", -2000.25))))
    found = measure(Dataset.of(MOLECULES), 5.0, atoms)
    assert (found.reference_energies["default"], found.reference_source) == (given, "isolated atoms")
    with pytest.raises(DataError, match="does not exist"):
        measure(Dataset.of(MOLECULES), 5.0, tmp_path / "no.xyz")


def test_each_head_has_its_own_energies():
    shifted = {z: e + 100.0 for z, e in TRUE.items()}
    other = [molecule(*m.numbers.tolist(), seed=9, e0=shifted, head="high") for m in MOLECULES]
    found = measure(Dataset.of([*MOLECULES, *other]), 5.0, "least_squares", ["low", "high"])
    assert found.reference_energies["low"][8] == pytest.approx(TRUE[8])
    assert found.reference_energies["high"][8] == pytest.approx(TRUE[8] + 100.0)
    assert set(found.by_head) == {"low", "high"}
    given = {"low": {"H": 1, "C": 2, "O": 3}, "high": {"H": 4, "C": 5, "O": 6}}
    table = measure(Dataset.of([*MOLECULES, *other]), 5.0, given, ["low", "high"]).reference_energies
    assert table["high"] == {1: 4.0, 6: 5.0, 8: 6.0}
    with pytest.raises(DataError, match="of head 'high'"):
        measure(Dataset.of([*MOLECULES, *other]), 5.0, {"low": given["low"]}, ["low", "high"])
    with pytest.raises(DataError, match="names head 'hihg'"):
        measure(Dataset.of(MOLECULES), 5.0, {"hihg": given["low"]}, ["low", "high"])
    with pytest.raises(DataError, match="head 'high' is not in the model"):
        measure(Dataset.of(other), 5.0)


def test_force_scale_of_what_has_forces():
    bare = Structure([1, 1], np.eye(3)[:2], labels={"energy": -27.0})
    found = measure(Dataset.of([bare, *MOLECULES]), 5.0, "least_squares")
    forces = np.concatenate([m.labels["forces"] for m in MOLECULES])
    assert found.force_rms == pytest.approx(np.sqrt((forces**2).mean()))
    assert measure(Dataset.of([bare]), 5.0).force_rms is None


def test_a_cutoff_that_reaches_nobody():
    with pytest.raises(
        DataError, match=r"within the cutoff of 0\.5 Å no atom has a neighbour; the nearest atoms are 2"
    ):
        measure(Dataset.of(MOLECULES), 0.5)


def test_nothing_to_measure():
    with pytest.raises(DataError, match="no structures to train on"):
        measure(Dataset.of([atom(1, -13.6)]), 5.0)
    no_energy = Structure([1, 1], np.eye(3)[:2], labels={"forces": np.zeros((2, 3))})
    with pytest.raises(DataError, match="no energies to fit"):
        measure(Dataset.of([no_energy]), 5.0)
    assert measure(Dataset.of([no_energy]), 5.0, {"H": 0.0}).energy_mean_per_atom is None


def test_statistics_survive_json():
    found = measure(Dataset.of(MOLECULES), 5.0)
    again = Statistics.from_json(found.to_json())
    assert again == found
    assert again.reference_energies["default"][8] == found.reference_energies["default"][8]
    for text in ("{}", "[1]", "no", found.to_json().replace("n_atoms", "n_atom")):
        with pytest.raises(DataError, match="no statistics"):
            Statistics.from_json(text)


def test_missing_labels_are_named():
    bare = Structure([1, 1], np.eye(3)[:2], labels={"energy": -27.0}, origin="a.xyz: frame 7")
    data = Dataset.of([*MOLECULES, bare, atom(1, -13.6)], "a.xyz")
    check_labels(data, {"energy"})
    with pytest.raises(DataError, match=r"1 of 6 frames have no forces: a\.xyz: frame 7"):
        check_labels(data, {"energy", "forces"})
    with pytest.raises(DataError, match=r"no frame has forces.*data\.forces_key"):
        check_labels(Dataset.of([bare, bare]), {"forces"})
    with pytest.raises(DataError, match="have no energy"):
        check_labels(Dataset.of([atom(1), *MOLECULES]), {"energy"})


def test_labels_under_other_names_are_shown(tmp_path):
    (tmp_path / "a.xyz").write_text("1\nxtb_energy=1\nH 0 0 0\n")
    with pytest.raises(DataError, match="no frame has energy; the files have xtb_energy"):
        check_labels(open_dataset(tmp_path / "a.xyz"), {"energy"})


def test_unknown_elements_are_named():
    with pytest.raises(DataError, match="has C, O, which the training data does not have"):
        check_elements(Dataset.of(MOLECULES).subset([1]), [1])
