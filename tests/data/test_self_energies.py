"""Reference energies fitted: to all digits, without outliers, with what cannot be determined named."""

import numpy as np
import pytest
from pydantic import ValidationError

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data import self_energies
from forgefield.data.dataset import Dataset
from forgefield.data.energy_file import read_energies, write_energies
from forgefield.data.parts import reference_setting
from forgefield.data.self_energies import explain_ties, fit_energies, solve, tied_columns
from forgefield.data.settings import DataSettings
from forgefield.data.statistics import measure

TRUE = np.array([-13.587222780835477, -1035.4817, -2041.3604239, -54321.1234567])
ELEMENTS = [1, 6, 8, 79]


def compositions(n=400, seed=0):
    return np.random.default_rng(seed).integers(0, 12, (n, 4)).astype(np.int32) + np.array([1, 0, 0, 0], dtype=np.int32)


def test_all_digits_are_kept_in_blocks_too(monkeypatch):
    counts = compositions()
    values, rank = solve(counts, counts @ TRUE)
    np.testing.assert_allclose(values, TRUE, atol=1e-9)
    monkeypatch.setattr(self_energies, "LARGE", 0)
    monkeypatch.setattr(self_energies, "BLOCK", 37)
    in_blocks, same = solve(counts, counts @ TRUE)
    np.testing.assert_allclose(in_blocks, TRUE, atol=1e-8)
    assert rank == same == 4
    tied = counts[:, [0, 1, 1]] * np.array([1, 1, 2])
    smallest, rank = solve(tied, tied @ np.array([1.0, 2.0, 3.0]))
    assert rank == 2
    np.testing.assert_allclose(
        smallest, np.linalg.lstsq(tied.astype(float), tied @ np.array([1.0, 2, 3]), rcond=None)[0]
    )


def test_outliers_are_left_out_of_the_second_fit():
    counts, random = compositions(1000), np.random.default_rng(1)
    energies = counts @ TRUE + random.normal(0, 0.1, 1000)
    wrong = random.choice(1000, 20, replace=False)
    energies[wrong] += 500.0
    plain, trimmed = fit_energies(counts, energies), fit_energies(counts, energies, (2, 98))
    assert np.abs(plain.values - TRUE).max() > 0.1
    assert np.abs(trimmed.values - TRUE).max() < 0.02
    assert (~trimmed.used).sum() == 40
    assert not trimmed.used[wrong].any()
    assert trimmed.rms < 0.05 < plain.rms


def test_the_only_structures_of_an_element_are_not_trimmed_away():
    counts = np.concatenate([compositions(200)[:, :3], np.zeros((200, 1), dtype=np.int32)], axis=1)
    counts[0, 3] = 1
    energies = counts @ TRUE + np.random.default_rng(0).normal(0, 0.1, 200)
    counts = np.concatenate([counts, counts[:1]])
    energies = np.append(energies, energies[0] + 1000)  # the two frames of gold disagree: outliers both
    assert fit_energies(counts, energies, (2, 98)).used[[0, 200]].any()


def test_what_cannot_be_determined_is_named():
    counts = np.array([[4, 1, 0, 2], [8, 2, 1, 2], [12, 3, 5, 1]])
    assert tied_columns(counts) == [[0, 1]]
    text = explain_ties([[0, 1]], ELEMENTS)
    assert text.startswith("H, C cannot be told apart")
    assert text.endswith("O, Au are determined")
    assert tied_columns(compositions()) == []
    assert tied_columns(np.array([[2, 0], [4, 0]])) == [[1]]
    two = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])
    assert tied_columns(two) == [[0, 1], [2, 3]]


def molecules(formulas, energies):
    random = np.random.default_rng(0)
    return Dataset.of(
        [
            Structure(f, random.random((len(f), 3)) * 2, labels={"energy": e})
            for f, e in zip(formulas, energies, strict=True)
        ]
    )


def test_given_values_settle_what_compositions_do_not(tmp_path):
    water = [[8, 1, 1]] * 3 + [[8, 1, 1] * 2]
    data = molecules(water, [-10.0, -10.2, -9.8, -20.0])
    found = measure(data, 5.0)
    assert "H, O cannot be told apart" in found.notes[0]
    found = measure(data, 5.0, {"H": -1.5, "O": "fit"})
    assert found.reference_energies["default"] == {1: -1.5, 8: pytest.approx(-7.0)}
    assert found.reference_source == "given"
    assert not found.notes
    path = tmp_path / "e0.yaml"
    path.write_text("1: -1.5\nO: fit\n")
    assert measure(data, 5.0, path).reference_energies["default"][8] == pytest.approx(-7.0)
    with pytest.raises(DataError, match="no reference energy"):
        measure(data, 5.0, {"H": -1.5})


def test_percentiles_of_the_settings_reach_the_fit():
    formulas = [[8, 1, 1], [8, 1], [1, 1], [8, 8]] * 30
    energies = [-10.0 * f.count(8) - 2.0 * f.count(1) for f in formulas]
    energies[7] += 300
    data = molecules(formulas, energies)
    e0 = reference_setting(DataSettings(e0_percentiles=[2, 98]))
    found = measure(data, 5.0, e0)
    assert found.reference_energies["default"] == {1: pytest.approx(-2.0), 8: pytest.approx(-10.0)}
    assert "fitted without" in found.notes[0]
    assert measure(data, 5.0).reference_energies["default"][8] != pytest.approx(-10.0)
    for wrong in (
        {"e0_percentiles": [98, 2]},
        {"e0_percentiles": [2, 101]},
        {"e0": "isolated", "e0_percentiles": [2, 98]},
    ):
        with pytest.raises(ValidationError, match="e0_percentiles"):
            DataSettings(**wrong)


def test_a_file_keeps_all_digits(tmp_path):
    one = {"default": dict(zip(ELEMENTS, TRUE.tolist(), strict=True))}
    write_energies(tmp_path / "a.yaml", one, ["made by a test"])
    assert read_energies(tmp_path / "a.yaml") == {str(z): e for z, e in one["default"].items()}
    assert (tmp_path / "a.yaml").read_text().startswith("# made by a test\n1: -13.587222780835477\n")
    write_energies(tmp_path / "b.yaml", {"low": one["default"], "0": {1: -1.0}}, [])
    found = read_energies(tmp_path / "b.yaml")
    assert found["low"]["79"] == TRUE[3]
    assert found["0"] == {"1": -1.0}
    (tmp_path / "c.yaml").write_text("a: [")
    with pytest.raises(DataError, match="cannot be read"):
        read_energies(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("- 1")
    with pytest.raises(DataError, match="no mapping"):
        read_energies(tmp_path / "c.yaml")
