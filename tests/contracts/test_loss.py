"""What every loss must satisfy, for every quantity and normalisation; a new file in the folder is tested at once."""

from typing import NamedTuple, get_args

import pytest
import torch

from forgefield.core.catalog import Catalog
from forgefield.core.quantities import DERIVED, QUANTITIES, Normalization, Quantity
from forgefield.data.labels import Labels
from forgefield.train.catalogs import LOSSES
from forgefield.train.loss import Term, WeightedLoss, build_term
from forgefield.train.values import AtomChoice

NAMES = Catalog(LOSSES).names()
ENTRIES = {name: Catalog(LOSSES).entry(name) for name in NAMES}
FREE = Quantity("moment", "arbitrary", "atom", (5,), "a target of no meaning", "per_structure")
TABLE = {**QUANTITIES, **DERIVED, FREE.name: FREE}
BUILT = {name: entry.build(entry.settings()) for name, entry in ENTRIES.items()}
CASES = [
    (name, quantity, normalization)
    for name, loss in BUILT.items()
    for quantity in TABLE
    if loss.accepts(TABLE[quantity])
    for normalization in (get_args(Normalization) if loss.normalizes else ("per_atom",))
]
every_case = pytest.mark.parametrize(("name", "quantity", "normalization"), CASES)
SIZES = [3, 1, 4, 2]
EXTRA = [name for name in TABLE if name not in ("energy", "forces", "stress", "virial")]


class Outputs(NamedTuple):
    energy: torch.Tensor
    forces: torch.Tensor
    stress: torch.Tensor
    extra: dict


