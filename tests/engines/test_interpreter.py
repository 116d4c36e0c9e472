"""The other interpreter: a tiny script of ours stands for the worker, our own python for its interpreter."""

import json
import sys
from pathlib import Path

import pytest

from forgefield.core.errors import ForgeError
from forgefield.engines.interpreter import Interpreter


@pytest.fixture
def worker(tmp_path):
    def write(body: str) -> Path:
        path = tmp_path / "worker.py"
        path.write_text(body)
        return path

    return write


def refuse(worker, body, folder=None, **options):
    """The message of the error that a worker with this body ends in."""
    with pytest.raises(ForgeError) as caught:
        Interpreter(sys.executable, **options).run(worker(body), [], folder)
    return str(caught.value)


def test_returns_output_and_passes_arguments(worker, tmp_path):
    script = worker("import sys; print('|'.join(sys.argv[1:]))")
    assert Interpreter(sys.executable).run(script, ["export", tmp_path, "a b"]) == f"export|{tmp_path}|a b\n"


def test_environment_is_clean(worker, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    monkeypatch.setenv("KEPT_VARIABLE", "kept")
    script = worker("import os; print(os.environ.get('PYTHONPATH'), os.environ['KEPT_VARIABLE'])")
    assert Interpreter(sys.executable).run(script, []) == "None kept\n"


@pytest.mark.parametrize("python", ["/no/such/python", "no-such-python-anywhere"])
def test_missing_interpreter(python):
    with pytest.raises(ForgeError, match=f"no Python interpreter at '{python}'.*--backend-python"):
        Interpreter(python)


def test_interpreter_that_is_not_executable(tmp_path):
    file = tmp_path / "python"
    file.write_text("text")
    with pytest.raises(ForgeError, match="no Python interpreter"):
        Interpreter(file)


def test_interpreter_that_is_not_a_program(tmp_path):
    file = tmp_path / "python"
    file.write_bytes(b"\x00\x01\x02")
    file.chmod(0o755)
    with pytest.raises(ForgeError, match="cannot be started"):
        Interpreter(file).run("mace_torch", [])


def test_missing_package_names_what_to_install(tmp_path):
    script = tmp_path / "mace_torch.py"
    script.write_text("raise ModuleNotFoundError(\"No module named 'e3nn.o3'\")")
    with pytest.raises(ForgeError, match=r"no package 'e3nn'.*pip install mace-torch"):
        Interpreter(sys.executable).run(script, [])


def test_refusal_is_passed_on(worker, tmp_path):
    text = json.dumps({"error": "dipole models are not supported"})
    body = f"import sys; open({str(tmp_path / 'error.json')!r}, 'w').write({text!r}); sys.exit(3)"
    assert "dipole models are not supported" in refuse(worker, body, tmp_path)


def test_stale_refusal_is_not_believed(worker, tmp_path):
    (tmp_path / "error.json").write_text(json.dumps({"error": "from an earlier run"}))
    text = refuse(worker, "raise ValueError('the real reason')", tmp_path)
    assert "the real reason" in text
    assert "earlier" not in text


def test_unreadable_refusal(worker, tmp_path):
    body = f"import sys; open({str(tmp_path / 'error.json')!r}, 'w').write('half'); sys.exit(3)"
    assert "error.json cannot be read" in refuse(worker, body, tmp_path)


def test_crash_shows_the_last_lines_only(worker):
    text = refuse(worker, "import sys\nfor k in range(50): print('line', k, file=sys.stderr)\nsys.exit(7)")
    assert "exit code 7" in text
    assert "line 49" in text
    assert "line 10" not in text


def test_silent_crash(worker):
    assert "it said nothing" in refuse(worker, "import os; os._exit(9)")


def test_signal_is_named(worker):
    assert "SIGKILL" in refuse(worker, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_timeout(worker):
    assert "did not end within 0.2 s" in refuse(worker, "import time; time.sleep(30)", timeout=0.2)
