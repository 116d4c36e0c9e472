"""One update: the same weights whatever way the batch is cut, clipping, and numbers that are none."""

import copy

import pytest
import torch
from toy import load, make_potential, make_structures, quiet, same, weights

from forgefield.core.errors import ForgeError
from forgefield.train.loop import prepare
from forgefield.train.loss import build_loss
from forgefield.train.step import SMALLEST_SCALE, take_update

SETTINGS = quiet(energy_weight=1.0, force_weight=10.0, stress_weight=5.0, optimizer="sgd", momentum=0.0)


def batches(size, n=11):
    return list(load(make_structures(n), size).batches())


def updated(groups, settings=SETTINGS, clip=None):
    state = prepare(make_potential(), settings, torch.device("cpu"))
    reports = [take_update(state, group, build_loss(settings), max_grad_norm=clip) for group in groups]
    return state, reports


def test_accumulated_batches_are_one_batch():
    """Eleven structures by 4 + 4 + 3, with unequal numbers of atoms and stress labels in each."""
    whole, (one,) = updated([batches(11)])
    cut, (three,) = updated([batches(4)])
    for name, value in weights(whole.potential).items():
        assert torch.allclose(value, weights(cut.potential)[name], rtol=1e-12, atol=1e-14), name
    assert three.loss == pytest.approx(one.loss, rel=1e-13)
    assert three.counts == one.counts
    assert three.n_structures == one.n_structures == 11
    assert three.grad_norm == pytest.approx(one.grad_norm, rel=1e-12)


def test_clipping_shortens_the_gradient():
    state, (report,) = updated([batches(11)], clip=1e-3)
    assert report.grad_norm > 1e-3
    length = torch.stack([p.grad.norm() for p in state.potential.parameters()]).norm()
    assert length.item() == pytest.approx(1e-3, rel=1e-4)


def test_the_loss_is_that_before_the_update():
    state, reports = updated([batches(11), batches(11)])
    first = build_loss(SETTINGS)(make_potential()(batches(11)[0].graph), batches(11)[0].labels)
    assert reports[0].loss == pytest.approx(float(first.total.detach()), rel=1e-14)
    assert reports[1].loss < reports[0].loss
    assert state.progress.update == 0


def with_nan(batch, row):
    positions = batch.graph.positions.clone()
    positions[row] = torch.nan
    return batch._replace(graph=batch.graph._replace(positions=positions))


def test_a_prediction_that_is_no_number_stops_the_fit_and_names_the_structure():
    state = prepare(make_potential(), SETTINGS, torch.device("cpu"))
    before, average = weights(state.potential), copy.deepcopy(state.average.values)
    good, bad, _ = batches(4)
    row = int((bad.graph.structure == 2).nonzero()[0])
    with pytest.raises(ForgeError, match=r"loss is not finite.*structures 6 of") as caught:
        take_update(state, [good, with_nan(bad, row)], build_loss(SETTINGS))
    assert caught.value.structures == (6,)
    assert same(before, weights(state.potential))
    assert same(average, state.average.values)


def test_gradient_scaling_is_the_same_update_and_leaves_out_what_overflows():
    """The scaler of mixed precision, tried on a CPU; autocast itself needs CUDA."""
    plain, _ = updated([batches(11)], clip=0.5)
    state = prepare(make_potential(), SETTINGS, torch.device("cpu"))
    state.scaler = torch.amp.GradScaler("cpu")
    before, scale = weights(state.potential), []
    hook = state.potential.architecture.linear.weight.register_hook(lambda gradient: gradient * torch.inf)
    report = take_update(state, batches(11), build_loss(SETTINGS), max_grad_norm=0.5)
    scale.append(state.scaler.get_scale())
    assert report.skipped
    assert state.average.updates == 0
    assert same(before, weights(state.potential))
    hook.remove()
    report = take_update(state, batches(11), build_loss(SETTINGS), max_grad_norm=0.5)
    assert not report.skipped
    assert (state.average.updates, scale[0]) == (1, 2.0**15)
    for name, value in weights(plain.potential).items():
        assert torch.allclose(value, weights(state.potential)[name], rtol=1e-12), name
    state.potential.architecture.linear.weight.register_hook(lambda gradient: gradient * torch.inf)
    while state.scaler.get_scale() > SMALLEST_SCALE:
        assert take_update(state, batches(11), build_loss(SETTINGS)).skipped
    with pytest.raises(ForgeError, match="overflow in float16 at every update"):
        take_update(state, batches(11), build_loss(SETTINGS))


def test_a_gradient_that_is_no_number_stops_the_fit():
    state = prepare(make_potential(), SETTINGS, torch.device("cpu"))
    before = weights(state.potential)
    state.potential.architecture.linear.weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(ForgeError, match=r"gradient is not finite.*structures 0, 1, 2, 3 of"):
        take_update(state, batches(4)[:1], build_loss(SETTINGS), max_grad_norm=10.0)
    assert same(before, weights(state.potential))
