"""What every loss must satisfy; a new file in the folder is tested the moment it exists."""

from typing import NamedTuple

import pytest
import torch

from forgefield.core.catalog import Catalog
from forgefield.data.labels import Labels
from forgefield.train.catalogs import LOSSES
from forgefield.train.loss import WeightedLoss, build_term

NAMES = Catalog(LOSSES).names()
ENTRIES = {name: Catalog(LOSSES).entry(name) for name in NAMES}
CASES = [(n, q) for n in NAMES for q in sorted(ENTRIES[n].build(ENTRIES[n].settings()).quantities)]
SIZES = [3, 1, 4, 2]


class Outputs(NamedTuple):
    energy: torch.Tensor
    forces: torch.Tensor
    stress: torch.Tensor


def make(sizes, seed=0, absent=(), fill=0.0, weight=None):
    """Predictions that want a gradient, and labels of which the structures in `absent` have none."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    s, n = len(sizes), sum(sizes)
    structure = torch.repeat_interleave(torch.arange(s), torch.tensor(sizes))
    there = torch.tensor([k not in absent for k in range(s)])
    outputs = Outputs(*(t.requires_grad_() for t in (draw(s), draw(n, 3), draw(s, 3, 3))))
    keep = lambda t, mask: torch.where(mask.reshape(-1, *[1] * (t.ndim - 1)), t, fill)  # noqa: E731
    labels = Labels(
        energy=keep(draw(s), there),
        forces=keep(draw(n, 3), there[structure]),
        stress=keep(draw(s, 3, 3), there),
        has_energy=there,
        has_forces=there[structure],
        has_stress=there,
        weight=torch.ones(s, dtype=torch.float64) if weight is None else weight,
        structure=structure,
        n_atoms=torch.tensor(sizes),
    )
    return outputs, labels


def part(outputs, labels, chosen):
    """The batch of some of the structures, (S,) bool."""
    atoms = chosen[labels.structure]
    pick = lambda tuple_: {  # noqa: E731
        k: v[atoms if k in ("forces", "has_forces", "structure") else chosen] for k, v in tuple_._asdict().items()
    }
    new = torch.cumsum(chosen.to(torch.int64), 0) - 1
    chosen_labels = Labels(**pick(labels))
    return Outputs(**pick(outputs)), chosen_labels._replace(structure=new[chosen_labels.structure])


def one(name, quantity):
    return WeightedLoss({quantity: (2.0, build_term(quantity, name))})


@pytest.mark.parametrize("fill", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize(("name", "quantity"), CASES)
def test_absent_labels_do_not_touch_the_gradient(name, quantity, fill):
    outputs, labels = make(SIZES, absent=(1, 2), fill=fill)
    report = one(name, quantity)(outputs, labels)
    report.total.backward()
    gradient = getattr(outputs, quantity).grad
    assert torch.isfinite(report.total)
    assert torch.isfinite(gradient).all()
    rows = labels.has_forces if quantity == "forces" else labels.has_energy
    assert (gradient[~rows] == 0).all()
    assert (gradient[rows] != 0).all()


@pytest.mark.parametrize(("name", "quantity"), CASES)
def test_absent_structures_count_for_nothing(name, quantity):
    outputs, labels = make(SIZES, absent=(1,))
    without = part(outputs, labels, torch.tensor([True, False, True, True]))
    loss = one(name, quantity)
    assert torch.allclose(loss(outputs, labels).total, loss(*without).total, rtol=1e-14)


@pytest.mark.parametrize(("name", "quantity"), CASES)
def test_nothing_labelled_is_zero_with_zero_gradient(name, quantity):
    outputs, labels = make(SIZES, absent=range(4), fill=float("nan"))
    report = one(name, quantity)(outputs, labels)
    report.total.backward()
    assert report.total == 0
    assert (getattr(outputs, quantity).grad == 0).all()


@pytest.mark.parametrize(("name", "quantity"), CASES)
def test_perfect_prediction_has_zero_loss_and_gradient(name, quantity):
    outputs, labels = make(SIZES)
    labels = labels._replace(**{quantity: getattr(outputs, quantity).detach().clone()})
    report = one(name, quantity)(outputs, labels)
    report.total.backward()
    assert report.total == 0
    assert (getattr(outputs, quantity).grad == 0).all()


@pytest.mark.parametrize("absent", [(), (2,)])
@pytest.mark.parametrize(("name", "quantity"), CASES)
def test_whole_batch_is_weighted_halves(name, quantity, absent):
    outputs, labels = make(SIZES, absent=absent, weight=torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64))
    loss, first = one(name, quantity), torch.tensor([True, False, True, False])
    halves = [part(outputs, labels, first), part(outputs, labels, ~first)]
    counts = [loss.counts(half[1])[quantity] for half in halves]
    joined = sum(loss(*half).total * c for half, c in zip(halves, counts, strict=True)) / sum(counts)
    whole = loss(outputs, labels)
    assert torch.allclose(whole.total, joined, rtol=1e-14)
    assert sum(counts) == loss.counts(labels)[quantity]
    assert torch.allclose(whole.total, 2.0 * whole.terms[quantity], rtol=1e-14)


@pytest.mark.parametrize(("name", "quantity"), CASES)
def test_structure_weight_multiplies(name, quantity):
    outputs, labels = make(SIZES)
    loss = one(name, quantity)
    double = loss(outputs, labels._replace(weight=2 * labels.weight)).total
    assert torch.allclose(double, 2 * loss(outputs, labels).total, rtol=1e-14)
    none = labels._replace(weight=labels.weight * torch.tensor([1, 0, 1, 1]))
    loss(outputs, none).total.backward()
    touched = getattr(outputs, quantity).grad[labels.structure == 1 if quantity == "forces" else 1]
    assert (touched == 0).all()
