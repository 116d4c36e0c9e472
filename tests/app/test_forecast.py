"""check --dry-run: what is carried out, what follows from it, and that nothing is left behind."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from water import GOOD, write_run, write_water

from forgefield.app.cli import app
from forgefield.app.forecast.choice import MOST_STEPS, make_plan
from forgefield.app.forecast.cost import fit_cost
from forgefield.app.forecast.dry_run import forecast
from forgefield.app.forecast.gauge import Clock, Gauge, crowded
from forgefield.app.forecast.memory import grown
from forgefield.app.forecast.proposal import SHARE, propose
from forgefield.app.forecast.showing import findings
from forgefield.app.forecast.trial import Rehearsal, Step
from forgefield.app.run import load_run
from forgefield.core.errors import DeviceError, ForgeError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.loader import make_loader
from forgefield.data.sizes import BatchSize, measure_sizes, plan_batches
from forgefield.graph.needs import Needs
from forgefield.train.settings import TrainSettings


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_water("train.xyz", 60, atoms=True)
    write_water("test.xyz", 5, seed=1)
    return tmp_path


def config(*overrides, text=GOOD):
    return load_run(write_run(".", text), overrides=overrides)[0]


def check(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check", "run.yaml", *words])


def clusters(count=30):
    """Structures of 2 to 8 atoms, the last one by far the largest."""
    random = np.random.default_rng(0)
    sizes = [*random.integers(2, 9, count - 1).tolist(), 20]
    return Dataset.of([Structure(np.full(n, 6), random.uniform(0, 4, (n, 3))) for n in sizes])


def loader_of(dataset, batch_size=4, **kwargs):
    return make_loader(dataset, Needs(cutoff=3.0), batch_size=batch_size, shuffle=True, **kwargs)


def rows(result):
    return {f.topic: f for f in findings(result)}


# ---------------------------------------------------------------------------------------------- sizes and choice


def test_sizes_are_those_of_the_graphs():
    loader = loader_of(clusters())
    sizes = measure_sizes(loader)
    planned = plan_batches(loader, sizes, 2)
    assert len(planned) == 2
    for epoch, batches in enumerate(planned):
        met = list(loader.batches(epoch))
        assert len(met) == len(batches) == len(loader)
        for batch, plan in zip(met, batches, strict=True):
            assert batch.index.tolist() == plan.places.tolist()
            graph = batch.graph
            found = graph.n_structures, graph.n_atoms, 2 * len(graph.pair_first), graph.table_sign.numel()
            assert plan.size == BatchSize(*found)


@pytest.mark.parametrize("accum_steps", [1, 2, 3, 7])
@pytest.mark.parametrize("drop_last", [False, True])
def test_few_steps_and_the_largest_batch_among_them(accum_steps, drop_last):
    settings = TrainSettings(batch_size=2, accum_steps=accum_steps, drop_last=drop_last)
    loader = loader_of(clusters(), 2, drop_last=drop_last)
    sizes = measure_sizes(loader)
    plan = make_plan(loader, sizes, settings, epochs=50)
    trials = [*plan.trials, *plan.probes]
    assert sum(len(trial.places) for trial in trials) <= MOST_STEPS
    edges = lambda trial: max(sizes.of(places).edges for places in trial.places)  # noqa: E731
    assert max(map(edges, plan.trials)) == max(batch.size.edges for batch in plan.batches)
    kinds = [trial.kind for trial in plan.trials]
    assert kinds[:2] == ["first", "first"]
    assert kinds.count("typical") >= 2
    assert all(len(update) == accum_steps for epoch in plan.epochs for update in epoch[: 15 // accum_steps])
    whole = [len(epoch) for epoch in plan.epochs]
    assert set(whole) == {15 // accum_steps if drop_last else -(-15 // accum_steps)}


def test_probes_are_of_other_sizes():
    loader = loader_of(clusters(), 4)
    plan = make_plan(loader, measure_sizes(loader), TrainSettings(batch_size=4), epochs=3)
    assert sorted({len(probe.places[0]) for probe in plan.probes}) == [2, 8]
    one = loader_of(clusters(), 1)
    plan = make_plan(one, measure_sizes(one), TrainSettings(batch_size=1), epochs=3)
    assert sorted({len(probe.places[0]) for probe in plan.probes}) == [2, 4]
    assert all(len(set(probe.places[0].tolist())) == len(probe.places[0]) for probe in plan.probes)


# ---------------------------------------------------------------------------------------------- cost and proposal


def test_the_cost_is_found_in_spite_of_an_outlier():
    random = np.random.default_rng(1)
    work = np.column_stack([np.ones(12), random.integers(50, 150, 12), random.integers(500, 4000, 12)])
    seconds = work @ [0.01, 2e-4, 3e-5]
    seconds[4] *= 5
    cost = fit_cost(work.tolist(), seconds.tolist())
    np.testing.assert_allclose(cost.parts, [0.01, 2e-4, 3e-5], rtol=0.02)
    assert cost.spread < 0.01


def test_no_part_of_the_cost_is_negative():
    work = [(1, 10, 100), (1, 20, 200), (1, 30, 300)]
    cost = fit_cost(work, [0.3, 0.2, 0.1])
    assert (cost.parts >= 0).all()
    assert cost.seconds(np.array(work)).min() > 0


def step(structures, constant, per_atom, kind="typical"):
    atoms = 10 * structures
    size = BatchSize(structures, atoms, 20 * atoms, 30 * atoms)
    return Step(kind, (size,), constant + per_atom * atoms, 0.0, 0)


def steps(constant, per_atom):
    return [step(k, constant, per_atom) for k in (4, 4, 2, 8)]


def test_a_proposal_pays_for_what_is_constant():
    found = propose(steps(0.4, 1e-4), 4, (10, 200), lambda atoms: atoms, None, 1000)
    assert found.batch_size == 16, "twice the largest that was carried out"
    assert found.atoms == 160
    assert found.changes


def test_a_batch_that_is_fast_enough_is_kept():
    found = propose(steps(1e-4, 1e-2), 4, (10, 200), lambda atoms: atoms, None, 1000)
    assert not found.changes
    assert found.batch_size == 4


def test_a_proposal_fits_into_memory_and_data():
    limit = int(50 / SHARE) + 1
    found = propose(steps(0.4, 1e-4), 2, (10, 200), lambda atoms: atoms, limit, 1000)
    assert found.batch_size == 5
    found = propose(steps(0.4, 1e-4), 8, (10, 200), lambda atoms: atoms, limit, 1000)
    assert found.batch_size == 5
    assert "fill more than 70 % of the memory" in found.why
    assert propose(steps(0.4, 1e-4), 4, (10, 200), lambda atoms: atoms, None, 9).batch_size == 8


def test_memory_grows_ever_more_slowly():
    assert grown(100, 1, 120, 4, 4) == 120
    assert grown(100, 1, 120, 4, 16) == 140
    assert grown(100, 1, 120, 4, 40) == grown(100, 1, 120, 4, 10**6) == round(120 + 20 * np.log(10) / np.log(4))
    assert grown(100, 1, 100, 4, 10**6) == 100


@pytest.mark.parametrize(
    ("own", "everyone", "expected"),
    [(4.0, 4.1, False), (1.0, 1.2, False), (2.0, 3.9, True), (0.5, 4.0, True), (4.0, None, False)],
)
def test_a_machine_is_crowded_when_others_use_what_we_could(monkeypatch, own, everyone, expected):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    end = None if everyone is None else 100 + everyone
    assert crowded(Clock(0.0, 0.0, 100.0), Clock(1.0, own, end)) is expected


# ------------------------------------------------------------------------------------------------- a whole forecast


def test_what_follows_from_what(data):
    result = forecast(config("data.test=test.xyz", "train.epochs=40"))
    times, disk, memory = result.times, result.disk, result.memory
    assert result.structures == {"train": 54, "val": 6, "test": 5}
    assert sum(s["batches"] for s in result.steps) <= MOST_STEPS
    assert times.updates_per_epoch == 6
    assert times.epoch == pytest.approx(6 * times.update)
    assert times.training == pytest.approx(times.first + 40 * (times.epoch + times.validation + 2 * times.saving))
    assert times.run == pytest.approx(times.setup + times.training + times.closing)
    assert times.stopped_by == "epochs"
    parts = disk.checkpoints + disk.artifacts + disk.evaluation + disk.records + disk.report
    assert disk.total == parts
    assert disk.peak == disk.total + disk.checkpoints // 2
    assert memory.before < memory.peak < memory.limit
    assert result.batches.atoms_most == 30
    assert result.batches.edges == pytest.approx(54 * 6 / 6)


def test_epochs_cycles_and_minutes(data):
    base, twice = forecast(config()), forecast(config("train.cycle_steps=3", "train.batch_size=9"))
    assert base.times.epochs == 3
    per_cycle = twice.times.validation + 2 * twice.times.saving
    assert twice.times.training == pytest.approx(twice.times.first + 3 * (twice.times.epoch + 2 * per_cycle))
    short = forecast(config("train.epochs=100000", "train.max_minutes=1")).times
    assert short.stopped_by == "max_minutes"
    limited = forecast(config("train.epochs=100000", "train.max_updates=6")).times
    assert limited.epochs == pytest.approx(6 / limited.updates_per_epoch)
    assert 60 < short.training < 90
    assert 0 < short.epochs < 100000


def test_no_validation_and_frozen_weights(data):
    result = forecast(config("data.val_fraction=0", "train.freeze=head_only"))
    assert result.structures == {"train": 60, "val": 60}
    assert 0 < result.trained < result.parameters
    assert "frozen" in rows(result)["parameters"].text
    assert result.disk.checkpoints < forecast(config("data.val_fraction=0")).disk.checkpoints


def test_disk_and_updates_as_they_then_are(data):
    from rich.console import Console

    from forgefield.app.tasks.train import run_task

    asked = config("data.test=test.xyz", "train.accum_steps=4", "train.batch_size=5")
    result = forecast(asked)
    run_task(asked, Console(quiet=True))
    history = [json.loads(line) for line in (asked.run_dir / "history.jsonl").read_text().splitlines()]
    assert history[-1]["update"] == 3 * result.times.updates_per_epoch
    size = lambda folder: sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())  # noqa: E731
    assert result.disk.checkpoints == pytest.approx(size(asked.run_dir / "checkpoints"), rel=0.2)
    assert result.disk.artifacts == pytest.approx(size(asked.run_dir / "artifacts"), rel=0.5)
    assert result.disk.total == pytest.approx(size(asked.run_dir), rel=0.3)

    again = forecast(asked.model_copy(update={"task": "resume", "train": asked.train.model_copy(update={"epochs": 5})}))
    assert again.times.epochs == 2
    tuned = forecast(
        config("data.test=test.xyz", f"model_in={asked.run_dir}", "run_dir=tuned",
               text=GOOD.replace("task: train", "task: finetune").split("model:")[0])
    )  # fmt: skip
    assert tuned.parameters == result.parameters
    assert not Path("tuned").exists()


def test_what_has_no_room_is_not_tried(data, monkeypatch):
    monkeypatch.setattr(Gauge, "limit", lambda self: 1)
    with pytest.raises(DeviceError, match=r"train.batch_size: a batch of 10 structures does not fit .* Fix: try 1,"):
        forecast(config())


def test_memory_that_nobody_tells_and_memory_that_is_short(data, monkeypatch):
    monkeypatch.setattr(Gauge, "limit", lambda self: None)
    unknown = forecast(config())
    assert rows(unknown)["memory"].state == "ok"
    assert len(unknown.steps) == MOST_STEPS
    monkeypatch.setattr(Gauge, "limit", lambda self: round(1.1 * unknown.memory.peak))
    short = forecast(config())
    assert "probe" not in {step["kind"] for step in short.steps}
    assert rows(short)["memory"].state == "warn"
    assert short.proposal.batch_size == 1


def test_an_evaluation_that_has_no_room(data, monkeypatch):
    used = forecast(config()).memory.before
    write_water("test.xyz", 300, seed=1)
    monkeypatch.setattr(Rehearsal, "memory_of", lambda self, size: used + size.structures * 2**30)
    monkeypatch.setattr(Gauge, "limit", lambda self: 30 * 2**30)
    with pytest.raises(DeviceError, match=r"data.batch_size: evaluating 300 structures at once"):
        forecast(config("data.test=test.xyz", "data.batch_size=500"))


def test_a_loss_that_is_no_number_is_an_error_before_the_run(data):
    write_water("train.xyz", 20, atoms=True, force_scale=1e4)
    with pytest.raises(ForgeError, match="not finite"):
        forecast(config("train.force_weight=1e38"))
    text = GOOD.replace("train:\n", "train:\n  force_weight: 1e38\n")
    text = text.replace("  train: train.xyz\n", "  train: train.xyz\n  accept: [forces_unit]\n")
    assert text != GOOD
    write_run(data, text)
    result = check("--dry-run")
    assert result.exit_code == 2
    assert "not finite" in result.stdout


# --------------------------------------------------------------------------------------------------- command line


def test_the_table_and_nothing_is_written(data):
    write_run(data)
    before = sorted((place, sorted(d), sorted(f)) for place, d, f in os.walk(data))
    stamps = {path: path.stat().st_mtime_ns for path in [data, *data.rglob("*")]}
    result = check("--dry-run")
    assert result.exit_code == 0, result.stdout
    for topic in ("dry run", "parameters", "batch", "memory", "update", "epoch", "whole run", "disk", "batch size"):
        assert f"\n{topic} " in result.stdout
    assert sorted((place, sorted(d), sorted(f)) for place, d, f in os.walk(data)) == before
    assert {path: path.stat().st_mtime_ns for path in [data, *data.rglob("*")]} == stamps


def test_json(data):
    write_run(data)
    (run,) = json.loads(check("--dry-run", "--json").stdout)["runs"]
    assert run["name"] == "first"
    assert {"topic", "state", "text"} == set(run["findings"][0])
    found = run["forecast"]
    assert found["times"]["run"] > found["times"]["training"] > 0
    assert found["proposal"]["now"] == 10
    assert found["memory"]["device"] == "cpu"
    (run,) = json.loads(check("--json").stdout)["runs"]
    assert "forecast" not in run


def test_errors_come_first(data):
    write_run(data)
    result = check("--dry-run", "--set", "data.test=nope.xyz")
    assert result.exit_code == 2
    assert "not carried out, because of the errors above" in result.stdout
    failed = check("--dry-run", "--json", "--set", "data.test=nope.xyz")
    assert failed.exit_code == 2
    assert json.loads(failed.stdout)["runs"][0]["forecast"] is None


def test_tasks_that_train_nothing(data):
    text = "runs:\n- " + GOOD.replace("\n", "\n  ")
    judge = "\n- {name: judge, task: evaluate, model_in: runs/first, data: {test: test.xyz}, output: {dir: o}}"
    tune = "\n- {name: tune, task: finetune, model_in: runs/first, data: {train: train.xyz}, run_dir: runs/tuned}\n"
    write_run(data, text + judge + tune)
    result = check("--dry-run")
    assert result.exit_code == 0, result.stdout
    assert "task evaluate trains nothing" in result.stdout
    assert "its model does not exist yet" in result.stdout


def test_a_budget_of_atoms_is_planned_with_and_kept(data):
    result = forecast(config("train.max_atoms=8", "data.val_fraction=0.1"))
    assert result.batches.atoms_most <= 8
    assert all(step["atoms"] <= 8 * step["batches"] for step in result.steps), "no probe exceeds it either"
    assert result.times.updates_per_epoch == 27, "54 molecules of 3 atoms, two in a batch"
    assert not result.proposal.changes
    assert "at most 8 atoms" in rows(result)["batch"].text


def test_memory_that_a_budget_exceeds_is_told_in_its_unit(data, monkeypatch):
    monkeypatch.setattr(Gauge, "limit", lambda self: 1)
    with pytest.raises(DeviceError, match=r"train.max_edges: a batch of 2 structures does not fit .* Fix: try 1,"):
        forecast(config("train.max_edges=12"))


def test_cpu_minutes_pass_faster_on_several_cores():
    from forgefield.app.forecast.outlook import _limits
    from forgefield.train.settings import TrainSettings

    limits = dict(_limits(TrainSettings(max_minutes=3, max_cpu_minutes=10), 4.0))
    assert limits == {"max_minutes": 180.0, "max_cpu_minutes": 150.0}
    assert _limits(TrainSettings(), 4.0) == []