def make(sizes, seed=0, absent=(), fill=0.0, weight=None):
    """Predictions that want a gradient, and labels of which the structures in `absent` have none."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    s, n = len(sizes), sum(sizes)
    structure = torch.repeat_interleave(torch.arange(s), torch.tensor(sizes))
    there = torch.tensor([k not in absent for k in range(s)])
    rows = lambda name: n if TABLE[name].per == "atom" else s  # noqa: E731
    drawn = {name: draw(rows(name), *TABLE[name].shape) for name in ("energy", "forces", "stress", *EXTRA)}
    for value in drawn.values():
        value.requires_grad_()
    outputs = Outputs(*(drawn[k] for k in ("energy", "forces", "stress")), {k: drawn[k] for k in EXTRA})
    keep = lambda t, mask: torch.where(mask.reshape(-1, *[1] * (t.ndim - 1)), t, fill)  # noqa: E731
    mask = lambda name: there[structure] if TABLE[name].per == "atom" else there  # noqa: E731
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
        volume=torch.rand(s, generator=g, dtype=torch.float64) + 0.5,
        fixed=torch.arange(n) % 3 == 0,
        tags=torch.arange(n) % 2,
        extra={k: keep(draw(rows(k), *TABLE[k].shape), mask(k)) for k in EXTRA},
        has_extra={k: mask(k) for k in EXTRA},
    )
    return outputs, labels


def part(outputs, labels, chosen):
    """The batch of some of the structures, (S,) bool."""
    atoms = chosen[labels.structure]

    def pick(value):
        return {k: pick(v) for k, v in value.items()} if isinstance(value, dict) else value[select(value)]

    def select(value):
        return atoms if value.shape[0] == atoms.shape[0] else chosen

    new = torch.cumsum(chosen.to(torch.int64), 0) - 1
    labels = Labels(*(pick(v) for v in labels))
    return Outputs(*(pick(v) for v in outputs)), labels._replace(structure=new[labels.structure])


def one(name, quantity, normalization, choice=None):
    return WeightedLoss({quantity: (2.0, Term(TABLE[quantity], BUILT[name], normalization, choice))})


def source(outputs, quantity):
    """The predictions that a quantity is computed from, whose gradient is looked at."""
    quantity = TABLE[quantity].label or quantity
    return outputs.extra[quantity] if quantity in outputs.extra else getattr(outputs, quantity)


def rows_of(labels, quantity, structures):
    """Rows that belong to structures, (S,) bool."""
    return structures[labels.structure] if TABLE[quantity].per == "atom" else structures


@pytest.mark.parametrize("fill", [0.0, float("nan"), float("inf")])
@every_case
def test_absent_labels_do_not_touch_the_gradient(name, quantity, normalization, fill):
    outputs, labels = make(SIZES, absent=(1, 2), fill=fill)
    report = one(name, quantity, normalization)(outputs, labels)
    report.total.backward()
    gradient = source(outputs, quantity).grad
    assert torch.isfinite(report.total)
    assert torch.isfinite(gradient).all()
    rows = rows_of(labels, quantity, labels.has_energy)
    assert (gradient[~rows] == 0).all()
    assert (gradient[rows] != 0).all()


@every_case
def test_absent_structures_count_for_nothing(name, quantity, normalization):
    """A batch with missing labels is the batch without those structures: the value and every gradient."""
    outputs, labels = make(SIZES, absent=(1,), weight=torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64))
    chosen = torch.tensor([True, False, True, True])
    loss = one(name, quantity, normalization)
    less, less_labels = part(outputs, labels, chosen)
    ours = loss(outputs, labels).total
    theirs = loss(less, less_labels).total
    assert torch.allclose(ours, theirs, rtol=1e-14)
    (full,) = torch.autograd.grad(ours, source(outputs, quantity))
    (short,) = torch.autograd.grad(theirs, source(less, quantity))
    assert torch.allclose(full[rows_of(labels, quantity, chosen)], short, rtol=1e-14, atol=1e-300)


@every_case
def test_the_gradient_is_that_of_finite_differences(name, quantity, normalization):
    outputs, labels = make(SIZES, absent=(2,), fill=float("nan"))
    loss, inside = one(name, quantity, normalization), source(outputs, quantity)

    def value(prediction):
        swapped = TABLE[quantity].label or quantity
        if swapped in outputs.extra:
            return loss(outputs._replace(extra={**outputs.extra, swapped: prediction}), labels).total
        return loss(outputs._replace(**{swapped: prediction}), labels).total

    assert torch.autograd.gradcheck(value, (inside.detach().requires_grad_(),), eps=1e-7, atol=1e-7)


@every_case
def test_nothing_labelled_is_zero_with_zero_gradient(name, quantity, normalization):
    outputs, labels = make(SIZES, absent=range(4), fill=float("nan"))
    report = one(name, quantity, normalization)(outputs, labels)
    report.total.backward()
    assert report.total == 0
    assert (source(outputs, quantity).grad == 0).all()


@pytest.mark.parametrize("quantity", EXTRA)
def test_a_batch_in_which_nobody_has_heard_of_the_quantity(quantity):
    outputs, labels = make(SIZES)
    loss = one("mse", quantity, None)
    report = loss(outputs, labels._replace(extra={}, has_extra={}))
    report.total.backward()
    assert (report.total, loss.counts(labels._replace(extra={}, has_extra={}))[quantity]) == (0, 0)
    assert (source(outputs, quantity).grad == 0).all()


@every_case
def test_perfect_prediction_has_zero_loss_and_gradient(name, quantity, normalization):
    outputs, labels = make(SIZES)
    exact = source(outputs, quantity).detach().clone()
    inside = TABLE[quantity].label or quantity
    there = {"extra": {**labels.extra, inside: exact}} if inside in EXTRA else {inside: exact}
    report = one(name, quantity, normalization)(outputs, labels._replace(**there))
    report.total.backward()
    assert report.total == 0
    assert (source(outputs, quantity).grad == 0).all()


@pytest.mark.parametrize("absent", [(), (2,)])
@every_case
def test_whole_batch_is_its_halves(name, quantity, normalization, absent):
    """Sums and counts of the halves add up, and so does the gradient, by the slopes of the whole."""
    outputs, labels = make(SIZES, absent=absent, weight=torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64))
    loss, first = one(name, quantity, normalization), torch.tensor([True, False, True, False])
    halves = [part(outputs, labels, first), part(outputs, labels, ~first)]
    counts = [loss.counts(half[1])[quantity] for half in halves]
    sums = [loss.sums(*half) for half in halves]
    added = {place: sums[0][place] + sums[1][place] for place in sums[0]}
    whole = loss(outputs, labels)
    assert sum(counts) == loss.counts(labels)[quantity]
    assert torch.allclose(whole.total, loss.combine(added, {quantity: sum(counts)}).total, rtol=1e-14)
    assert torch.allclose(whole.total, 2.0 * whole.terms[quantity], rtol=1e-14)
    if loss.is_mean:
        joined = sum(loss(*half).total * c for half, c in zip(halves, counts, strict=True)) / sum(counts)
        assert torch.allclose(whole.total, joined, rtol=1e-14)
    slopes = loss.slopes(added, {quantity: sum(counts)})
    (gradient,) = torch.autograd.grad(whole.total, source(outputs, quantity))
    for half, chosen, its in zip(halves, (first, ~first), sums, strict=True):
        share = sum(slopes[place] * value for place, value in its.items())
        (of_half,) = torch.autograd.grad(share, source(half[0], quantity))
        assert torch.allclose(of_half, gradient[rows_of(labels, quantity, chosen)], rtol=1e-12, atol=1e-300)


@every_case
def test_structure_weight_multiplies(name, quantity, normalization):
    outputs, labels = make(SIZES)
    loss = one(name, quantity, normalization)
    doubled = labels._replace(weight=2 * labels.weight)
    for place, value in loss.sums(outputs, labels).items():
        assert torch.allclose(loss.sums(outputs, doubled)[place], 2 * value, rtol=1e-14)
    if loss.is_mean:
        assert torch.allclose(loss(outputs, doubled).total, 2 * loss(outputs, labels).total, rtol=1e-14)
    none = labels._replace(weight=labels.weight * torch.tensor([1, 0, 1, 1]))
    loss(outputs, none).total.backward()
    touched = source(outputs, quantity).grad[rows_of(labels, quantity, torch.arange(4) == 1)]
    assert (touched == 0).all()


@pytest.mark.parametrize(("name", "normalization"), [(n, m) for n, q, m in CASES if q == "forces"])
def test_left_out_atoms_are_unlabelled_atoms(name, normalization):
    """Fixed atoms and tags of weight 0 are the same as atoms without force label; other factors multiply."""
    outputs, labels = make(SIZES, absent=(1,))
    left_out = labels.fixed | (labels.tags == 1)
    ours = one(name, "forces", normalization, AtomChoice(True, ((1, 0.0),)))
    theirs = one(name, "forces", normalization)
    masked = labels._replace(has_forces=labels.has_forces & ~left_out)
    found = [torch.autograd.grad(f(outputs, x).total, outputs.forces)[0] for f, x in ((ours, labels), (theirs, masked))]
    assert torch.equal(*found)
    assert (found[0][left_out] == 0).all()
    assert (found[0][~left_out & labels.has_forces] != 0).any()
    weighed = one(name, "forces", normalization, AtomChoice(False, ((1, 3.0),)))
    factor = torch.where(labels.tags == 1, 3.0, 1.0).unsqueeze(1)
    for place in theirs.sum_names:
        (gradient,) = torch.autograd.grad(weighed.sums(outputs, labels)[place], outputs.forces)
        (plain,) = torch.autograd.grad(theirs.sums(outputs, labels)[place], outputs.forces)
        assert torch.allclose(gradient, factor * plain, rtol=1e-14), place


OF_CLASSES = Quantity("metal", "", "structure", (), "yes or no", "total", kind="class")


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_is_defined_for_forces_or_for_classes_alone(name):
    quantity = OF_CLASSES if name == "cross_entropy" else QUANTITIES["forces"]
    assert build_term(quantity, name).quantity is quantity
