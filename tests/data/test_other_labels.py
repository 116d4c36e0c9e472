"""Charges, dipole, targets of the user's own, masks of forces and fixed atoms, from extended XYZ to a batch."""

import numpy as np
import pytest
import torch

from forgefield.core.errors import DataError
from forgefield.core.quantities import QUANTITIES
from forgefield.core.structure import Structure
from forgefield.data.checks import check_fixed, check_labels, check_tags
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.labels import join_labels
from forgefield.data.settings import DataSettings

FILE = """2
Properties=species:S:1:pos:R:3:forces:R:3:q:R:1:good:I:1:move_mask:L:1 energy=-1.0 mu="1.0 0.0 2.0" band_gap=1.5
H 0.0 0.0 0.0 0.1 0.2 0.3 0.25 1 F
O 1.0 0.0 0.0 0.4 0.5 0.6 -0.25 0 T
1
Properties=species:S:1:pos:R:3:forces:R:3 energy=-2.0
O 0.0 0.0 0.0 0.0 0.0 0.0
"""
KEYS = {
    "charges_key": "q",
    "dipole_key": "mu",
    "dipole_unit": "Debye",
    "force_mask_key": "good",
    "targets": {"gap": {"key": "band_gap", "per": "structure", "unit": "eV"}},
}


def opened(tmp_path, text=FILE, **keys):
    (tmp_path / "a.xyz").write_text(text)
    settings = DataSettings.model_validate(keys)
    return open_dataset(tmp_path / "a.xyz", keys=settings.keys, units=settings.units)


def test_they_are_read_where_they_are_named(tmp_path):
    one, bare = opened(tmp_path, **KEYS)
    assert set(one.labels) == {"energy", "forces", "charges", "dipole", "gap"}
    assert set(bare.labels) == {"energy", "forces"}
    assert one.labels["charges"].tolist() == [0.25, -0.25]
    assert one.labels["gap"] == 1.5
    np.testing.assert_allclose(one.labels["dipole"], np.array([1.0, 0.0, 2.0]) * 0.2081943327, rtol=1e-9)
    assert one.force_mask.tolist() == [True, False]
    assert one.fixed.tolist() == [True, False]
    assert bare.force_mask is None
    assert set(opened(tmp_path)[0].labels) == {"energy", "forces"}


def test_a_batch_says_what_is_there(tmp_path):
    found = join_labels(list(opened(tmp_path, **KEYS)), torch.float64)
    assert found.has_forces.tolist() == [True, False, True]
    assert found.fixed.tolist() == [True, False, False]
    assert found.tags.tolist() == [0, 0, 0]
    assert found.has_extra["charges"].tolist() == [True, True, False]
    assert found.extra["charges"].tolist() == [0.25, -0.25, 0.0]
    assert found.has_extra["gap"].tolist() == [True, False]
    assert found.extra["dipole"].shape == (2, 3)
    assert found.volume.tolist() == [0.0, 0.0]


def test_masks_and_labels_are_part_of_the_fingerprint(tmp_path):
    prints = {opened(tmp_path, **{k: v for k, v in KEYS.items() if k not in left}).fingerprint
              for left in ((), ("charges_key",), ("force_mask_key",), ("targets",))}  # fmt: skip
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"charges_key": "charge"}, r"no frame has a charges under the name 'charge'.*data\.charges_key may be:.*q"),
        ({"charges_key": "forces"}, r"forces has shape \(2, 3\), expected \(2,\)"),
        ({"dipole_key": "band_gap"}, r"expected \(3,\)"),
        ({"force_mask_key": "q"}, "not one truth value per atom"),
        ({"force_mask_key": "mask"}, r"data\.force_mask_key may be"),
        ({"targets": {"gap": {"key": "gap", "per": "atom"}}}, r"data\.targets\.gap\.key may be"),
    ],
)
def test_wrong_names_and_shapes(tmp_path, keys, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        list(opened(tmp_path, **keys))


def test_settings():
    with pytest.raises(ValueError, match=r"known already: give data\.dipole_key"):
        _ = DataSettings.model_validate({"targets": {"dipole": {"key": "d", "per": "structure"}}}).keys
    with pytest.raises(ValueError, match="no unit of dipole"):
        DataSettings(dipole_unit="D")


def test_checks(tmp_path):
    data = opened(tmp_path, **KEYS)
    check_labels(data, {"charges", "energy"}, some=True)
    with pytest.raises(DataError, match=r"no frame has magmom.*declare data\.targets\.magmom"):
        check_labels(data, {"magmom"}, some=True)
    check_fixed(data)
    with pytest.raises(DataError, match="no atom is held fixed"):
        check_fixed(data.subset([1]))
    check_tags(data, {0: 0.5})
    with pytest.raises(DataError, match=r"no atom has tag 2.*may name 0"):
        check_tags(data, {0: 1.0, 2: 1.0})


def test_some_labels_are_enough_only_if_that_is_asked_for():
    z, x = [1, 1], np.eye(3)[:2]
    some = Dataset.of([Structure(z, x, labels={"energy": 1.0}), Structure(z, x)])
    check_labels(some, {"energy"}, some=True)
    with pytest.raises(DataError, match=r"1 of 2 frames have no energy.*train\.missing_labels: mask"):
        check_labels(some, {"energy"})


def test_a_label_of_an_unknown_name_needs_a_declaration():
    with pytest.raises(DataError, match="unknown label 'gap'"):
        Structure([1], np.zeros((1, 3)), labels={"gap": 1.0})
    with pytest.raises(DataError, match=r"dipole has shape \(\), expected \(3,\)"):
        Structure([1], np.zeros((1, 3)), labels={"dipole": 1.0})
    assert QUANTITIES["dipole"].is_vector
