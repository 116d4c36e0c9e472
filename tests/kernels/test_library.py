"""Building, keeping and doing without the compiled operators."""

import os
import subprocess
import sys

import pytest

from forgefield.kernels import library
from forgefield.kernels.library import BuildError

PROBE = "from forgefield.kernels.library import load; found = load(); print(found.path is not None, found.words)"


def run(environment, code=PROBE):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )


def test_without_a_compiler_the_plain_path_works_and_says_so(tmp_path):
    done = run({"FORGEFIELD_CACHE": str(tmp_path), "PATH": "", "CXX": ""})
    assert done.stdout.startswith("False plain PyTorch (no C++ compiler found")
    assert "plain PyTorch runs instead" in done.stderr


def test_plain_can_be_chosen_from_outside():
    done = run({"FORGEFIELD_KERNELS": "plain"})
    assert done.stdout == "False plain PyTorch (FORGEFIELD_KERNELS=plain)\n"
    assert done.stderr == ""


def test_a_failing_compiler_is_reported_and_leaves_no_library(tmp_path, monkeypatch):
    fake = tmp_path / "cxx"
    fake.write_text("#!/bin/sh\necho 'operators.cpp:1: error: out of luck' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    monkeypatch.setenv("FORGEFIELD_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BuildError, match="out of luck"):
        library.build(quiet=True)
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_library_is_kept_by_source_flags_and_compiler(monkeypatch):
    usual = library._key()
    assert library._key() == usual
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, "-DOTHER"))
    assert library._key() != usual
    monkeypatch.undo()
    monkeypatch.setattr(library, "instruction_set", lambda: "AVX2")
    assert library._key().startswith("avx2-")


@pytest.mark.parametrize(("there", "known"), [("AVX512", 3), ("AVX2", 2), ("DEFAULT", 1)])
def test_narrower_instructions_can_be_asked_for(there, known, monkeypatch):
    monkeypatch.setattr(library.torch.backends.cpu, "get_cpu_capability", lambda: there)
    for k, asked in enumerate(["baseline", "AVX2", "AVX512", "AVX10"]):
        monkeypatch.setenv("FORGEFIELD_INSTRUCTIONS", asked)
        if k < known:
            assert library.instruction_set() == asked
            assert library._key().startswith(asked.lower())
        else:
            with pytest.raises(BuildError, match="not among this processor's vectors"):
                library.instruction_set()


def test_instructions_that_are_not_there_leave_the_plain_path():
    done = run({"FORGEFIELD_INSTRUCTIONS": "AVX10"})
    assert done.stdout.startswith("False plain PyTorch (")
    assert "FORGEFIELD_INSTRUCTIONS=AVX10" in done.stderr


def test_no_flag_hides_nan():
    flags = [*library.FLAGS, *(flag for flags in library.VECTOR_FLAGS.values() for flag in flags)]
    assert not [flag for flag in flags if "fast-math" in flag or "finite" in flag or "associative" in flag]
