"""Structures refuse what would poison a model; units, elements and catalogs name the nearest word."""

import numpy as np
import pytest

from forgefield.core import elements, units
from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError, DataError, ForgeError
from forgefield.core.structure import Structure


def water(**more):
    return {"numbers": np.array([8, 1, 1]), "positions": np.eye(3), "origin": "w.xyz: frame 0", **more}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.full((3, 3), np.nan)}, "positions hold NaN"),
        ({"positions": np.zeros((2, 3))}, "3 atomic numbers but 2 positions"),
        ({"numbers": np.array([8, 1, 0])}, "must lie in 1..118"),
        ({"numbers": np.zeros(0, int), "positions": np.zeros((0, 3))}, "holds no atoms"),
        ({"pbc": np.ones(3, bool)}, "zero volume"),
        ({"pbc": np.ones(3, bool), "cell": np.array([[3.0, 0, 0], [6.0, 0, 0], [0, 0, 4.0]])}, "zero volume"),
        ({"labels": {"energy": np.array(np.inf)}}, "energy holds NaN or infinity"),
        ({"labels": {"forces": np.zeros((2, 3))}}, "forces has shape"),
        ({"labels": {"enrgy": np.array(0.0)}}, "unknown label 'enrgy'"),
        ({"weight": -1.0}, "weight -1.0"),
        ({"tags": np.zeros(2, int)}, "tags has shape"),
    ],
)
def test_bad_structures_are_refused_with_their_origin(change, message):
    with pytest.raises(DataError, match=message) as caught:
        Structure(**water(**change))
    assert str(caught.value).startswith("w.xyz: frame 0: ")


def test_good_structure():
    s = Structure(**water(cell=np.eye(3) * 4, pbc=np.ones(3, bool), labels={"energy": -1}))
    assert len(s) == 3
    assert s.volume == pytest.approx(64)
    assert s.labels["energy"].dtype == np.float64


def test_error_says_what_where_and_how():
    assert str(ForgeError("is empty", "a.xyz", "give another file")) == "a.xyz: is empty. Fix: give another file"


def test_units():
    assert units.factor("energy", "kcal/mol") == pytest.approx(0.0433641153)
    assert units.factor("forces", "Ha/bohr") == pytest.approx(51.4220675)
    assert units.factor("stress", "GPa") * 160.21766 == pytest.approx(1.0)
    assert units.factor("stress", "kbar") * 1602.1766 == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="did you mean 'kcal/mol'"):
        units.factor("energy", "kcal/mole")


def test_elements():
    assert elements.number("Si") == elements.number("14") == elements.number(14) == 14
    assert elements.symbol(14) == "Si"
    with pytest.raises(DataError, match="'Xx' is no element"):
        elements.number("Xx")


def test_catalog_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no 'mcae' in architectures.*did you mean 'mace'"):
        Catalog("forgefield.models.architectures").entry("mcae")
