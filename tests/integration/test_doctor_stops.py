"""A severe finding stops training unless data.accept names it; an accepted one stands in run.json and in the report."""

import json

import pytest
from ruamel.yaml import YAML

from forgefield.app.cli import main


def start(tmp_path, values) -> int:
    path = tmp_path / "run.yaml"
    with path.open("w") as stream:
        YAML().dump(values, stream)
    with pytest.raises(SystemExit) as end:
        main(["run", str(path)])
    return end.value.code or 0


def test_severe_findings_stop_training(data, settings, tmp_path, capsys):
    run_dir = tmp_path / "run"
    values = settings(run_dir, data__val=str(data / "train.xyz"), train__epochs=1)
    assert start(tmp_path, values) == 2
    message = capsys.readouterr().err
    assert "leaked_duplicates" in message
    assert "data.accept: [leaked_duplicates]" in message
    assert not run_dir.exists()


def test_accepted_findings_are_recorded(data, settings, tmp_path):
    run_dir = tmp_path / "run"
    accept = ["leaked_duplicates", "net_force"]
    values = settings(run_dir, data__val=str(data / "train.xyz"), data__accept=accept, train__epochs=1)
    assert start(tmp_path, values) == 0
    record = json.loads((run_dir / "run.json").read_text())["doctor"]
    assert record["accepted"] == ["leaked_duplicates"]
    assert record["accepted_but_not_found"] == ["net_force"]
    assert record["structures"] == record["looked_at"]
    assert "severe, accepted" in (run_dir / "report.html").read_text()


def test_unknown_names_are_refused_at_their_key(data, settings, tmp_path, capsys):
    assert start(tmp_path, settings(tmp_path / "run", data__accept=["leaked_duplicate"])) == 2
    message = capsys.readouterr().err
    assert "accept" in message
    assert "did you mean 'leaked_duplicates'" in message
