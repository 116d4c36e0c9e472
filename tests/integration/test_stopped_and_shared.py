"""The command line: a signal ends training with code 75 and the same command goes on; torchrun shares the batches."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from ruamel.yaml import YAML

import forgefield
from forgefield.app import cli

CLOCK = {"seconds", "total_seconds", "cpu_seconds", "structures_per_second", "peak_memory_mib"}
COMMAND = [sys.executable, "-m", "forgefield"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "forgefield"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "FORGEFIELD_ALLOCATOR": "system"}


def written(path, keys):
    with open(path, "w") as file:
        YAML(typ="safe").dump(keys, file)
    return path


def steady(folder):
    """The history without what the clock decides."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def carried_out(*words, command=COMMAND):
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, env=ENVIRONMENT, timeout=300)


def test_a_signal_ends_training_and_the_same_command_goes_on(settings, tmp_path):
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    keys = {"train__epochs": 4, "train__batch_size": 2, "train__log_every": 1, "export__targets": []}
    done = carried_out("run", written(tmp_path / "straight.yaml", settings(straight, **keys)))
    assert done.returncode == 0, done.stderr
    file = written(tmp_path / "cut.yaml", settings(cut, **keys))
    process = subprocess.Popen(
        [*COMMAND, "run", str(file)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not (cut / "history.jsonl").exists() or not (cut / "history.jsonl").read_text():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 75, out
    assert "stopped: SIGUSR1; saved. Go on with the same command, or: forgefield resume" in out
    record = json.loads((cut / "run.json").read_text())
    assert (record["status"], record["stopped_by"]) == ("stopped by SIGUSR1", "SIGUSR1")
    refused = carried_out("run", file, "--set", "train.lr=0.5")
    assert refused.returncode == 2
    assert "train.lr was 0.01, is 0.5" in refused.stderr
    assert "--accept train.lr" in refused.stderr
    again = carried_out("run", file)
    assert again.returncode == 0, again.stderr
    assert steady(cut) == steady(straight)
    for name in ("best", "last"):
        one, two = (folder / "checkpoints" / name / "training.safetensors" for folder in (straight, cut))
        assert one.read_bytes() == two.read_bytes()
    record = json.loads((cut / "run.json").read_text())
    assert record["status"] == "finished"
    assert "stopped_by" not in record


def killed(file, folder, *words):
    """Start a run and kill it with SIGKILL as soon as it has a checkpoint."""
    command = [*COMMAND, "run", str(file), *words]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (folder / "checkpoints" / "last" / "state.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait(timeout=60)


def test_a_job_that_is_killed_goes_on_with_the_same_line(settings, tmp_path):
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    keys = {"train__epochs": 4, "train__batch_size": 2, "export__targets": []}
    done = carried_out("run", written(tmp_path / "straight.yaml", settings(straight, **keys)))
    assert done.returncode == 0, done.stderr
    file = written(tmp_path / "cut.yaml", settings(cut, **keys))
    killed(file, cut, "--continue")
    refused = carried_out("run", file)
    assert refused.returncode == 2
    assert "holds a run that did not end (was killed, or still runs)" in refused.stderr
    assert f"the same command with --continue, or forgefield resume {cut}, goes on" in refused.stderr
    other = carried_out("run", file, "--continue", "--set", "train.lr=0.5")
    assert (other.returncode, "train.lr was 0.01, is 0.5" in other.stderr) == (2, True)
    again = carried_out("run", file, "--continue")
    assert again.returncode == 0, again.stderr
    assert steady(cut) == steady(straight)
    for name in ("best", "last"):
        one, two = (folder / "checkpoints" / name / "training.safetensors" for folder in (straight, cut))
        assert one.read_bytes() == two.read_bytes()
    before = (cut / "run.json").read_bytes()
    rest = carried_out("run", file, "--continue")
    assert (rest.returncode, "this run is finished, nothing is left to do" in rest.stdout) == (0, True)
    assert (cut / "run.json").read_bytes() == before
    longer = carried_out("run", file, "--continue", "--set", "train.epochs=5")
    assert longer.returncode == 0, longer.stderr
    assert len(steady(cut)) == 5


def test_a_run_killed_before_its_first_checkpoint_begins_anew(settings, tmp_path):
    run_dir = tmp_path / "run"
    file = written(tmp_path / "run.yaml", settings(run_dir, train__epochs=1, export__targets=[]))
    (run_dir / "checkpoints" / ".last.new").mkdir(parents=True)
    (run_dir / "notes.txt").write_text("mine")
    (run_dir / "run.json").write_text('{"status": "running"}')
    (run_dir / "run.resolved.yaml").write_text(file.read_text())
    refused = carried_out("run", file)
    assert (refused.returncode, "the same command with --continue begins it anew" in refused.stderr) == (2, True)
    again = carried_out("run", file, "--continue")
    assert again.returncode == 0, again.stderr
    assert "killed before its first checkpoint; it begins anew" in " ".join(again.stdout.split())
    assert len(steady(run_dir)) == 1
    assert (run_dir / "notes.txt").read_text() == "mine"


def test_going_on_needs_to_know_where(data):
    found = carried_out("train", "--data", data / "train.xyz", "--continue")
    assert (found.returncode, "--out: --continue needs the folder of the run" in found.stderr) == (2, True)


def test_a_change_is_accepted_by_flag_and_kept(own_run, capsys):
    def resume(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(["resume", str(own_run), "--epochs", "3", *words])
        return ended.value.code, capsys.readouterr().err

    code, err = resume("--set", "train.lr=0.001")
    assert (code, "train.lr was 0.01, is 0.001" in err) == (2, True)
    code, err = resume("--set", "model.r_max=4.5", "--accept-changes")
    assert (code, "model.r_max" in err) == (2, True)
    code, err = resume("--set", "train.lr=0.001", "--accept", "train.lr")
    assert code in (0, None), err
    assert steady(own_run)[-1]["lr"] == 0.001
    assert "resume: train.lr was 0.01, is 0.001; accepted" in (own_run / "events.jsonl").read_text()
    assert "lr: 0.001" in (own_run / "run.resolved.yaml").read_text()


def test_accept_is_for_resume(settings, tmp_path):
    with pytest.raises(forgefield.ForgeError, match="accept: has an effect with task resume only, this is train"):
        forgefield.run(settings(tmp_path / "run", accept=["train.lr"]), quiet=True)


def test_torchrun_gives_the_run_of_one_process(settings, tmp_path):
    keys = {"train__epochs": 1, "train__batch_size": 3, "export__targets": []}
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    done = carried_out("run", written(tmp_path / "alone.yaml", settings(alone, **keys)))
    assert done.returncode == 0, done.stderr
    done = carried_out("run", written(tmp_path / "shared.yaml", settings(shared, **keys)), command=TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("processes: 2, started by torchrun") == 1
    assert done.stdout.count("Files:") == 1
    for one, two in zip(steady(alone), steady(shared), strict=True):
        for key, value in one.items():
            assert two[key] == (None if value is None else pytest.approx(value, rel=1e-10, abs=1e-13)), key
    names = {path.name for path in alone.iterdir()}
    assert {path.name for path in shared.iterdir()} == names
    more = carried_out("resume", shared, "--epochs", 2, command=TORCHRUN)
    assert more.returncode == 0, more.stderr
    assert [row["epoch"] for row in steady(shared)] == [1, 2]


def test_several_processes_are_for_training(settings, shared_run, tmp_path, monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(forgefield.ForgeError, match="task evaluate is for one process, and torchrun started 2"):
        forgefield.run(settings(tmp_path / "run", task="evaluate", model_in=str(shared_run[0])), quiet=True)
