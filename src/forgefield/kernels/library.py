"""The compiled operators: built once with the machine's compiler, kept by source and flags, loaded on first use.

`python -m forgefield.kernels.library` builds them ahead of time.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from forgefield.core.errors import ForgeError

SOURCES = Path(__file__).parent / "cpp"
FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
VECTOR_FLAGS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma", "-mprefer-vector-width=512"),
    "AVX2": ("-mavx2", "-mfma"),
}
PATIENCE = 900  # seconds a compilation may take


@dataclass(frozen=True)
class Loaded:
    """What came of loading the compiled operators."""

    path: Path | None  # None: not there
    words: str  # "C++ (AVX512)", or why not


class BuildError(ForgeError):
    """The compiler is missing or failed."""


def instruction_set() -> str:
    """Widest vectors of this processor that the kernels know: AVX512, AVX2 or baseline.

    The variable FORGEFIELD_INSTRUCTIONS asks for narrower ones.

    Raises:
        BuildError: it asks for what is not known or not there.
    """
    known = (*VECTOR_FLAGS, "baseline")
    found = torch.backends.cpu.get_cpu_capability()
    found = found if found in VECTOR_FLAGS else "baseline"
    asked = os.environ.get("FORGEFIELD_INSTRUCTIONS") or found
    if asked not in known[known.index(found) :]:
        raise BuildError(
            f"FORGEFIELD_INSTRUCTIONS={asked} is not among this processor's vectors",
            fix=f"use one of: {', '.join(known[known.index(found) :])}",
        )
    return asked


def compiler() -> str | None:
    """Path of the C++ compiler: the variable CXX, else g++, c++ or clang++."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and (found := shutil.which(name)):
            return found
    return None


def cache_folder() -> Path:
    """Where built libraries are kept: FORGEFIELD_CACHE, else forgefield in the user's cache folder."""
    root = os.environ.get("FORGEFIELD_CACHE")
    if root:
        return Path(root) / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forgefield" / "kernels"


def build(quiet: bool = False) -> Path:
    """Return the library for this machine, compiling it if it is not kept yet.

    Raises:
        BuildError: no compiler, or it failed; its last lines are in the message.
    """
    folder = cache_folder() / _key()
    library = folder / "operators.so"
    if library.is_file():
        return library
    cxx = compiler()
    if cxx is None:
        raise BuildError("no C++ compiler found", fix="install g++ (Debian: apt install g++), or set CXX")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "lock"):
        if not library.is_file():
            if not quiet:
                print(
                    f"building the C++ kernels for {instruction_set()} (once, one or two minutes)",
                    file=sys.stderr,
                    flush=True,
                )
            _compile(cxx, library)
    return library


@cache
def load() -> Loaded:
    """Load the operators into this process, building them if needed. Never raises: the plain path always works."""
    if os.environ.get("FORGEFIELD_KERNELS") == "plain":
        return Loaded(None, "plain PyTorch (FORGEFIELD_KERNELS=plain)")
    try:
        path = build()
        torch.ops.load_library(str(path))
    except (ForgeError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        print(f"C++ kernels not available, plain PyTorch runs instead (slower): {reason}", file=sys.stderr, flush=True)
        return Loaded(None, f"plain PyTorch ({reason})")
    return Loaded(path, f"C++ ({instruction_set()})")


def _key() -> str:
    """Hash of everything that decides the machine code."""
    digest = hashlib.sha256()
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    about = [torch.__version__, platform.machine(), sys.platform, compiler() or "", *_flags()]
    digest.update("\n".join(about).encode())
    return f"{instruction_set().lower()}-{digest.hexdigest()[:16]}"


def _flags() -> list[str]:
    flags = [*FLAGS, *VECTOR_FLAGS.get(instruction_set(), ())]
    return [*flags, f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]


def _compile(cxx: str, library: Path) -> None:
    """Compile beside, then move into place, so that no half-written library is ever loaded."""
    from torch.utils.cpp_extension import include_paths, library_paths  # slow to import: only to compile

    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        units, linked = sorted(SOURCES.glob("*.cpp")), f"{folder}/operators.so"
        modules = [f"{folder}/{unit.stem}.o" for unit in units]
        flags = [*_flags(), *(f"-I{path}" for path in include_paths())]
        commands = [[cxx, *flags, "-c", str(u), "-o", m] for u, m in zip(units, modules, strict=True)]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(_call, commands))
        # Without -fopenmp: its symbols come from the runtime PyTorch has loaded; a second one would fight for cores.
        found = [f"-L{path}" for path in library_paths()]
        _call([cxx, "-shared", *modules, "-o", linked, *found, "-lc10", "-ltorch_cpu"])
        os.replace(linked, library)


def _call(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"the C++ compiler took more than {PATIENCE} s", command[0]) from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise BuildError(f"the C++ compiler failed: {' | '.join(errors[:3])}", command[0])


@contextmanager
def _alone(lock: Path):  # noqa: ANN202
    """Let one process at a time do the work; the lock falls with its holder."""
    import fcntl  # not on Windows

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        print(build())
    except ForgeError as error:
        raise SystemExit(f"{error}\nForgeField works without the kernels, only slower.") from None
