"""The benchmark beside mace-torch still runs, and both sides compute the same model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.engine
@pytest.mark.slow
def test_quick_benchmark(tmp_path):
    python = os.environ.get("FORGEFIELD_MACE_PYTHON")
    if not python:
        pytest.skip("FORGEFIELD_MACE_PYTHON does not name an interpreter with mace-torch")
    report = tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "mace_train.py"), "--quick", "--json", str(report)]
    command += ["--backend-python", python, "--cases", "silicon", "--dtypes", "float64"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("silicon float64")]
    assert len(lines) == 4
    assert all(float(line.rsplit("ratio: ", 1)[1]) > 0 for line in lines)
    (case,) = json.loads(report.read_text())["cases"]
    assert case["force_difference"] < 1e-9
