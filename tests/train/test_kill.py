"""The short form of the kill test; the long one is `make kill`."""

import re
import subprocess
import sys
from pathlib import Path

DRIVE = Path(__file__).parent / "kill" / "drive.py"


def test_fits_that_are_killed_and_continued_are_the_same_fits():
    words = [sys.executable, DRIVE, "--kills", "12", "--seed", "3"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()[:-1]
    assert len(lines) == 6
    for line in lines:
        assert ": 2 kills (" in line
        equal, runs = re.search(r"(\d+) of (\d+) runs equal to the uninterrupted one", line).groups()
        assert equal == runs
