"""Every reader of the catalog: round trip, units and signs, missing labels, damaged files."""

import pickle

import lmdb
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from forgefield.core.catalog import Catalog
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.core.units import factor
from forgefield.data.dataset import Dataset, detect_format, open_dataset
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits

NAMES = Catalog("forgefield.data.readers").names()


def structures(seed=0):
    """A molecule without stress, a crystal with all labels, and one with no label."""
    random = np.random.default_rng(seed)
    cell = np.diag([4.0, 5.0, 6.0]) + 0.3 * random.normal(size=(3, 3))
    stress = random.normal(size=(3, 3))
    water = Structure(
        [8, 1, 1],
        random.normal(size=(3, 3)),
        labels={"energy": -2081.3, "forces": random.normal(size=(3, 3))},
        config_type="molecule",
    )
    crystal = Structure(
        [14, 14, 8, 8],
        random.normal(size=(4, 3)),
        cell,
        True,
        labels={
            "energy": 12.5,
            "forces": random.normal(size=(4, 3)),
            "stress": (stress + stress.T) / 2,
        },
        weight=2.5,
        fixed=np.array([True, False, False, True]),
        tags=np.array([0, 1, 1, 2]),
    )
    bare = Structure([6], np.zeros((1, 3)))
    return [water, crystal, bare]


def write_extxyz(path, frames):
    images = []
    for s in frames:
        atoms = Atoms(s.numbers, s.positions, cell=s.cell, pbc=s.pbc, tags=s.tags)
        atoms.info |= {"config_type": s.config_type, "config_weight": s.weight}
        if s.fixed is not None:
            atoms.set_constraint(FixAtoms(mask=s.fixed))
        results = dict(s.labels)
        if "stress" in results:
            t = results["stress"]
            results["stress"] = np.array([t[0, 0], t[1, 1], t[2, 2], t[1, 2], t[0, 2], t[0, 1]])
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        images.append(atoms)
    with path.open("w") as stream:
        for atoms in images:
            write(stream, atoms, format="extxyz")


def write_fairchem_lmdb(path, frames):
    environment = lmdb.open(str(path), subdir=False, map_size=2**22, lock=False)
    with environment.begin(write=True) as transaction:
        for k, s in enumerate(frames):
            record = {
                "pos": s.positions,
                "cell": s.cell[None],
                "pbc": s.pbc,
                "atomic_numbers": s.numbers.astype(float),
                "natoms": len(s),
                "config_type": s.config_type,
                "config_weight": s.weight,
                **{{"energy": "y", "forces": "force"}.get(name, name): v for name, v in s.labels.items()},
            }
            for name in ("fixed", "tags"):
                if getattr(s, name) is not None:
                    record[name] = getattr(s, name)
            transaction.put(str(k).encode(), pickle.dumps(record))
        transaction.put(b"length", pickle.dumps(len(frames)))
    environment.close()


WRITERS = {"extxyz": write_extxyz, "fairchem_lmdb": write_fairchem_lmdb}
KEYS = {
    "extxyz": LabelKeys(energy="energy", forces="forces", stress="stress"),
    "fairchem_lmdb": LabelKeys(energy="y", forces="force", stress="stress"),
}


@pytest.fixture(params=NAMES)
def name(request):
    assert request.param in WRITERS, f"add a writer for {request.param!r} to this test"
    return request.param


@pytest.fixture
def written(name, tmp_path):
    path = tmp_path / "sample.data"
    WRITERS[name](path, structures())
    return path


def assert_same(one, other, tolerance=2e-8):
    assert one.numbers.tolist() == other.numbers.tolist()
    assert one.pbc.tolist() == other.pbc.tolist()
    np.testing.assert_allclose(one.positions, other.positions, atol=tolerance)
    np.testing.assert_allclose(one.cell, other.cell, atol=tolerance)
    assert set(one.labels) == set(other.labels)
    for label, value in one.labels.items():
        np.testing.assert_allclose(other.labels[label], value, atol=tolerance, err_msg=label)
    assert (one.config_type, one.weight) == (other.config_type, other.weight)
    for mark in ("fixed", "tags"):
        if getattr(one, mark) is not None:
            assert getattr(one, mark).tolist() == getattr(other, mark).tolist()


def test_it_recognises_its_own_files_by_their_contents(name, written):
    assert detect_format(written) == name


def test_round_trip(name, written):
    dataset = open_dataset(written)
    assert len(dataset) == 3
    for one, other in zip(structures(), dataset, strict=True):
        assert_same(one, other)
    assert sorted(Dataset.of(structures()).describe()["labels"].items()) == sorted(dataset.describe()["labels"].items())


def test_a_missing_label_is_absent_not_zero(name, written):
    water, _, bare = open_dataset(written)
    assert set(water.labels) == {"energy", "forces"}
    assert set(bare.labels) == set()


def test_units_and_sign_are_settled_here(name, written):
    units = LabelUnits(energy="kcal/mol", length="bohr", stress="GPa", stress_sign="vasp")
    plain = open_dataset(written)[1]
    read = open_dataset(written, keys=KEYS[name], units=units)[1]
    energy, length = factor("energy", "kcal/mol"), factor("length", "bohr")
    np.testing.assert_allclose(read.labels["energy"], plain.labels["energy"] * energy)
    np.testing.assert_allclose(read.labels["forces"], plain.labels["forces"] * energy / length)
    np.testing.assert_allclose(read.labels["stress"], -plain.labels["stress"] * factor("stress", "GPa"))
    np.testing.assert_allclose(read.positions, plain.positions * length)
    np.testing.assert_allclose(read.cell, plain.cell * length)
    other = open_dataset(written, units=LabelUnits(energy="kcal/mol", forces="meV/Ang"))[1]
    np.testing.assert_allclose(other.labels["forces"], plain.labels["forces"] * 1e-3)


def test_a_virial_becomes_a_stress(name, written):
    plain = open_dataset(written)[1]
    units = LabelUnits(stress_quantity="virial", energy="meV")
    read = open_dataset(written, keys=KEYS[name], units=units)[1]
    np.testing.assert_allclose(read.labels["stress"], -plain.labels["stress"] * 1e-3 / plain.volume)


def test_a_label_can_be_left_out(name, written):
    assert "stress" not in open_dataset(written, keys=LabelKeys(stress=None))[1].labels


def test_a_name_that_is_nowhere_is_refused(name, written):
    with pytest.raises(DataError, match="no frame has energy under the name 'enregy'"):
        open_dataset(written, keys=LabelKeys(energy="enregy"))


def test_reading_twice_gives_the_same_fingerprint(name, written):
    assert open_dataset(written).fingerprint == open_dataset(written).fingerprint


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("label", ["energy", "forces"])
def test_a_label_that_is_not_finite_names_file_and_frame(name, tmp_path, label, value):
    frames = structures()
    frames[1].labels[label][...] = value
    path = tmp_path / "broken.data"
    WRITERS[name](path, frames)
    with pytest.raises(DataError, match=r"broken\.data: (frame|record) 1.*NaN or infinity"):
        list(open_dataset(path))


def test_an_empty_file(name, tmp_path):
    path = tmp_path / "empty.data"
    path.touch()
    with pytest.raises(DataError, match="is empty"):
        open_dataset(path, name)


def test_a_truncated_file(name, written):
    whole = written.read_bytes()
    written.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match=r"cut off|columns"):
        list(open_dataset(written, name))
