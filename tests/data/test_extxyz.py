import gzip
import lzma

import numpy as np
import pytest

from forgefield.core.errors import DataError
from forgefield.data.dataset import open_dataset
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits

CELL = 'Lattice="4 0 0 0 5 0 0 0 6"'
FORCES = "Properties=species:S:1:pos:R:3:forces:R:3"
FRAME = f"2\n{FORCES} energy=-1.5\nO 0.0 0.0 0.0 0.1 0.2 0.3\nH 0.0 0.0 1.0 -0.1 -0.2 -0.3\n"


@pytest.fixture
def read(tmp_path):
    def reader(text, *, keys=None, units=None, name="set.xyz"):
        path = tmp_path / name
        path.write_text(text)
        return open_dataset(path, "extxyz", keys, units)

    return reader


def one(comment, rows="H 0 0 0\n"):
    return f"{len(rows.splitlines())}\n{comment}\n{rows}"


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gz", "xz"])
def test_compressed_files_are_known_by_their_contents(tmp_path, pack):
    path = tmp_path / "no_suffix"
    path.write_bytes(pack((FRAME * 3).encode()))
    assert len(open_dataset(path)) == 3


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gz", "xz"])
def test_a_compressed_file_that_is_cut_off(tmp_path, pack):
    path = tmp_path / "set.xyz"
    path.write_bytes(pack((FRAME * 300).encode())[:-20])
    with pytest.raises(DataError, match=r"compressed file is (cut off|damaged)"):
        open_dataset(path)


