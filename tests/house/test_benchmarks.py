"""Every benchmark starts: what it imports is there, and `--help` says what it does."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
COMMANDS = [path for path in sorted(FOLDER.glob("*.py")) if "__main__" in path.read_text()]


def test_there_are_benchmarks():
    assert len(COMMANDS) > 5


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_it_starts(path):
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
