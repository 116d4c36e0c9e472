"""The LAMMPS form of ZBL beside its published formula; settings."""

import numpy as np
import pytest
from physics_sums import evaluate, make
from pydantic import ValidationError

from forgefield.core.structure import Structure

SETTINGS = {"form": "lammps", "inner": 1.0, "outer": 2.0}


def pair(r, z1=14, z2=8):
    return Structure(np.array([z1, z2]), np.array([[0.0, 0, 0], [r, 0, 0]]))


def screened(r, z1, z2):
    """The formula of LAMMPS's documentation, with the constants of its pair_zbl_const.h."""
    length = 0.46850 / (z1**0.23 + z2**0.23)
    parts = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
    return 14.399645 * z1 * z2 / r * sum(c * np.exp(-d * r / length) for c, d in parts)


def derivatives(r, z1, z2, step=1e-3):
    e = [screened(r + k * step, z1, z2) for k in range(-2, 3)]
    first = (e[0] - 8 * e[1] + 8 * e[3] - e[4]) / (12 * step)
    return e[2], first, (-e[0] + 16 * e[1] - 30 * e[2] + 16 * e[3] - e[4]) / (12 * step**2)


@pytest.mark.parametrize("r", [0.3, 0.9, 1.0, 1.3, 1.7, 1.999, 2.001])
def test_lammps_form(r):
    e, d1, d2 = derivatives(2.0, 14, 8)
    a, b = -3 * d1 + d2, 2 * d1 - d2  # the width is 1
    expected = screened(r, 14, 8) - e + d1 / 2 - d2 / 12
    if r > 1.0:
        expected += a / 3 * (r - 1) ** 3 + b / 4 * (r - 1) ** 4
    found = float(evaluate(make("zbl", SETTINGS, elements=(8, 14)), pair(r)).energy[0])
    assert found == pytest.approx(expected if r < 2.0 else 0.0, abs=1e-8, rel=1e-9)


def test_it_ends_smoothly():
    term = make("zbl", SETTINGS, elements=(8, 14))
    just = evaluate(term, pair(2.0 - 1e-4))
    assert abs(float(just.energy[0])) < 1e-10
    assert float(just.forces.abs().max()) < 1e-5
    assert term.near_cutoff == 2.0


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"inner": 1.0}, "belong to `form: lammps`"),
        ({"form": "lammps"}, "needs inner < outer"),
        ({"form": "lammps", "inner": 2.0, "outer": 1.0}, "needs inner < outer"),
        ({**SETTINGS, "envelope": 6}, "envelope belongs to"),
        ({"form": "lammmps"}, "Input should be"),
    ],
)
def test_bad_settings(settings, word):
    with pytest.raises(ValidationError, match=word):
        make("zbl", settings)
