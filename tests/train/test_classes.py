"""Classes: cross entropy, accuracy, and the area under the curve."""

import numpy as np
import pytest
import torch

from forgefield.core.quantities import Quantity
from forgefield.train.classes import area, curve, of_classes
from forgefield.train.loss import build_term
from forgefield.train.normalization import Rows

METAL = Quantity("metal", "", "structure", (), "", "total", kind="class")


def rows(n):
    ones = torch.ones(n)
    return Rows(ones.bool(), ones, torch.arange(n), ones.long(), n)


def test_cross_entropy_is_that_of_torch():
    logits = torch.linspace(-20, 20, 41, dtype=torch.float64, requires_grad=True)
    label = (torch.arange(41) % 2).double()
    term = build_term(METAL, "auto")
    difference = (torch.sigmoid(logits) - label).unsqueeze(1)
    ours = term.loss.sums(difference, rows(41))[0] / term.loss.count(rows(41), 1)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(logits, label)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-7)
    (a,), (b,) = (torch.autograd.grad(x, logits) for x in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-12)


def test_numbers_have_no_cross_entropy():
    with pytest.raises(Exception, match="only for classes"):
        build_term(Quantity("gap", "eV", "structure", (), ""), "cross_entropy")


def test_area_is_the_chance_that_a_positive_ranks_higher():
    rng = np.random.default_rng(0)
    p, y = rng.integers(0, 12, 200) / 12, rng.random(200) < 0.4  # many ties
    higher = (p[y][:, None] > p[~y]).mean() + 0.5 * (p[y][:, None] == p[~y]).mean()
    assert area(p, y) == pytest.approx(higher, abs=1e-12)
    found = curve(p, y)
    assert found is not None
    assert (found.false_positive[0], found.true_positive[-1]) == (0.0, 1.0)
    assert (np.diff(found.true_positive) >= 0).all()


def test_one_kind_only_has_no_area():
    assert area(np.array([0.2, 0.9]), np.array([True, True])) is None


def test_the_confusion_table_counts():
    found = of_classes(np.array([[0.9], [0.6], [0.4], [0.1], [0.7]]), np.array([[1.0], [0.0], [1.0], [0.0], [1.0]]))
    names = ("true_positive", "false_positive", "true_negative", "false_negative")
    assert [found[name] for name in names] == [2, 1, 1, 1]
    assert found["accuracy"] == pytest.approx(0.6)
