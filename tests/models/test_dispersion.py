import pytest

from forgefield.core.errors import ModelError
from forgefield.models.architecture import PhysicsContext
from forgefield.models.dispersion import acting, check_added, check_trained
from forgefield.models.potential import PHYSICS

HEADS = ("pbe", "wb97m")


def test_a_term_needs_labels_that_include_dispersion():
    check_trained({"d3": [False, True]}, HEADS, {"wb97m": "included", "pbe": "absent"})
    check_trained({"coulomb": [True, True]}, HEADS, {})
    with pytest.raises(ModelError, match=r"d3 is added to pbe, whose labels lack dispersion.*export\.dispersion"):
        check_trained({"d3": [True, True]}, HEADS, {"wb97m": "included", "pbe": "absent"})
    with pytest.raises(ModelError, match=r"nothing says.*data\.fidelities: {pbe: {dispersion: included}}"):
        check_trained({"d3": [True, True]}, HEADS, {"wb97m": "included"})
    with pytest.raises(ModelError, match="d3 and d4 would count the dispersion of pbe twice"):
        check_trained({"d3": [True, False], "d4": [True, False]}, HEADS, {"pbe": "included"})
    check_trained({"d3": [True, False], "d4": [False, True]}, HEADS, dict.fromkeys(HEADS, "included"))


def test_dispersion_is_never_added_twice():
    check_added("pbe", ["coulomb"], {"pbe": "absent"})
    with pytest.raises(ModelError, match="labels of wb97m include dispersion"):
        check_added("wb97m", [], {"wb97m": "included"})
    with pytest.raises(ModelError, match="has the term d3 already"):
        check_added("pbe", ["d3"], {"pbe": "absent"})
    with pytest.raises(ModelError, match="nothing says whether the labels of pbe"):
        check_added("pbe", [], {})


@pytest.mark.parametrize("name", ["d3", "d4"])
def test_a_term_is_not_for_levels_whose_functional_is_null(name):
    """Two levels, one with and one without dispersion in its labels, are trained with the term on the first alone."""
    if name == "d4":
        pytest.importorskip("dftd4")
    entry = PHYSICS.entry(name)
    settings = entry.settings.model_validate({"functional": {"high": "b3lyp", "low": None}})
    term = entry.build(settings, PhysicsContext((1, 6), ("high", "low"), (1.0, 1.0)))
    assert acting({name: term}, ["high", "low"]) == {name: [True, False]}
    check_trained(acting({name: term}, ["high", "low"]), ["high", "low"], {"high": "included", "low": "absent"})
    scaled = PhysicsContext((1, 6), ("high", "low"), (1.0, 0.0))
    every = entry.build(entry.settings.model_validate({"functional": "b3lyp"}), scaled)
    assert acting({name: every}, ["high", "low"]) == {name: [True, False]}
    check_added("low", [], {"high": "included", "low": "absent"})
