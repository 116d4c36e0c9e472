"""mae_plus_rmse: a loss with the root of a mean over the whole update, however the update is cut."""

import math
import weakref

import pytest
import torch
from test_fit import run
from toy import load, make_potential, make_structures, quiet, same, weights

from forgefield.train.accumulation import add_gradients, count_labels
from forgefield.train.evaluate import validate
from forgefield.train.full_batch import take_full_update
from forgefield.train.loop import prepare
from forgefield.train.loss import build_loss
from forgefield.train.loss_words import terms_in_words
from forgefield.train.recorder import read_history
from forgefield.train.settings import TrainSettings
from forgefield.train.step import take_update

CPU = torch.device("cpu")
WEIGHTS = [1.0, 2.0, 1.0, 0.5, 1.0, 3.0]
KINDS = {f"loss_{name}": "mae_plus_rmse" for name in ("energy", "force", "stress")}
SETTINGS = quiet(
    energy_weight=1.0, force_weight=10.0, stress_weight=5.0, optimizer="sgd", momentum=0.0, ema_decay=None, **KINDS
)


def batches(size, n=11):
    return list(load(make_structures(n), size).batches())


@pytest.fixture(scope="module")
def case():
    batch = next(load(make_structures(6), 6).batches())
    with torch.no_grad():
        return make_potential()(batch.graph), batch.labels._replace(weight=torch.tensor(WEIGHTS).double())


def test_it_is_the_plain_formula(case):
    """Two structures of six have a stress; the mean is over those."""
    out, labels = case
    terms = build_loss(TrainSettings(stress_weight=1.0, **KINDS))(out, labels).terms
    energy, forces, stress = [], [], []
    of_atom = labels.structure.tolist()
    for c, n, a, b in zip(WEIGHTS, labels.n_atoms.tolist(), out.energy.tolist(), labels.energy.tolist(), strict=True):
        energy.append((c, (a - b) / n))
    for k, row in zip(of_atom, (out.forces - labels.forces).tolist(), strict=True):
        forces += [(WEIGHTS[k], x) for x in row]
    for k, rows in enumerate((out.stress - labels.stress).tolist()):
        stress += [(WEIGHTS[k], x) for row in rows for x in row] if labels.has_stress[k] else []
    assert len(stress) == 18
    for name, parts in (("energy", energy), ("forces", forces), ("stress", stress)):
        absolute = sum(c * abs(d) for c, d in parts) / len(parts)
        squared = sum(c * d * d for c, d in parts) / len(parts)
        assert float(terms[name]) == pytest.approx(absolute + math.sqrt(squared), rel=1e-13), name


@pytest.mark.parametrize("normalization", ["per_atom", "per_structure", "total", "sqrt_atoms"])
def test_it_is_mae_plus_the_root_of_mse_with_every_normalisation(case, normalization):
    keys = {f"{name}_normalization": normalization for name in ("energy", "force", "stress")} | {"stress_weight": 1.0}
    found = {}
    for kind in ("mae", "mse", "mae_plus_rmse"):
        settings = TrainSettings(**keys, **dict.fromkeys(KINDS, kind), targets={"virial": {"loss": kind}})
        found[kind] = build_loss(settings)(*case).terms
    for name in ("energy", "forces", "stress", "virial"):
        wanted = found["mae"][name] + found["mse"][name].sqrt()
        assert torch.allclose(found["mae_plus_rmse"][name], wanted, rtol=1e-14), name


def test_an_exact_prediction_has_a_gradient_and_what_is_no_number_stays_so(case):
    out, labels = case
    exact = labels._replace(energy=out.energy)
    asked = out.energy.clone().requires_grad_()
    build_loss(TrainSettings(**KINDS))(out._replace(energy=asked), exact).total.backward()
    assert (asked.grad == 0).all()
    broken = out._replace(energy=torch.full_like(out.energy, torch.nan))
    assert torch.isnan(build_loss(TrainSettings(**KINDS))(broken, labels).total)


def updated(groups, settings=SETTINGS, noise=0.0, scaler=None):
    state = prepare(make_potential(noise=noise), settings, CPU)
    state.scaler = scaler
    torch.manual_seed(3)
    return state, [take_update(state, group, build_loss(settings)) for group in groups]


def test_accumulated_batches_are_one_batch():
    """Eleven structures by 4 + 4 + 3, with unequal numbers of atoms and stress labels in each."""
    whole, (one,) = updated([batches(11)])
    cut, (three,) = updated([batches(4)])
    scaled, (again,) = updated([batches(4)], scaler=torch.amp.GradScaler("cpu"))
    assert not same(weights(whole.potential), weights(make_potential()))
    for name, value in weights(whole.potential).items():
        assert torch.allclose(value, weights(cut.potential)[name], rtol=1e-12, atol=1e-14), name
        assert torch.allclose(value, weights(scaled.potential)[name], rtol=1e-12, atol=1e-14), name
    assert three.loss == pytest.approx(one.loss, rel=1e-13)
    assert again.loss == three.loss
    assert three.counts == one.counts
    assert three.sums == pytest.approx(one.sums)
    assert set(one.sums) == {f"{name}{part}" for name in ("energy", "forces", "stress") for part in ("", " (squares)")}


