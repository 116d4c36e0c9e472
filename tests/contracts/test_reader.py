"""Every reader of the catalog: round trip, units and signs, missing labels, damaged files."""

import pickle
from pathlib import Path

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
from forgefield.data.store.store_writer import StoreWriter

ELSEWHERE = {
    "alignn": "test_alignn.py",
    "alignn_cache": "test_alignn.py",
    "xequinet": "test_xequinet.py",
}
"""Formats with units, names or limits of their own, and the file in tests/data that tests them."""
NAMES = [name for name in Catalog("forgefield.data.readers").names() if name not in ELSEWHERE]


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


def ase_atoms(s):
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
    return atoms


def write_extxyz(path, frames):
    with path.open("w") as stream:
        for s in frames:
            write(stream, ase_atoms(s), format="extxyz")


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


def write_store(path, frames):
    writer = StoreWriter(path)
    for s in frames:
        writer.add(s)
    writer.finish()


def largest_file(path):
    return path if path.is_file() else max(path.iterdir(), key=lambda p: p.stat().st_size)


def write_pacemaker(path, frames):
    pandas = pytest.importorskip("pandas")
    rows = []
    for s in frames:
        atoms = Atoms(s.numbers, s.positions, cell=s.cell, pbc=s.pbc, tags=s.tags)
        if s.fixed is not None:
            atoms.set_constraint(FixAtoms(mask=s.fixed))
        labels = {name: s.labels.get(name) for name in ("energy", "forces", "stress")}
        rows.append({"ase_atoms": atoms, **labels, "config_type": s.config_type, "config_weight": s.weight})
    columns = {name: pandas.Series([row[name] for row in rows], dtype=object) for name in rows[0]}
    pandas.DataFrame(columns).to_pickle(path, compression="gzip")


def write_traj(path, frames):
    images = [ase_atoms(s) for s in frames]
    with path.open("wb") as stream:
        write(stream, images, format="traj")


def ours(name):
    def write_with_writer(path, frames):
        entry = Catalog("forgefield.data.writers").entry(name)
        writer = entry.build(path, entry.settings())
        for s in frames:
            writer.add(s)
        writer.finish()

    return write_with_writer


WRITERS = {
    "ase_db": ours("ase_db"),
    "ase_files": write_traj,
    "aselmdb": ours("aselmdb"),
    "extxyz": write_extxyz,
    "fairchem_lmdb": write_fairchem_lmdb,
    "pacemaker": write_pacemaker,
    "store": write_store,
}
CHECKED_WHEN_WRITTEN = {"store"}
RIGID = {"deepmd_npy", "md17_npz", "size_grouped", "structure_store"}
"""Formats that cannot hold structures as different as these; `tests/data/test_NAME.py` asks the same of them."""
PLAIN = LabelKeys(energy="energy", forces="forces", stress="stress")
KEYS = {
    "ase_db": PLAIN,
    "ase_files": PLAIN,
    "aselmdb": PLAIN,
    "pacemaker": PLAIN,
    "extxyz": LabelKeys(energy="energy", forces="forces", stress="stress"),
    "store": LabelKeys(energy="energy", forces="forces", stress="stress"),
    "fairchem_lmdb": LabelKeys(energy="y", forces="force", stress="stress"),
}


@pytest.fixture(params=[name for name in NAMES if name not in RIGID])
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


def test_formats_that_are_tested_elsewhere_have_a_file():
    folder = Path(__file__).parents[1] / "data"
    assert all((folder / file).is_file() for file in ELSEWHERE.values())


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
    if name == "ase_db" and label == "energy" and np.isnan(value):
        pytest.skip("SQLite has no NaN: the energy is absent")
    frames = structures()
    frames[1].labels[label][...] = value
    path = tmp_path / "broken.data"
    if name in CHECKED_WHEN_WRITTEN:
        with pytest.raises(DataError, match="NaN or infinity"):
            WRITERS[name](path, frames)
        return
    WRITERS[name](path, frames)
    with pytest.raises(DataError, match=r"broken\.data: (frame|record|row) [12].*NaN or infinity"):
        list(open_dataset(path))


def test_an_empty_file(name, tmp_path):
    path = tmp_path / "empty.data"
    path.touch()
    with pytest.raises(DataError, match="is empty"):
        open_dataset(path, name)


def test_a_truncated_file(name, written):
    file = largest_file(written)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match=r"cut off|columns|cannot be read"):
        list(open_dataset(written, name))
