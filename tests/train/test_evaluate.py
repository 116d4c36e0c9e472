"""Metrics by hand, on a table and through a potential."""

import numpy as np
import pytest
import torch
from toy import load, make_potential, make_structures

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.train.evaluate import evaluate, gather, validate
from forgefield.train.loss import build_loss
from forgefield.train.metrics import Table, measure_errors
from forgefield.train.settings import TrainSettings


def table():
    """Two molecules, HC and C; the second has no forces, the first no stress."""
    forces = np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 4.0], [9.0, 9.0, 9.0]])
    stress = np.zeros((2, 3, 3))
    stress[1, 0, 0], stress[1, 1, 2], stress[1, 2, 1] = 0.3, 0.6, 0.6
    return Table(
        index=np.array([0, 1]),
        n_atoms=np.array([2, 1]),
        energy=np.array([1.0, 5.0]),
        energy_label=np.array([3.0, 2.0]),
        has_energy=np.array([True, True]),
        stress=stress,
        stress_label=np.zeros((2, 3, 3)),
        has_stress=np.array([False, True]),
        forces=forces,
        forces_label=np.array([[0.0, 0, 3], [0, 0, 0], [0, 0, 0]]),
        has_forces=np.array([True, True, False]),
        numbers=np.array([1, 6, 6]),
    )


def test_errors_by_hand():
    metrics = measure_errors(table(), {"config_type": np.array(["a", "b"], dtype=object)})
    every = metrics["all"]
    assert (every["n_structures"], every["n_atoms"], every["n_forces"], every["n_stress"]) == (2, 3, 2, 1)
    assert every["energy_mae"] == pytest.approx(2.5)
    assert every["energy_rmse"] == pytest.approx(np.sqrt(6.5))
    assert every["energy_mae_per_atom"] == pytest.approx(2.0)
    assert every["energy_rmse_per_atom"] == pytest.approx(np.sqrt(5.0))
    assert every["forces_mae"] == pytest.approx(8 / 6)  # errors 1 2 -1 0 0 4
    assert every["forces_rmse"] == pytest.approx(np.sqrt(22 / 6))
    assert every["forces_max"] == 4.0
    assert every["forces_rms_label"] == pytest.approx(np.sqrt(9 / 6))
    assert every["stress_mae"] == pytest.approx(1.5 / 9)
    assert every["stress_rmse"] == pytest.approx(np.sqrt(0.81 / 9))
    hydrogen, carbon = metrics["by_element"]["H"], metrics["by_element"]["C"]
    assert hydrogen["forces_rmse"] == pytest.approx(np.sqrt(2.0))
    assert (carbon["n_atoms"], carbon["forces_mae"]) == (2, pytest.approx(4 / 3))
    axes = metrics["by_component"]
    assert axes["x"]["forces_mae"] == 0.5
    assert axes["z"]["forces_rmse"] == pytest.approx(np.sqrt(8.5))
    assert axes["yz"]["stress_rmse"] == pytest.approx(0.6)
    groups = metrics["by_config_type"]
    assert groups["a"]["energy_mae"] == 2.0
    assert groups["b"]["forces_mae"] is None
    assert groups["a"]["stress_rmse"] is None


def test_predictions_come_in_the_order_of_the_data_set():
    structures, potential = make_structures(9), make_potential()
    plain = evaluate(potential, load(structures, 4))
    shuffled = evaluate(potential, load(structures, 2, shuffle=True, seed=5))
    assert [p.index for p in shuffled.predictions] == list(range(9))
    for one, two, structure in zip(plain.predictions, shuffled.predictions, structures, strict=True):
        assert one.energy == pytest.approx(two.energy, rel=1e-13)
        assert one.forces.shape == (len(structure), 3)
        assert np.allclose(one.forces, two.forces, atol=1e-12)
        assert np.allclose(one.stress, two.stress, atol=1e-14)
    assert plain.metrics["all"] == pytest.approx(shuffled.metrics["all"], rel=1e-12)


def test_metrics_are_those_of_the_predictions():
    structures = make_structures(9)
    found = evaluate(make_potential(), load(structures))
    errors = np.concatenate([p.forces - s.labels["forces"] for p, s in zip(found.predictions, structures, strict=True)])
    numbers = np.concatenate([s.numbers for s in structures])
    assert found.metrics["all"]["forces_rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-12)
    for number, name in ((1, "H"), (6, "C")):
        wanted = np.abs(errors[numbers == number]).mean()
        assert found.metrics["by_element"][name]["forces_mae"] == pytest.approx(wanted, rel=1e-12)
    boxes = [k for k, s in enumerate(structures) if s.config_type == "box"]
    wanted = np.mean([abs(found.predictions[k].energy - structures[k].labels["energy"]) for k in boxes])
    assert found.metrics["by_config_type"]["box"]["energy_mae"] == pytest.approx(wanted, rel=1e-12)
    assert set(found.metrics["by_config_type"]) == {"box", "gas"}
    assert set(found.metrics["by_head"]) == {"default"}
    assert found.metrics["by_config_type"]["gas"]["n_stress"] == 0


def test_by_head():
    structures = [
        Structure(s.numbers, s.positions, s.cell, s.pbc, s.labels, head=h)
        for s, h in zip(make_structures(4), ["b", None, "a", "b"], strict=True)
    ]
    found = evaluate(make_potential(heads=("a", "b")), load(structures, heads=("a", "b")))
    assert {head: e["n_structures"] for head, e in found.metrics["by_head"].items()} == {"a": 2, "b": 2}


def test_energy_only():
    found = evaluate(make_potential(), load(make_structures(5)), energy_only=True)
    assert all(p.forces is None and p.stress is None for p in found.predictions)
    assert found.metrics["all"]["forces_rmse"] is None
    assert found.metrics["all"]["energy_rmse"] > 0


def test_amp_on_a_cpu_is_said():
    loader = load(make_structures(3))
    assert evaluate(make_potential(), loader).notes == ()
    assert "eval.amp is off" in evaluate(make_potential(), loader, amp=True).notes[0]


def test_structures_without_labels_are_predicted():
    bare = [Structure(s.numbers, s.positions, s.cell, s.pbc) for s in make_structures(3)]
    found = evaluate(make_potential(), load(bare))
    assert len(found.predictions) == 3
    assert found.metrics["all"]["energy_rmse"] is None
    assert found.metrics["all"]["n_energy"] == 0


def test_validation_loss_does_not_depend_on_the_batch_size():
    losses, structures = build_loss(TrainSettings(stress_weight=3)), make_structures(7)
    values = [validate(make_potential(), load(structures, size), losses)[0] for size in (1, 3, 7)]
    for other in values[1:]:
        assert float(other.total) == pytest.approx(float(values[0].total), rel=1e-12)
        assert {k: float(v) for k, v in other.terms.items()} == pytest.approx(
            {k: float(v) for k, v in values[0].terms.items()}, rel=1e-12
        )


def test_the_mode_of_the_potential_comes_back_and_no_gradient_is_kept():
    potential = make_potential(noise=0.5).train()
    first, second = (gather(potential, load(make_structures(3))) for _ in range(2))
    assert np.array_equal(first.energy, second.energy)
    assert potential.training
    assert all(p.grad is None for p in potential.parameters())


def test_predictions_that_are_no_numbers_are_refused():
    potential = make_potential()
    with torch.no_grad():
        potential.architecture.linear.bias.fill_(torch.nan)
    with pytest.raises(DataError, match=r"toy\.xyz: frame 1: the prediction is not finite \(3 structures"):
        evaluate(potential, load(make_structures(3)))
