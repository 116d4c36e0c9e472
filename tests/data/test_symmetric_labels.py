"""Labels of symmetric tensors that are not symmetric are refused; others are read and written as what they are."""

import numpy as np
import pytest
from ruamel.yaml import YAML

from forgefield.core.catalog import Catalog
from forgefield.core.errors import DataError
from forgefield.core.quantities import Quantity
from forgefield.core.structure import Structure
from forgefield.data.conversion import convert
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.label_names import LabelKeys, TargetKey
from forgefield.data.moments import measure_targets
from forgefield.data.settings import DataSettings
from forgefield.data.writer import WRITERS

BORN = {"key": "born", "per": "atom", "components": 9, "rotates": "tensor"}
CHI = {**BORN, "key": "chi", "per": "structure"}
FREE = {"symmetric": False}
FRAME = """2
Properties=species:S:1:pos:R:3:born:R:9 energy=-1.0 chi="{chi}" quad="{quad}"
H 0.0 0.0 0.0 1.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 1.0
O 1.0 0.0 0.0 2.0 {xy} 0.0 {yx} 2.0 0.0 0.0 0.0 2.0
"""
EVEN = "1 2 3 2 4 5 3 5 6"


def read(tmp_path, xy=0.1, yx=0.1, chi=EVEN, quad=EVEN, **keys):
    (tmp_path / "a.xyz").write_text(FRAME.format(xy=xy, yx=yx, chi=chi, quad=quad))
    settings = DataSettings.model_validate(keys)
    return open_dataset(tmp_path / "a.xyz", keys=settings.keys, units=settings.units)[0]


def test_a_label_that_is_not_symmetric_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.xyz.*born is not symmetric: xy = 0\.1, yx = 0\.2 of atom 2") as caught:
        read(tmp_path, yx=0.2, targets={"born": BORN})
    assert "data.targets.born.symmetric: false" in str(caught.value.fix)
    found = read(tmp_path, yx=0.2, targets={"born": BORN | FREE})
    assert found.labels["born"][1, 0].tolist() == [2.0, 0.1, 0.0]
    assert found.labels["born"][1, 1].tolist() == [0.2, 2.0, 0.0]
    with pytest.raises(DataError, match=r"chi is not symmetric: xz = 3, zx = 3\.1"):
        read(tmp_path, chi="1 2 3 2 4 5 3.1 5 6", targets={"chi": CHI})


def test_what_rounding_leaves_is_taken(tmp_path):
    assert read(tmp_path, yx=0.1 + 1e-6, targets={"born": BORN}).labels["born"].shape == (2, 3, 3)
    with pytest.raises(DataError, match="not symmetric"):
        read(tmp_path, yx=0.1 + 3e-6, targets={"born": BORN})


def test_known_tensors_may_be_noisy(tmp_path):
    """Up to a hundredth of the largest component, as of stresses."""
    assert read(tmp_path, quad="1 2 3 2 4 5 3.05 5 6", quadrupole_key="quad").labels["quadrupole"][2, 0] == 3.05
    assert read(tmp_path, quad="0 1e-9 0 0 0 0 0 0 0", quadrupole_key="quad").labels["quadrupole"].shape == (3, 3)
    with pytest.raises(DataError, match="quadrupole is not symmetric: xz = 3, zx = 4") as caught:
        read(tmp_path, quad="1 2 3 2 4 5 4 5 6", quadrupole_key="quad")
    assert "order of its nine numbers" in str(caught.value.fix)


def test_six_numbers_are_a_symmetric_tensor(tmp_path):
    assert read(tmp_path, chi="1 4 6 5 3 2", targets={"chi": CHI}).labels["chi"].tolist() == [
        [1, 2, 3], [2, 4, 5], [3, 5, 6],
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"chi has shape \(6,\), expected \(3, 3\)"):
        read(tmp_path, chi="1 4 6 5 3 2", targets={"chi": CHI | FREE})


@pytest.mark.parametrize(("place", "names"), [((0, 1, 2), "(xyz|yxz|xzy)"), ((0, 0, 1), "(xxy|xyx)")])
def test_higher_ranks_are_symmetric_in_all_indices(place, names):
    cube = Quantity("cube", "", "structure", (3, 3, 3), "", rotates="tensor")
    make = lambda value: Structure([1], np.zeros((1, 3)), labels={"cube": value}, declared={"cube": cube})  # noqa: E731
    v = np.array([1.0, 2.0, 3.0])
    value = np.einsum("i,j,k->ijk", v, v, v)
    assert make(value).labels["cube"].shape == (3, 3, 3)
    value[place] += 0.1
    with pytest.raises(DataError, match=f"cube is not symmetric: {names} = .*symmetric in all indices"):
        make(value)


def test_only_tensors_are_symmetric_or_not():
    with pytest.raises(ValueError, match="symmetric: false is said of tensors"):
        TargetKey(key="a", per="atom", symmetric=False)


def test_sources_that_say_otherwise_than_the_model_are_refused(tmp_path):
    general = read(tmp_path, yx=0.2, targets={"born": BORN | FREE})
    symmetric = TargetKey.model_validate(BORN).quantity("born")
    assert measure_targets(Dataset.of([general]), [general.declared["born"]])["born"]["mean"] == [0.0] * 9
    with pytest.raises(DataError, match="born is not symmetric"):
        measure_targets(Dataset.of([general]), [symmetric])


@pytest.mark.parametrize("form", ["store", "ase_db", "extxyz"])
def test_they_stay_what_they_are_when_written(tmp_path, form):
    metal = {"key": "metal", "per": "structure", "threshold": 0.7}
    keys = LabelKeys.model_validate({"targets": {"born": BORN | FREE, "chi": CHI, "metal": metal}})
    values = {"born": np.arange(18.0).reshape(2, 3, 3), "chi": np.eye(3), "metal": np.array(1.0)}
    made = Structure([1, 8], np.eye(3)[:2], labels={"energy": 1.0, **values}, declared=keys.declared)
    entry = Catalog(WRITERS).entry(form)
    path = tmp_path / {"store": "a", "ase_db": "a.db", "extxyz": "a.xyz"}[form]
    notes = convert(Dataset.of([made]), entry.build(path, entry.settings()), "").notes
    again: dict = {}
    if form == "extxyz":  # its keys are to be given
        words = [word.strip('"').removeprefix("data.targets.") for word in notes[0].split("--set ")[1:]]
        texts = dict(word.strip().strip('"').split("=", 1) for word in words)
        again = {"keys": LabelKeys.model_validate({"targets": {k: YAML(typ="safe").load(v) for k, v in texts.items()}})}
    found = open_dataset(path, **again)[0]
    for name, quantity in keys.declared.items():
        np.testing.assert_array_equal(found.labels[name], values[name])
        kept = found.declared[name]
        same = (kept.per, kept.shape, kept.rotates, kept.symmetric, kept.kind)
        assert same == (quantity.per, quantity.shape, quantity.rotates, quantity.symmetric, quantity.kind)
