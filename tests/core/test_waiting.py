"""The limit on spinning is set before PyTorch is imported, and never over the user's own."""

import os
import subprocess
import sys

PROGRAM = "import sys; {} import forgefield, os; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"


def run(first="", **variables):
    kept = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", PROGRAM.format(first)]
    return subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=True).stdout.split()


def test_it_is_set_at_import_without_importing_torch():
    assert run() == ["3000", "False"]


def test_the_users_own_setting_stays():
    assert run(GOMP_SPINCOUNT="7") == ["7", "False"]
    assert run(OMP_WAIT_POLICY="active") == ["None", "False"]


def test_after_torch_it_would_have_no_effect():
    assert run("import torch;") == ["None", "True"]
