"""Errors of every quantity in the loss, and of the atoms that count in it: validation, training, records, stopping."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from charged_toy import charged_structures, make_charged
from pydantic import ValidationError
from rich.console import Console
from test_fit import TRAIN, VAL
from toy import load, make_potential, quiet

from forgefield.core.errors import DataError
from forgefield.train.evaluate import evaluate, validate
from forgefield.train.loop import fit
from forgefield.train.loss import build_loss
from forgefield.train.measured import Measured, chosen_atoms, measured_in_evaluation, measured_in_training
from forgefield.train.recorder import read_history
from forgefield.train.settings import TrainSettings
from forgefield.train.sink import columns_with, part_columns_with

TARGETS = {"charges": {"weight": 10.0}, "dipole": {}, "gap": {"weight": 0.0}, "virial": {"weight": 0.1}}
NAMES = ("charges", "dipole", "gap", "virial")


def charged_fit(folder, resume=False, **keys):
    potential, console = make_charged(), Console(file=io.StringIO(), width=300)
    settings = quiet(**{"lr": 0.05, "ema_decay": None, "targets": TARGETS, **keys})
    train, val = load(charged_structures(), 4, shuffle=True), load(charged_structures(6, seed=3))
    common = {"config_fingerprint": "c", "data_fingerprint": "d", "device": "cpu", "console": console}
    result = fit(potential, train, val, settings, folder=folder, resume=resume, **common)
    return potential, train, val, result, console.file.getvalue()


def by_hand(potential, loader):
    """Errors of each further quantity from the outputs and labels of all structures at once."""
    batch = next(load([loader.dataset[k] for k in range(len(loader.dataset))], 100).batches())
    outputs, labels = potential.eval()(batch.graph), batch.labels
    found = {}
    for name in NAMES:
        if name == "virial":
            there = labels.has_stress
            error = -(labels.volume.reshape(-1, 1, 1) * (outputs.stress - labels.stress))[there]
        else:
            there = labels.has_extra[name]
            error = (outputs.extra[name] - labels.extra[name])[there]
        error = error.detach().double().numpy()
        found[name] = {"mae": np.abs(error).mean(), "rmse": np.sqrt(np.square(error).mean()), "n": int(there.sum())}
    return found


def test_validation_errors_by_hand(tmp_path):
    potential, _, val, result, text = charged_fit(tmp_path, epochs=6)
    rows = read_history(tmp_path / "history.jsonl")
    assert {tuple(row) for row in rows} == {columns_with(NAMES)}
    row = next(row for row in rows if row["best"] and row["epoch"] == result.best_epoch)
    metrics = evaluate(potential, val, measured=measured_in_training(TrainSettings(targets=TARGETS), potential)).metrics
    for name, wanted in by_hand(potential, val).items():
        assert metrics["all"][f"n_{name}"] == wanted["n"]
        for kind in ("mae", "rmse"):
            assert metrics["all"][f"{name}_{kind}"] == pytest.approx(wanted[kind], rel=1e-12)
            assert row[f"val_{name}_{kind}"] == pytest.approx(wanted[kind], rel=1e-12)
    assert row["val_charges"] == pytest.approx(row["val_charges_rmse"] ** 2, rel=1e-12)  # the loss is mse, per atom
    assert (row["train_charges"] > 0, row["train_gap"], row["val_gap"]) == (True, None, None)  # weight 0: no loss
    with open(tmp_path / "history.csv", newline="") as file:
        assert [float(cells["val_dipole_mae"]) for cells in csv.DictReader(file)] == [r["val_dipole_mae"] for r in rows]
    assert f"charges {row['val_charges_rmse']:.4g}" in text
    elements = metrics["by_element"]
    assert set(elements["H"]) - {"n_atoms", "forces_mae", "forces_rmse", "forces_max", "forces_rms_label"} == {
        "n_charges", "charges_mae", "charges_rmse",
    }  # fmt: skip
    assert sum(e["n_charges"] for e in elements.values()) == metrics["all"]["n_charges"]


def test_training_errors_are_those_of_an_evaluation(tmp_path):
    _, train, _, _, _ = charged_fit(tmp_path, epochs=1, lr=1e-300)
    rows = {(r["set"], r["group"], r["name"]): r for r in read_history(tmp_path / "breakdown.jsonl")}
    assert {tuple(row) for row in rows.values()} == {part_columns_with(NAMES)}
    for name, wanted in by_hand(make_charged(), train).items():
        for kind in ("mae", "rmse"):
            assert rows["train", "head", "default"][f"{name}_{kind}"] == pytest.approx(wanted[kind], rel=1e-10)
    hydrogen, carbon = rows["train", "element", "H"], rows["train", "element", "C"]
    assert hydrogen["dipole_mae"] is carbon["virial_rmse"] is None
    low, high = sorted((hydrogen["charges_mae"], carbon["charges_mae"]))
    assert low <= rows["train", "head", "default"]["charges_mae"] <= high


def test_a_fit_is_judged_by_them(tmp_path):
    conditions = [{"metric": "charges_mae", "patience": 50, "lower_bound": 0.02}]
    _, _, _, result, _ = charged_fit(
        tmp_path, epochs=60, lr=0.01, best_metric="charges_rmse", best_k=2, early_stops=conditions
    )
    rows = read_history(tmp_path / "history.jsonl")
    assert result.reason == "early_stops"
    assert rows[-1]["val_charges_mae"] <= 0.02 < rows[-2]["val_charges_mae"]
    assert result.best_metric == min(row["val_charges_rmse"] for row in rows)
    ranked = [entry["charges_rmse"] for entry in result.ranked]
    assert ranked == sorted(row["val_charges_rmse"] for row in rows)[:2]


def test_records_go_on_after_a_cut(tmp_path):
    charged_fit(tmp_path / "straight", epochs=4)
    charged_fit(tmp_path / "cut", epochs=2)
    charged_fit(tmp_path / "cut", epochs=4, resume=True)
    straight, cut = (read_history(tmp_path / name / "breakdown.jsonl") for name in ("straight", "cut"))
    assert straight == cut


def test_metrics_that_are_not_there_are_refused():
    def refuse(match, place, **given):
        with pytest.raises(ValidationError, match=match) as caught:
            TrainSettings.model_validate(given)
        assert caught.value.errors()[0]["loc"] == place

    refuse("no validation metric 'charges_mae'", ("best_metric",), best_metric="charges_mae")
    refuse("did you mean 'charges_mae'", ("best_metric",), best_metric="charge_mae", targets={"charges": {}})
    stop = {"metric": "dipole_rmse", "patience": 1}
    refuse("no validation metric 'dipole_rmse'", ("early_stops", 0, "metric"), early_stops=[stop])
    TrainSettings.model_validate({"early_stops": [stop], "targets": {"dipole": {"weight": 0.0}}})


def test_what_has_no_labels_cannot_judge(tmp_path):
    potential, settings = make_charged(), quiet(targets={"gap": {"weight": 0.0}}, best_metric="gap_mae")
    common = {"config_fingerprint": "c", "data_fingerprint": "d", "device": "cpu", "folder": tmp_path}
    with pytest.raises(DataError, match="no validation structure has the labels of gap_mae"):
        fit(potential, load(charged_structures()), load(VAL), settings, console=Console(file=io.StringIO()), **common)


# --------------------------------------------------------------------------------------------- atoms that do not count


def with_atoms(structures, **fields):
    """The first atom of each structure is fixed, masked or tagged; its force label is far off."""
    found = []
    for s in structures:
        first = np.arange(len(s)) == 0
        forces = s.labels["forces"] + 50.0 * first[:, None]
        more = {name: value(first) for name, value in fields.items()}
        found.append(replace(s, labels={**s.labels, "forces": forces}, **more))
    return found


CASES = {
    "fixed": ({"fixed": lambda first: first}, {"train_on_free_atoms": True}),
    "mask": ({"force_mask": lambda first: ~first}, {}),
    "tag": ({"tags": lambda first: first.astype(int)}, {"tag_weights": {1: 0.0}}),
}


@pytest.mark.parametrize("case", CASES)
def test_atoms_out_of_the_loss_are_out_of_the_errors(case, tmp_path):
    fields, keys = CASES[case]
    settings, structures = quiet(**keys), with_atoms(TRAIN, **fields)
    potential, loader, losses = make_potential(), load(structures), build_loss(settings)
    atoms = sum(map(len, structures))
    measured = measured_in_training(settings, potential)
    assert measured.choice == chosen_atoms(settings)
    loss, metrics = validate(potential, loader, losses, measured=measured)
    errors = metrics["all"]
    assert errors["n_forces"] == atoms - len(structures)
    assert errors["forces_max"] < 20
    assert float(loss.terms["forces"]) == pytest.approx(errors["forces_rmse"] ** 2, rel=1e-12)
    evaluation = evaluate(potential, loader, measured=measured)
    assert evaluation.metrics["all"]["n_forces_left_out"] == len(structures)
    assert any(f"{len(structures)} labelled atoms do not count" in note for note in evaluation.notes)
    assert [int((~p.counted).sum()) for p in evaluation.predictions] == [1] * len(structures)
    common = {"config_fingerprint": "c", "data_fingerprint": "d", "device": "cpu", "folder": tmp_path}
    console = Console(file=io.StringIO())
    settings = settings.model_copy(update={"epochs": 1, "lr": 1e-300, "ema_decay": None})
    fit(make_potential(), load(structures, 4), load(structures), settings, console=console, **common)
    rows = {(r["set"], r["group"], r["name"]): r for r in read_history(tmp_path / "breakdown.jsonl")}
    for part in ("train", "val"):
        assert rows[part, "head", "default"]["forces_rmse"] == pytest.approx(errors["forces_rmse"], rel=1e-10)


def test_all_labelled_atoms_count_otherwise():
    structures = with_atoms(TRAIN, fixed=lambda first: first)
    potential = make_potential()
    evaluation = evaluate(potential, load(structures))
    assert "n_forces_left_out" not in evaluation.metrics["all"]
    assert evaluation.metrics["all"]["n_forces"] == sum(map(len, structures))
    assert evaluation.metrics["all"]["forces_max"] > 40
    free = evaluate(potential, load(structures), measured=measured_in_evaluation(potential, free_atoms=True))
    assert free.metrics["all"]["n_forces_left_out"] == len(structures)
    assert free.metrics["all"]["forces_max"] < 20


def test_energies_only_have_no_other_errors():
    found = evaluate(make_charged(), load(charged_structures()), energy_only=True)
    assert not any("charges" in name or "dipole" in name for name in found.metrics["all"])
    assert Measured().further == ()


def test_a_charge_that_is_no_number_is_refused():
    potential = make_charged()
    with torch.no_grad():
        potential.architecture.charge[0] = torch.nan
    with pytest.raises(DataError, match="the prediction is not finite"):
        evaluate(potential, load(charged_structures()))
