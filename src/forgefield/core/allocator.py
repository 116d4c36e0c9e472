"""The memory allocator of this process: which one it is, and better thresholds where it is glibc's.

glibc hands large blocks back to the kernel as soon as they are freed and asks for them again a moment later; every time
their pages are cleared. Training allocates and frees the same large blocks in every step, so this costs much time.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import sys
from pathlib import Path

from forgefield.core.errors import ConfigError

VARIABLE = "FORGEFIELD_ALLOCATOR"
"""Environment variable: auto, tuned (preload nothing), system (leave everything as it is), or a library to preload."""
AUTO, TUNED, SYSTEM = "auto", "tuned", "system"

_MIB = 2**20
_OPTIONS = {
    -3: 32 * _MIB,  # M_MMAP_THRESHOLD: only blocks above this are mapped one by one; glibc takes no larger value
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: free memory at the top of the heap that is kept; the largest int
}
_OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")
_NAMES = re.compile(r"tcmalloc|jemalloc|mimalloc")


def wanted() -> str:
    """Return what the environment asks for: auto, tuned, system, or the path of a library.

    Raises:
        ConfigError: it is none of these, or the library is not there.
    """
    value = os.environ.get(VARIABLE, "") or AUTO
    if value in (AUTO, TUNED, SYSTEM) or (os.sep in value and Path(value).is_file()):
        return value
    what = f"{value!r} is neither {AUTO}, {TUNED} nor {SYSTEM}, nor the path of a library that is there"
    raise ConfigError(what, f"environment variable {VARIABLE}", f"use one of these, or unset {VARIABLE}")


@functools.cache
def tune() -> bool:
    """Make glibc keep freed memory for the next step; done once, and only where glibc's allocator is in use.

    Returns:
        Whether the thresholds were set: not with another allocator or C library, not if the environment asks for
        `system`, and not over thresholds that the user has set by glibc's own variables.

    Raises:
        ConfigError: the environment asks for an allocator that there is not.
    """
    if wanted() == SYSTEM or not is_glibc() or _set_by_user():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(option, value) == 1 for option, value in _OPTIONS.items()])


def in_use() -> str:
    """Return the allocator in use, in words, for the record of a run."""
    if is_glibc():
        return "glibc, tuned" if _is_tuned() else "glibc, set by the user" if _set_by_user() else "glibc"
    library = provider()
    if library is None:
        return "of the system"
    found = _NAMES.search(library)
    return f"{found.group()} ({library})" if found else library


def is_glibc() -> bool:
    """Say whether malloc is that of the GNU C library."""
    library = provider()
    if library is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return False
    return library.startswith("libc.so") or library.startswith("libc-2")


@functools.cache
def provider() -> str | None:
    """Return the name of the library whose malloc this process calls; None where it cannot be told (not Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        address = ctypes.cast(ctypes.CDLL(None).malloc, ctypes.c_void_p).value or 0
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, AttributeError):
        return None
    for line in lines:
        span, *_, path = line.split(maxsplit=5)
        start, _, stop = span.partition("-")
        if int(start, 16) <= address < int(stop, 16):
            return Path(path).name
    return None


def _is_tuned() -> bool:
    return bool(tune.cache_info().currsize) and tune()


def _set_by_user() -> bool:
    """Say whether the environment sets glibc's thresholds already."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc." in tunables or any(name in os.environ for name in _OWN_SETTINGS)
