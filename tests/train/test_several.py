"""Several processes train as one; signals, deaths and full disks end all of them; from forked fits, see several.py."""

import json
import signal as signals
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from charged_toy import charged_structures, make_charged
from safetensors.torch import load_file
from toy import load, make_potential, make_structures

from forgefield.core.errors import DeviceError
from forgefield.train import evaluate
from forgefield.train.joining import launched
from forgefield.train.measured import measured_in_evaluation
from forgefield.train.recorder import read_history
from forgefield.train.table import gathered, joined, table_of
from forgefield.train.team import ALONE

MINUTE = 60.0
CLOCK = {"seconds", "total_seconds", "cpu_seconds", "structures_per_second", "peak_memory_mib"}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The folder in which the fits were made, and what each process ended with."""
    root = tmp_path_factory.mktemp("several")
    script = Path(__file__).with_name("several.py")
    done = subprocess.run([sys.executable, script, root], capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr
    return root, json.loads((root / "found.json").read_text())


def tensors(folder):
    return load_file(folder / "checkpoints" / "last" / "training.safetensors")


def steady(folder):
    """The history without what the clock decides."""
    rows = read_history(folder / "history.jsonl")
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


@pytest.mark.parametrize(
    "name",
    ["plain", "accumulated", "three", "srun", "full batch", "roots", "roots of single batches", "roots, full batch"],
)
def test_several_processes_give_the_run_of_one(outcome, name):
    """Batches of 3, 3, 3 and 1 structures: of two processes one goes empty, of three two; not all have a stress."""
    root, found = outcome
    assert found[name]["alone"]["words"] == [""]
    assert set(found[name]["several"]["words"]) == {""}
    alone, several = steady(root / name / "alone"), steady(root / name / "several")
    assert len(alone) == len(several) == (1 if name == "srun" else 5 if name == "three" else 3)
    for one, two in zip(alone, several, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            assert two[key] == pytest.approx(value, rel=1e-10, abs=1e-13), key
    one, two = tensors(root / name / "alone"), tensors(root / name / "several")
    for key in one:
        if not key.startswith("random."):
            assert torch.allclose(one[key].double(), two[key].double(), rtol=1e-9, atol=1e-12), key


def test_random_numbers_of_every_process_are_kept(outcome):
    root, _ = outcome
    found = tensors(root / "three" / "several")
    assert {f"random.{rank}.torch" for rank in range(3)} <= found.keys()
    assert not torch.equal(found["random.0.torch"], found["random.1.torch"])


def test_a_loss_that_is_not_finite_names_the_structures_of_all_processes(outcome):
    _, found = outcome
    first, second = found["nan"]["words"]
    assert first == second
    assert "update held structures" in first
    named = first.split("update held structures ")[1].split(" of the training")[0].split(", ")
    assert len(named) == 3
    assert "9" in named


def test_other_data_in_one_process_are_refused_in_all(outcome):
    root, found = outcome
    assert all("have other data or settings" in word for word in found["other data"]["words"])
    assert not (root / "other" / "checkpoints").exists()


def test_when_one_process_dies_the_other_ends_with_an_error(outcome):
    root, found = outcome
    first, second = found["dies"]["words"]
    assert second == "exit -9"
    assert first.startswith("DeviceError: process 0 of 2 cannot reach the others; one of them has ended")
    assert found["dies"]["seconds"] < MINUTE
    assert json.loads((root / "dies/checkpoints/last/state.json").read_text())["progress"]["update"] == 4


def test_a_process_whose_others_never_appear_ends(outcome):
    """Here after 3.3 s; the error of torch or the end of the process comes first, as it happens."""
    _, found = outcome
    (word,) = found["waits"]["words"]
    assert word == "exit 2" or word.startswith("DeviceError: device: the 2 processes of torchrun cannot work together")
    assert found["waits"]["seconds"] < MINUTE / 2


def test_when_the_disk_is_full_for_the_one_that_writes_all_end(outcome):
    _, found = outcome
    first, second = found["disk"]["words"]
    assert "No space left on device" in first
    assert second.startswith("DeviceError: process 1 of 2 cannot reach the others")
    assert found["disk"]["seconds"] < MINUTE


def test_another_number_of_processes_goes_on_and_is_said(outcome):
    root, found = outcome
    assert set(found["number"]["first"]["words"] + found["number"]["second"]["words"]) == {""}
    lines = [json.loads(line)["event"] for line in (root / "number/events.jsonl").read_text().splitlines()]
    assert lines == [
        "resume: 1 processes, the checkpoint was of 2; sums are rounded differently from here on",
    ]
    one, two = steady(root / "number"), steady(root / "plain" / "alone")
    assert [row["val_loss"] for row in one] == pytest.approx([row["val_loss"] for row in two], rel=1e-10)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT", "one of two"])
def test_a_signal_ends_after_the_update_in_hand_and_the_fit_goes_on_to_the_same_end(outcome, name):
    root, found = outcome
    many = name == "one of two"
    here = found["signal to one"] if many else found["signals"][name]
    signal = "SIGTERM" if many else name
    assert here["cut"]["words"] == [f"Stopped: stopped by {signal}"] * (2 if many else 1)
    assert (here["state"]["epoch"], here["state"]["batch"], here["state"]["update"]) == (1, 2, 6)
    assert set(here["goes on"]["words"] + here["straight"]["words"]) == {""}
    (folder,) = root.glob(f"signal-{'15-2' if many else f'{signals.Signals[name]:d}-1'}")
    one, two = tensors(folder / "cut"), tensors(folder / "straight")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert steady(folder / "cut") == steady(folder / "straight")
    (line,) = (folder / "cut/events.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "update": 6,
        "event": f"stopped by {signal} after update 6, saved in checkpoints/last",
    }


def test_a_second_ctrl_c_ends_at_once(outcome):
    root, found = outcome
    assert found["twice"]["words"] == ["KeyboardInterrupt: "]
    assert found["twice"]["seconds"] < MINUTE
    assert not (root / "twice" / "checkpoints").exists()


def test_tables_travel_whatever_their_order_in_memory():
    loader = load(make_structures(5))
    table = evaluate.gather(make_potential(), loader)
    turned = table._replace(forces=np.asfortranarray(table.forces), stress=table.stress.copy().transpose(0, 2, 1))
    heads = np.zeros(len(loader.dataset), dtype=np.int64)
    (back,), (same,) = gathered([turned], [heads], ALONE)
    assert np.array_equal(same, heads)
    for name in set(turned._fields) - {"further"}:
        assert np.array_equal(getattr(back, name), getattr(turned, name)), name


def test_charges_and_dipoles_travel_too():
    potential, loader, parts, heads = make_charged(), load(charged_structures(), 4), [], []
    for batch in loader.batches():
        parts.append(table_of(batch, potential(batch.graph), measured_in_evaluation(potential)))
        heads.append(np.zeros(len(batch.index), dtype=np.int64))
    (back,), _ = gathered(parts, heads, ALONE)
    whole = joined(parts)
    assert set(back.further) == set(whole.further) == {"charges", "dipole", "gap"}
    for name, one in whole.further.items():
        assert back.further[name].per == one.per
        assert all(np.array_equal(a, b) for a, b in zip(back.further[name][:3], one[:3], strict=True)), name


TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "1"
}  # fmt: skip
SRUN = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5"}


def test_launchers_are_told_from_their_variables():
    assert launched({}) is None
    assert launched({**TORCHRUN, "WORLD_SIZE": "1"}) is None
    for name, variables in (("torchrun", TORCHRUN), ("srun", SRUN)):
        found = launched(variables)
        assert found is not None
        assert (found.launcher, found.rank, found.processes, found.nodes, found.processes_per_node) == (
            name,
            5,
            8,
            2,
            4,
        )


def test_a_batch_script_without_srun_is_one_process():
    assert launched({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}) is None


def test_nodes_with_different_numbers_of_tasks_are_refused():
    with pytest.raises(DeviceError, match=r"3 tasks on 2 nodes.*--ntasks-per-node"):
        launched({**SRUN, "SLURM_STEP_NUM_TASKS": "3"})
