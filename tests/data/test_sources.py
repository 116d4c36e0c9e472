"""Sources of one data set with names, units and marks of their own."""

import pickle

import lmdb
import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.core.units import HARTREE
from forgefield.data.dataset import open_dataset
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits
from forgefield.data.parts import open_part
from forgefield.data.reader import ListFrames
from forgefield.data.settings import DataSettings
from forgefield.data.sources import Screened

FRAME = "1\nProperties=species:S:1:pos:R:3 {}\nHe 0 0 {}\n"


def write(path, comment, z=0.0):
    path.write_text(FRAME.format(comment, z))
    return path


def test_each_source_has_its_own_names_units_and_marks(tmp_path):
    write(tmp_path / "a.xyz", "energy=-1.0")
    write(tmp_path / "b.xyz", "e_tot=-1.0 energy=5.0")
    own = {"path": tmp_path / "b.xyz", "energy_key": "e_tot", "energy_unit": "Ha", "fidelity": "ccsd", "head": "high"}
    settings = DataSettings(train=[str(tmp_path / "a.xyz"), own | {"weight": 0.5}])
    first, second = open_part(settings, "train")
    assert (first.labels["energy"], first.fidelity, first.head, first.weight) == (-1.0, None, None, 1.0)
    assert (second.labels["energy"], second.fidelity) == (-HARTREE, "ccsd")
    assert (second.head, second.weight) == ("high", 0.5)


def test_a_source_follows_the_block_in_what_it_does_not_say(tmp_path):
    write(tmp_path / "a.xyz", "e=-1.0")
    settings = DataSettings(train={"path": tmp_path / "a.xyz", "fidelity": "x"}, energy_key="e", energy_unit="kcal/mol")
    (found,) = open_part(settings, "train")
    assert found.labels["energy"] == pytest.approx(-0.0433641153)


def test_what_is_written_back_reads_equal_and_stays_short(tmp_path):
    settings = DataSettings(train=["a.xyz", {"path": "b.xyz", "weight": 2.0}], energy_unit="Ha")
    plain = settings.model_dump(mode="json")
    assert plain["train"] == ["a.xyz", {"path": "b.xyz", "weight": 2.0}]
    assert DataSettings.model_validate(plain) == settings


class Faulty(ListFrames):
    """Every second structure cannot be read."""

    def __getitem__(self, index):
        if index % 2:
            raise DataError("holds NaN", f"frame {index}")
        return super().__getitem__(index)


def test_structures_that_cannot_be_used_may_be_left_out(tmp_path):
    helium = Structure([2], [[0.0, 0.0, 0.0]])
    found = Screened(Faulty([helium] * 5))
    assert len(found) == 3
    assert [found[i] is helium for i in range(3)] == [True] * 3
    (note,) = found.notes
    assert "2 of 5 structures are left out" in note
    assert "frame 1" in note


def test_damaged_frames_among_those_that_are_looked_at_first_may_be_left_out(tmp_path):
    store = tmp_path / "records.lmdb"
    environment = lmdb.open(str(store), subdir=False, map_size=2**20, lock=False)
    good = {"pos": np.eye(3)[:2], "cell": np.eye(3) * 9, "atomic_numbers": np.array([8.0, 1.0]), "natoms": 2, "y": -1.5}
    with environment.begin(write=True) as transaction:
        for k in range(6):
            transaction.put(str(k).encode(), b"damaged" if k in (0, 3) else pickle.dumps(good))
        transaction.put(b"length", pickle.dumps(6))
    environment.close()
    with pytest.raises(DataError, match="record 0"):
        open_part(DataSettings(train=str(store)), "train")
    found = open_part(DataSettings(train=str(store), on_error="skip"), "train")
    assert [float(s.labels["energy"]) for s in found] == [-1.5] * 4
    assert any("2 of 6 structures are left out" in note for note in found.notes)


PAIR = "2\nProperties=species:S:1:pos:R:3 energy={}\nH 0 0 0\nH 0 0 {}\n"


@pytest.mark.parametrize(
    ("wrong", "kept", "words"),
    [
        (PAIR.format(9, 1).replace("2\n", "3\n", 1), [0, 1, 3, 4], "frame 2"),
        (PAIR.format(9, 1).replace("2\n", "1\n", 1), [0, 1, 3, 4], "frame 2 may be too small"),
        (PAIR.format(9, 1).replace("2\n", "9\n", 1), [0, 1, 3, 4], "frame 2"),
        (PAIR.format(9, 1).replace("2\n", "two\n", 1), [0, 1, 3, 4], "expected a count"),
        (PAIR.format(9, 1).replace("H 0 0 0\n", ""), [0, 1, 3, 4], "frame 2"),
    ],
)
def test_frames_with_a_wrong_count_of_atoms_may_be_left_out(tmp_path, wrong, kept, words):
    texts = [PAIR.format(k, 1 + k) if k != 2 else wrong for k in range(5)]
    (tmp_path / "a.xyz").write_text("".join(texts))
    with pytest.raises(DataError):
        open_part(DataSettings(train=str(tmp_path / "a.xyz")), "train")
    found = open_part(DataSettings(train=str(tmp_path / "a.xyz"), on_error="skip"), "train")
    assert [float(s.labels["energy"]) for s in found] == kept
    assert all(s.positions[1, 2] == 1 + s.labels["energy"] for s in found)
    (note,) = found.notes
    assert "1 frame that cannot be read is left out" in note
    assert words in note
    assert found[len(found) - 1].origin == "a.xyz: frame 4"


