from pathlib import Path

import pytest
from pydantic import ValidationError

from forgefield.core.settings import Settings
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits
from forgefield.data.settings import PATH_KEYS, DataSettings, Sampling


@pytest.mark.parametrize("settings", [DataSettings, Sampling, LabelKeys, LabelUnits])
def test_every_key_is_explained(settings):
    for name, field in settings.model_fields.items():
        assert field.description, name
        assert field.description[0].isupper() or field.description[0] == "'", name
        assert field.description.endswith("."), name


def test_paths_may_be_one_or_many():
    assert DataSettings(train="a.xyz").train == (Path("a.xyz"),)
    assert DataSettings(train=["a.xyz", Path("b")]).train == (Path("a.xyz"), Path("b"))
    for alias in ("lmdb", "path", "src"):
        assert DataSettings.model_validate({alias: "x"}).lmdb == (Path("x"),)


def test_the_schema_for_editors_takes_a_path_a_mapping_a_list_or_nothing():
    schema = DataSettings.model_json_schema()["properties"]["train"]
    assert {option.get("type", "mapping") for option in schema["anyOf"]} == {"string", "mapping", "array", "null"}


def test_path_keys_are_those_that_hold_paths():
    names = {name for name, field in DataSettings.model_fields.items() if "Path" in str(field.annotation)}
    names |= {f"{part}_indices.indices_path" for part in ("train", "val", "test")}
    assert names == set(PATH_KEYS)


def test_it_survives_json():
    settings = DataSettings(train=["a"], e0={"H": -13.6}, indices=[3, 1], train_indices=Sampling(max_samples=3))
    assert DataSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("name", ["auto", "extxyz", "lmdb", "fairchem_lmdb", "xyz"])
def test_known_formats(name):
    assert DataSettings(format=name).format in {"auto", "extxyz", "fairchem_lmdb"}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"format": "extxys"}, "did you mean 'extxyz'"),
        ({"energy_unit": "ev"}, "no unit of energy"),
        ({"forces_unit": "eV/ang"}, "did you mean 'eV/Ang'"),
        ({"stress_unit": "Gpa"}, "did you mean 'GPa'"),
        ({"length_unit": "pm"}, "no unit of length"),
        ({"e0": "isolatd"}, "did you mean 'isolated'"),
        ({"e0": {"Xq": -1.0}}, "no element"),
        ({"e0": {"pbe": {"Xq": -1.0}}}, "no element"),
        ({"val_fraction": 1.0}, "less than 1"),
        ({"val_fraction": -0.1}, "greater than or equal to 0"),
        ({"batch_size": 0}, "greater than 0"),
        ({"train_indices": {"max_sample": 3}}, "Extra inputs"),
        ({"trian": "x"}, "Extra inputs"),
    ],
)
def test_wrong_values(block, message):
    with pytest.raises(ValidationError, match=message):
        DataSettings.model_validate(block)


@pytest.mark.parametrize("value", ["auto", "isolated", "least_squares", {"H": -13.6, "8": -2042}, {"pbe": {"H": -1}}])
def test_reference_energies_as_words_or_values(value):
    found = DataSettings(e0=value).e0
    assert found == value


def test_reference_energies_in_a_file_and_by_number():
    assert DataSettings(e0="atoms.xyz").e0 == Path("atoms.xyz")
    assert DataSettings.model_validate({"e0": {1: -13.6}}).e0 == {"1": -13.6}


def test_keys_and_units_reach_the_reader():
    settings = DataSettings(
        energy_key="e",
        forces_key="f",
        stress_key=None,
        head_key="theory",
        energy_unit="Ha",
        length_unit="bohr",
        stress_unit="GPa",
        stress_sign="vasp",
        stress_quantity="stress",
        forces_unit="eV/Ang",
    )
    assert settings.keys == LabelKeys(energy="e", forces="f", stress=None, head="theory")
    assert settings.units.model_dump() == {
        "energy": "Ha",
        "length": "bohr",
        "forces": "eV/Ang",
        "stress": "GPa",
        "dipole": "auto",
        "quadrupole": "auto",
        "polarizability": "auto",
        "stress_sign": "vasp",
        "stress_quantity": "stress",
        "energy_per": "auto",
        "spin": "auto",
    }
    assert issubclass(DataSettings, Settings)
