"""The start of the program: a second start with another allocator, once, with the same words and exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgefield.app import launch
from forgefield.core import allocator
from forgefield.core.errors import ConfigError

VARIABLES = (launch.PRELOAD, launch.QUIET, launch.STARTED, allocator.VARIABLE)
glibc = pytest.mark.skipif(not allocator.is_glibc(), reason="another allocator than glibc's")


@pytest.fixture
def clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocator, "is_glibc", lambda: True)
    return monkeypatch


def start(code, *words, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES} | variables
    return subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["run", "run.yaml"], True),
        (["--debug", "train", "--data", "x"], True),
        (["evaluate", "--help"], False),
        (["run", "-h"], False),
        (["--help"], False),
        (["explain", "train.lr"], False),
        (["explain", "run"], False),
        ([], False),
    ],
)
def test_only_commands_that_compute_start_again(words, answer):
    assert launch.computes(words) is answer


def test_the_second_start_keeps_words_and_the_users_preload(clean):
    calls = []
    clean.setattr(os, "execve", lambda *call: calls.append(call))
    clean.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "forgefield", "run", "a b.yaml"])
    clean.setenv("LD_PRELOAD", "/mine.so")
    launch._start_again(Path("/lib/libtcmalloc.so.4"))
    ((program, words, environment),) = calls
    assert program == sys.executable
    assert words == [sys.executable, "-X", "dev", "-m", "forgefield", "run", "a b.yaml"]
    assert environment["LD_PRELOAD"] == "/mine.so:/lib/libtcmalloc.so.4"
    assert os.environ["LD_PRELOAD"] == "/mine.so"
    for name in VARIABLES:
        clean.setenv(name, environment.get(name, "auto"))
    assert launch._restore_environment() is True
    assert os.environ["LD_PRELOAD"] == "/mine.so"
    assert launch.STARTED not in os.environ
    assert launch.QUIET not in os.environ
    assert launch._restore_environment() is False


def test_a_program_that_cannot_start_again_goes_on_and_says_so(clean, capsys):
    def refuse(*_):
        raise OSError(8, "Exec format error")

    clean.setattr(os, "execve", refuse)
    launch._start_again(Path("/lib/libtcmalloc.so.4"))
    assert "libtcmalloc.so.4 is not used" in capsys.readouterr().err


def test_the_first_library_of_this_machine_is_chosen(clean, tmp_path):
    clean.setattr(launch, "library_folders", lambda: [tmp_path / "none", tmp_path])
    assert launch.library_to_preload() is None
    own = Path(sys.executable).resolve().read_bytes()[:20]
    (tmp_path / "libtcmalloc.so.4").write_bytes(own[:18] + b"\xff\xff")  # of another kind of processor
    assert launch.library_to_preload() is None
    (tmp_path / "libjemalloc.so.2").write_bytes(own)
    assert launch.library_to_preload() == tmp_path / "libjemalloc.so.2"
    (tmp_path / "libtcmalloc_minimal.so.4").write_bytes(own)
    assert launch.library_to_preload() == tmp_path / "libtcmalloc_minimal.so.4"
    for value in ("tuned", "system"):
        clean.setenv(allocator.VARIABLE, value)
        assert launch.library_to_preload() is None
    clean.setenv(allocator.VARIABLE, str(tmp_path / "libjemalloc.so.2"))
    assert launch.library_to_preload() == tmp_path / "libjemalloc.so.2"
    clean.setenv(allocator.VARIABLE, "tcmaloc")
    with pytest.raises(ConfigError):
        launch.library_to_preload()


def test_nothing_is_preloaded_over_another_allocator(clean, tmp_path):
    own = Path(sys.executable).resolve().read_bytes()[:20]
    (tmp_path / "libtcmalloc.so.4").write_bytes(own)
    clean.setattr(launch, "library_folders", lambda: [tmp_path])
    clean.setattr(allocator, "is_glibc", lambda: False)
    assert launch.library_to_preload() is None


@glibc
def test_a_real_second_start_happens_once_and_ends_as_the_first_would(tmp_path):
    """With a library that is no allocator: it is loaded, the words and the exit code stay, and the user is told."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    library = next(x.split()[-1] for x in maps if x.endswith((".so.6", ".so.1", ".so.2")) and "libc.so" not in x)
    code = (
        "import json, os, sys\n"
        "print(json.dumps([os.getpid(), sys.argv[1:], sorted(x for x in os.environ if 'PRELOAD' in x)]), flush=True)\n"
        "from forgefield.app.launch import main\n"
        "main()\n"
    )
    words = ["run", str(tmp_path / "no such.yaml")]
    done = start(code, *words, **{allocator.VARIABLE: library})
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first[:2] == second[:2]
    assert [first[2], second[2]] == [[], ["LD_PRELOAD"]]
    assert done.returncode == 2
    assert "no such.yaml: no such file" in done.stderr
    assert "did not take the place of glibc's" in done.stderr


@glibc
def test_an_installed_allocator_is_in_use_without_doing_anything():
    if launch.library_to_preload() is None:
        pytest.skip("no tcmalloc, jemalloc or mimalloc installed")
    code = (
        "import os, sys\n"
        "from forgefield.app import cli, launch\n"
        "from forgefield.core import allocator\n"
        "cli.main = lambda: (print(allocator.in_use(), sorted(os.environ) == before), sys.exit(130))\n"
        "before = sorted(set(os.environ) - {launch.PRELOAD, launch.QUIET, launch.STARTED})\n"
        "launch.main()\n"
    )
    done = start(code, "train")
    assert done.returncode == 130, done.stderr
    words = done.stdout.split()
    assert words[0] in ("tcmalloc", "jemalloc", "mimalloc")
    assert words[-1] == "True"
    assert start(code, "train", **{allocator.VARIABLE: "tuned"}).stdout.split() == ["glibc,", "tuned", "True"]
    assert start(code, "train", **{allocator.VARIABLE: "system"}).stdout.split() == ["glibc", "True"]
    assert start(code, "explain").stdout.split() == ["glibc", "True"]


def test_a_wrong_variable_is_one_message():
    done = start("from forgefield.app.launch import main; main()", "run", "x", **{allocator.VARIABLE: "tcmaloc"})
    assert done.returncode == 2
    assert done.stderr.startswith("error: environment variable FORGEFIELD_ALLOCATOR: 'tcmaloc'")
    assert "Traceback" not in done.stderr
