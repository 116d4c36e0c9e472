"""The allocator that is in use, and glibc's thresholds; in processes of their own, as both stay for good."""

import os
import subprocess
import sys

import pytest

from forgefield.core import allocator
from forgefield.core.errors import ConfigError

glibc = pytest.mark.skipif(not allocator.is_glibc(), reason="another allocator than glibc's")
CLEAN = ("LD_PRELOAD", "GLIBC_TUNABLES", allocator.VARIABLE, "MALLOC_TRIM_THRESHOLD_")
ON_THE_HEAP = """
import ctypes
from pathlib import Path
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def on_the_heap(mib):
    address = c.malloc(mib * 2**20)
    spans = [x.split() for x in Path("/proc/self/maps").read_text().splitlines() if x.endswith("[heap]")]
    found = any(int(s.split("-")[0], 16) <= address < int(s.split("-")[1], 16) for s, *_ in spans)
    c.free(address)
    return found
"""


def output_of(code, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in CLEAN} | variables
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


@glibc
def test_large_blocks_come_from_the_heap_once_tuned_and_not_before():
    code = ON_THE_HEAP + (
        "from forgefield.core import allocator\n"
        "print(allocator.in_use(), on_the_heap(20))\n"
        "print(allocator.tune(), allocator.in_use(), on_the_heap(20), on_the_heap(40))\n"
    )
    assert output_of(code) == ["glibc False", "True glibc, tuned True False"]


@glibc
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1000000"}, "glibc, set by the user"),
        ({"MALLOC_TRIM_THRESHOLD_": "1000000"}, "glibc, set by the user"),
        ({allocator.VARIABLE: "system"}, "glibc"),
    ],
)
def test_what_the_user_set_is_left_alone(variables, words):
    code = ON_THE_HEAP + (
        "from forgefield.core import allocator\nprint(allocator.tune(), allocator.in_use(), on_the_heap(20))\n"
    )
    assert output_of(code, **variables) == [f"False {words} False"]


@glibc
def test_tuned_is_what_the_environment_may_ask_for():
    code = "from forgefield.core import allocator\nprint(allocator.tune(), allocator.in_use())\n"
    assert output_of(code, **{allocator.VARIABLE: "tuned"}) == ["True glibc, tuned"]


@pytest.mark.parametrize("value", ["tcmaloc", "/no/such/libtcmalloc.so"])
def test_an_allocator_that_there_is_not_is_refused(value, monkeypatch):
    monkeypatch.setenv(allocator.VARIABLE, value)
    with pytest.raises(ConfigError, match=r"FORGEFIELD_ALLOCATOR: .*neither auto, tuned nor system.*Fix: "):
        allocator.wanted()


def test_other_libraries_are_named_and_nothing_is_set(monkeypatch):
    for library, words in (
        ("libtcmalloc_minimal.so.4", "tcmalloc (libtcmalloc_minimal.so.4)"),
        ("libjemalloc.so.2", "jemalloc (libjemalloc.so.2)"),
        ("ld-musl-x86_64.so.1", "ld-musl-x86_64.so.1"),
        (None, "of the system"),
    ):
        monkeypatch.setattr(allocator, "provider", lambda library=library: library)
        assert allocator.in_use() == words
        assert allocator.tune.__wrapped__() is False