def test_the_gradient_of_accumulated_batches_is_that_of_finite_differences():
    losses, potential = build_loss(SETTINGS), make_potential()
    state, (everything,) = prepare(potential, SETTINGS, CPU), batches(11)

    def value():
        return losses(potential(everything.graph), everything.labels).total.item()

    parts = batches(3)
    rows = [losses.rows(batch.labels) for batch in parts]
    add_gradients(state, parts, losses, rows, count_labels(state, parts, losses, rows))
    step = 1e-6
    for name, parameter in potential.named_parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for k in range(flat.numel()):
            kept = flat[k].item()
            ends = []
            for sign in (1, -1):
                flat[k] = kept + sign * step
                ends.append(value())
            flat[k] = kept
            assert float(gradient[k]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7), name


def test_random_numbers_are_the_same_in_both_passes():
    """The loss that is told is that of the pass that gives the gradient; the stream goes on as after one pass."""
    state, (report,) = updated([batches(4)], noise=0.3)
    after = torch.rand(1)
    other = prepare(make_potential(noise=0.3), SETTINGS, CPU)
    losses, parts = build_loss(SETTINGS), batches(4)
    other.potential.train()
    torch.manual_seed(3)
    outputs = [other.potential(batch.graph) for batch in parts]
    counts = [losses.counts(batch.labels) for batch in parts]
    sums = [losses.sums(out, batch.labels) for out, batch in zip(outputs, parts, strict=True)]
    total = losses.combine(
        {n: sum(s[n] for s in sums) for n in sums[0]}, {n: sum(c[n] for c in counts) for n in counts[0]}
    )
    total.total.backward()
    assert torch.equal(after, torch.rand(1))
    assert report.loss == pytest.approx(float(total.total.detach()), rel=1e-13)
    for (name, ours), theirs in zip(state.potential.named_parameters(), other.potential.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14), name


@pytest.mark.parametrize("kinds", [KINDS, {}])
def test_the_history_of_one_batch_is_held_at_a_time(kinds):
    """Each batch is predicted twice for the root, once without; what backward needs of others is gone by then."""
    settings = quiet(optimizer="sgd", momentum=0.0, **kinds)
    state, calls, held = prepare(make_potential(), settings, CPU), [], weakref.WeakSet()
    real = state.predict

    class Held:
        def __init__(self, tensor):
            self.tensor = tensor.detach()  # what a step returns would hold the step otherwise
            held.add(self)

    def predict(batch):
        assert not held
        outputs = real(batch)
        assert held
        calls.append(1)
        return outputs

    state.predict = predict
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda one: one.tensor):
        take_update(state, batches(4), build_loss(settings))
    assert len(calls) == (6 if kinds else 3)


def test_lbfgs_takes_the_root_over_the_whole_set():
    settings = quiet(optimizer="lbfgs", lr=1.0, ema_decay=None, **KINDS)
    found = []
    for size in (11, 4):
        state = prepare(make_potential(), settings, CPU)
        reports = [take_full_update(state, batches(size), build_loss(settings)) for _ in range(4)]
        found.append((state, [report.loss for report in reports]))
    (one, whole), (_, cut) = found
    assert cut == pytest.approx(whole, rel=1e-9)
    assert whole == sorted(whole, reverse=True)
    assert not same(weights(one.potential), weights(make_potential()))


def test_the_history_has_the_formula_over_all_updates_of_a_cycle(tmp_path):
    """Nothing moves at a rate of almost 0, so that training is judged as validation is, over all of its structures."""
    settings = quiet(epochs=1, batch_size=2, accum_steps=2, lr=1e-300, optimizer="sgd", ema_decay=None, **KINDS)
    structures = make_structures(11)
    run(tmp_path, settings, train=structures)
    (row,) = read_history(tmp_path / "history.jsonl")
    report, metrics = validate(make_potential(), load(structures, 5), build_loss(settings))
    assert row["train_loss"] == pytest.approx(float(report.total), rel=1e-12)
    assert row["train_forces"] == pytest.approx(float(report.terms["forces"]), rel=1e-12)
    errors = metrics["all"]
    assert row["train_forces"] == pytest.approx(errors["forces_mae"] + errors["forces_rmse"], rel=1e-12)
    assert row["train_energy"] == pytest.approx(errors["energy_mae_per_atom"] + errors["energy_rmse_per_atom"])


def test_a_fit_that_is_cut_within_an_epoch_goes_on_to_the_same_end(tmp_path):
    keys = {"epochs": 2, "batch_size": 2, "accum_steps": 2, **KINDS}
    noisy = {"potential": make_potential(noise=0.05)}
    run(tmp_path / "a", quiet(**keys), **noisy)
    run(tmp_path / "b", quiet(**keys, max_minutes=1e-9), make_potential(noise=0.05))
    run(tmp_path / "b", quiet(**keys), make_potential(noise=0.05), resume=True)
    one, two = (read_history(tmp_path / name / "history.jsonl")[-1] for name in "ab")
    for key in ("train_loss", "train_energy", "train_forces", "val_loss", "val_forces"):
        assert two[key] == one[key], key


def test_a_change_to_it_counts_the_training_loss_anew(tmp_path):
    """Sums of squares that another loss never made would be missed in the middle of a cycle."""
    run(tmp_path, quiet(batch_size=2, max_minutes=1e-9))
    more = {"resume": True, "accept": ["train.loss_force", "train.loss_energy", "train.loss_stress"]}
    run(tmp_path, quiet(batch_size=2, **KINDS), **more)
    assert all(row["train_forces"] > 0 for row in read_history(tmp_path / "history.jsonl"))


def test_in_words():
    words = terms_in_words(quiet(energy_weight=1.0, force_weight=2.0, **KINDS))
    assert words == [
        "1 · (mean over structures of |ΔE/n| + root of the mean of (ΔE/n)²)",
        "2 · (mean over force components of |ΔF| + root of the mean of (ΔF)²)",
    ]