def test_a_file_that_was_cut_off_keeps_its_whole_frames(tmp_path):
    text = "".join(PAIR.format(k, 1 + k) for k in range(4))
    (tmp_path / "a.xyz").write_text(text[:-9])
    found = open_part(DataSettings(train=str(tmp_path / "a.xyz"), on_error="skip"), "train")
    assert [float(s.labels["energy"]) for s in found] == [0, 1, 2]
    (tmp_path / "b.xyz").write_text("3\nenergy=1\nH 0 0 0\n")
    with pytest.raises(DataError, match=r"no frame can be read.*ends after"):
        open_part(DataSettings(train=str(tmp_path / "b.xyz"), on_error="skip"), "train")


def test_charge_spin_and_fidelity_are_read(tmp_path):
    write(tmp_path / "a.xyz", "charge=-1 multiplicity=2 fidelity=dft energy=1.0")
    (found,) = open_dataset(tmp_path / "a.xyz")
    assert (found.charge, found.multiplicity, found.fidelity) == (-1.0, 2, "dft")
    assert found.info == {}
    write(tmp_path / "b.xyz", "unpaired=1")
    keys = LabelKeys(multiplicity="unpaired")
    (found,) = open_dataset(tmp_path / "b.xyz", keys=keys, units=LabelUnits(spin="unpaired"))
    assert found.multiplicity == 2
    (found,) = open_dataset(tmp_path / "a.xyz", keys=LabelKeys(charge=None, fidelity=None))
    assert (found.charge, found.fidelity) == (None, None)


@pytest.mark.parametrize("wrong", ["multiplicity=0", "multiplicity=1.5", "charge=many"])
def test_impossible_charge_and_spin_are_refused(tmp_path, wrong):
    write(tmp_path / "a.xyz", wrong)
    with pytest.raises(DataError, match="frame 0"):
        list(open_dataset(tmp_path / "a.xyz"))


def test_base_labels_and_features(tmp_path):
    text = "2\nProperties=species:S:1:pos:R:3:forces:R:3:xtb_f:R:3:q0:R:1 energy=-4.0 xtb=-1.0 T=300\n"
    rows = "H 0 0 0 1 0 0 0.5 0 0 0.1\nH 0 0 1 -1 0 0 -0.5 0 0 0.2\n"
    (tmp_path / "a.xyz").write_text(text + rows)
    keys = LabelKeys(base={"energy": "xtb", "forces": "xtb_f"}, features={"temperature": "T", "charge": "q0"})
    (found,) = open_dataset(tmp_path / "a.xyz", keys=keys, units=LabelUnits(energy="Ha"))
    assert found.base["energy"] == -HARTREE
    assert found.labels["energy"] == -4 * HARTREE
    np.testing.assert_allclose(found.base["forces"][:, 0], [0.5 * HARTREE, -0.5 * HARTREE])
    np.testing.assert_array_equal(found.features["temperature"], [300.0])
    np.testing.assert_array_equal(found.features["charge"], [[0.1], [0.2]])


def test_energy_per_atom_becomes_the_total(tmp_path):
    (tmp_path / "a.xyz").write_text("2\nenergy=-3.0\nH 0 0 0\nH 0 0 1\n")
    (found,) = open_dataset(tmp_path / "a.xyz", units=LabelUnits(energy_per="atom"))
    assert found.labels["energy"] == -6.0


def test_declared_units_stand_unless_the_user_says_otherwise():
    units = LabelUnits(length="nm")
    declared = units.declared(energy="Ha", length="bohr")
    assert (declared.energy, declared.length) == ("Ha", "nm")
    (note,) = units.overruled(energy="Ha", length="bohr")
    assert "'bohr'" in note
    assert "'nm'" in note


def test_records_of_a_text_file_cannot_be_selected(tmp_path):
    write(tmp_path / "a.xyz", "energy=1.0")
    with pytest.raises(DataError, match="cannot be selected"):
        open_part(DataSettings(train=tmp_path / "a.xyz", select="status=completed"), "train")