def test_a_damaged_compressed_file(tmp_path):
    whole = bytearray(lzma.compress((FRAME * 300).encode()))
    whole[len(whole) // 2] ^= 255
    path = tmp_path / "set.xyz.xz"
    path.write_bytes(bytes(whole))
    with pytest.raises(DataError, match="damaged"):
        open_dataset(path)


def test_windows_line_ends_and_blank_lines_at_the_end(read):
    dataset = read((FRAME + FRAME).replace("\n", "\r\n") + "\n\n  \n")
    assert len(dataset) == 2
    np.testing.assert_allclose(dataset[1].labels["forces"][1], [-0.1, -0.2, -0.3])


def test_blank_lines_between_frames_do_not_hide_what_follows(read):
    assert len(read(FRAME + "\n" + FRAME)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FRAME + "2\n", r"frame 1 \(line 5\): the file ends after 0 of 2 atoms"),
        (FRAME + "2\n" + FORCES + "\nO 0 0 0 0 0 0\n", r"frame 1 .* ends after 1 of 2 atoms"),
        (FRAME + FRAME[:-6] + "\n", r"frame 1 .*: atom 1 has 6 columns, Properties says 7"),
        (FRAME.replace("2\n", "3\n", 1) + FRAME, r"frame 0 .*: atom 2 has 1 columns"),
        (FRAME.replace("2\n", "1\n", 1) + FRAME, r"frame 1 .*: expected a count of atoms, found 'H 0\.0"),
        ("0\n\n", "has 0 atoms"),
        ("-1\n\n", "has -1 atoms"),
        ("  \n \n", "is empty"),
        (FRAME + "C 0 0 0\n", "expected a count of atoms"),
    ],
)
def test_wrong_counts(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_a_last_number_cut_short(read):
    row = "C        0.32656990      -1.01286015       0.72107275\n"
    whole = "3\nenergy=1\n" + 3 * row
    assert len(read(whole[:-1])) == 1  # only the newline is missing
    with pytest.raises(DataError, match="cut off"):
        read(whole[:-4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (one("energy=abc"), "energy=abc is not a number"),
        (one("energy"), "energy=True is not a number"),
        (one("energy=nan"), "NaN"),
        (one('energy="1 2"'), "expected one number"),
        (one("Properties=species:S:1:pos:R:3:energy:R:1", "H 0 0 0 1\nH 0 0 1 1\n"), "expected one number"),
        (one("Properties=species:S:1:pos:R:3:forces:R:2", "H 0 0 0 1 2\n"), r"forces has shape \(1, 2\)"),
        (one("", "Qq 0 0 0\n"), "'Qq' is no element"),
        (one("Properties=species:S:1:pos:R:3", "H 0 0 nan\n"), "NaN"),
        (one("Properties=species:S:1:pos:R:3", "H 0 0 x\n"), "cannot be read"),
        (one('pbc="T T T"'), "zero volume"),
        (one(CELL + ' stress="1 2 3 4 5 6"'), "stress"),
        (one(CELL + ' stress="1 2 3 4 5 6 7 8 9"'), "not symmetric"),
        (one('virial="1 0 0 0 1 0 0 0 1"'), "virial.*but no cell"),
        (one("config_weight=heavy"), "config_weight='heavy' is not a number"),
        (one("config_weight=-1"), "weight"),
        (one("config_forces_weight=0.5"), "config_forces_weight=0.5 is not supported"),
    ],
)
def test_a_wrong_frame_is_named(read, text, message):
    with pytest.raises(DataError, match=message) as caught:
        list(read(FRAME + text))
    assert "set.xyz: frame 1" in str(caught.value)


@pytest.mark.parametrize("name", ["energy", "REF_energy", "Energy", "dft_energy", "free_energy", "total_energy"])
def test_usual_names_of_the_energy(read, name):
    assert read(one(f"{name}=-2.5"))[0].labels["energy"] == -2.5


@pytest.mark.parametrize("name", ["forces", "force", "REF_forces", "DFT_forces"])
def test_usual_names_of_the_forces(read, name):
    found = read(one(f"Properties=species:S:1:pos:R:3:{name}:R:3", "H 0 0 0 1 2 3\n"))[0].labels["forces"]
    assert found.tolist() == [[1.0, 2.0, 3.0]]


def test_two_energies_that_differ_are_refused_and_listed(read):
    text = one("energy=-1 REF_energy=-2")
    with pytest.raises(DataError, match=r"several names could be the energy.*'energy'.*'REF_energy'.*data\.energy_key"):
        read(text)
    assert read(text, keys=LabelKeys(energy="REF_energy"))[0].labels["energy"] == -2


def test_two_names_with_one_value_are_no_question(read):
    assert read(one("energy=-1 free_energy=-1"))[0].labels["energy"] == -1


def test_two_forces_that_differ_are_refused(read):
    text = one("Properties=species:S:1:pos:R:3:forces:R:3:REF_forces:R:3", "H 0 0 0 1 2 3 4 5 6\n")
    with pytest.raises(DataError, match="several names could be the forces"):
        read(text)
    assert read(text, keys=LabelKeys(forces="REF_forces"))[0].labels["forces"].tolist() == [[4.0, 5.0, 6.0]]


def test_another_name_in_another_frame_is_refused(read):
    with pytest.raises(DataError, match=r"different names in different frames: 'energy' \(first in set.xyz: frame 0"):
        read(one("energy=-1") + one("REF_energy=-2"))


def test_a_name_given_by_hand(read):
    text = "1\nProperties=species:S:1:pos:R:3:xtb_forces:R:3 xtb_energy=-3\nH 0 0 0 1 1 1\n"
    assert read(text)[0].labels == {}
    keys = LabelKeys(energy="xtb_energy", forces="xtb_forces")
    assert set(read(text, keys=keys)[0].labels) == {"energy", "forces"}
    with pytest.raises(DataError, match="did you mean 'xtb_energy'"):
        read(text, keys=LabelKeys(energy="xtb_enregy"))
    with pytest.raises(DataError, match="not as a value per structure"):
        read(text, keys=LabelKeys(energy="xtb_forces"))


def test_stress_and_virial_of_the_same_tensor_agree_or_are_refused(read):
    tensor = "0.12 0 0 0 0.24 0 0 0 0.36"
    virial = "-14.4 0 0 0 -28.8 0 0 0 -43.2"
    found = read(one(f'{CELL} stress="{tensor}" virial="{virial}"'))[0].labels["stress"]
    np.testing.assert_allclose(found, np.diag([0.12, 0.24, 0.36]))
    with pytest.raises(DataError, match="several names could be the stress"):
        read(one(f'{CELL} stress="{tensor}" virial="{virial[1:]}"'))


def test_a_name_that_may_be_both_stress_and_virial_is_asked_about(read):
    text = one(f'{CELL} virial_stress="1 0 0 0 1 0 0 0 1"')
    keys = LabelKeys(stress="virial_stress")
    with pytest.raises(DataError, match="may be a stress or a virial"):
        read(text, keys=keys)
    found = read(text, keys=keys, units=LabelUnits(stress_quantity="stress", stress="kbar", stress_sign="vasp"))
    np.testing.assert_allclose(found[0].labels["stress"], -np.eye(3) * 0.1 / 160.21766339999996)


def test_six_numbers_are_in_voigt_order(read):
    found = read(one(f'{CELL} REF_stress="1 2 3 4 5 6"'))[0].labels["stress"]
    assert found.tolist() == [[1, 6, 5], [6, 2, 4], [5, 4, 3]]


def test_groups_heads_weights_and_marks(read):
    rows = "H 0 0 0 F 2\nO 0 0 1 T 1\n"
    comment = "Properties=species:S:1:pos:R:3:move_mask:L:1:tags:I:1 config_type=slab head=pbe config_weight=3 level=7"
    s = read(one(comment + ' name="a b"', rows))[0]
    assert (s.config_type, s.head, s.weight) == ("slab", "pbe", 3.0)
    assert s.fixed.tolist() == [True, False]
    assert s.tags.tolist() == [2, 1]
    assert s.info == {"level": 7, "name": "a b"}
    assert read(one("theory=pbe"), keys=LabelKeys(head="theory"))[0].head == "pbe"


def test_forces_of_fixed_atoms_are_kept(read):
    comment = "Properties=species:S:1:pos:R:3:move_mask:L:1:forces:R:3"
    assert read(one(comment, "H 0 0 0 F 1 2 3\n"))[0].labels["forces"].tolist() == [[1.0, 2.0, 3.0]]


def test_many_atoms_with_a_count_of_several_digits(read):
    rows = "".join(f"H 0 0 {k}\n" for k in range(123))
    assert len(read(one("energy=1", rows))[0]) == 123


def test_the_energy_keeps_all_digits(read):
    assert float(read(one("energy=-17660.461737861464"))[0].labels["energy"]) == -17660.461737861464
