import pytest

from forgefield.core.errors import ModelError
from forgefield.models.dispersion import check_added, check_trained

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
