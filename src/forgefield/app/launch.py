"""Where the program `forgefield` begins: with a fast memory allocator, before anything heavy is imported.

An allocator can only be put in place of glibc's when a process starts. So a command that computes starts this program a
second time, in the same process and with the same words, with LD_PRELOAD set; if no other allocator is installed,
glibc's thresholds are set instead.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from forgefield.core import allocator
from forgefield.core.errors import ConfigError

COMPUTING = frozenset({"run", "train", "finetune", "resume", "evaluate", "infer", "export"})
LIBRARIES = (
    "libtcmalloc.so.4",
    "libtcmalloc_minimal.so.4",
    "libjemalloc.so.2",
    "libmimalloc.so.3",
    "libmimalloc.so.2",
)
"""In order of preference: tcmalloc was the fastest in our measurements, jemalloc near it, mimalloc is not measured."""
PRELOAD = "LD_PRELOAD"
QUIET = "TCMALLOC_LARGE_ALLOC_REPORT_THRESHOLD"
"""tcmalloc writes a line about each block beyond this many bytes, 1 GiB by default."""
STARTED = "FORGEFIELD_STARTED_WITH"
"""Set in the second start: the variables as they were before, as JSON. It is there so that there is no third."""


def main() -> None:
    """Run the command line, with the allocator that the environment asks for."""
    restarted = _restore_environment()
    if computes(sys.argv[1:]):
        try:
            if not restarted and (library := library_to_preload()) is not None:
                _start_again(library)
            if restarted and allocator.is_glibc():
                sys.stderr.write("note: the allocator to preload did not take the place of glibc's\n")
            allocator.tune()
        except ConfigError as error:
            sys.stderr.write(f"error: {error}\n")
            raise SystemExit(2) from None
    from forgefield.app.cli import main as command_line  # heavier than this file

    command_line()


def computes(words: Sequence[str]) -> bool:
    """Say whether a command line trains or predicts; help does not."""
    command = next((word for word in words if not word.startswith("-")), None)
    return command in COMPUTING and not {"-h", "--help"} & set(words)


def library_to_preload() -> Path | None:
    """Return the allocator to start with; None if this process has one, none is installed or none is wanted.

    Raises:
        ConfigError: the environment asks for an allocator that there is not.
    """
    wanted = allocator.wanted()
    if wanted in (allocator.TUNED, allocator.SYSTEM) or not allocator.is_glibc() or not sys.executable:
        return None
    if wanted != allocator.AUTO:
        return Path(wanted).absolute()
    places = [folder / name for name in LIBRARIES for folder in library_folders()]
    return next((path for path in places if path.is_file() and _same_machine(path)), None)


def library_folders() -> list[Path]:
    """Return where shared libraries stand: of this Python's environment, then of the system."""
    multiarch = getattr(sys.implementation, "_multiarch", "")
    roots = [Path("/usr/local/lib"), Path("/usr/lib"), Path("/lib")]
    system = [folder for root in roots for folder in (root / multiarch, Path(f"{root}64"), root)]
    return list(dict.fromkeys([Path(sys.prefix) / "lib", *system]))


def _same_machine(library: Path) -> bool:
    """Say whether a library is for the kind of processor and the word size of this Python."""
    try:
        heads = []
        for path in (library, Path("/proc/self/exe")):
            with path.open("rb") as file:
                heads.append(file.read(20))
    except OSError:
        return False
    (ours, theirs) = heads
    return ours[:6] == theirs[:6] and ours[18:20] == theirs[18:20]  # ELF, class, byte order; machine


def _start_again(library: Path) -> None:
    """Replace this program by itself with the library preloaded: same process, files, words; returns if it cannot."""
    before = {name: os.environ.get(name) for name in (PRELOAD, QUIET)}
    preloads = [text for text in (before[PRELOAD], str(library)) if text]
    changed = {PRELOAD: ":".join(preloads), QUIET: before[QUIET] or str(2**62), STARTED: json.dumps(before)}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **changed})
    except OSError as error:
        sys.stderr.write(f"note: {library.name} is not used: {sys.executable} cannot be started again ({error})\n")


def _restore_environment() -> bool:
    """Take our variables out, so that programs started from here do not get them; says if they were there."""
    text = os.environ.pop(STARTED, None)
    if text is None:
        return False
    before = json.loads(text)
    for name in (PRELOAD, QUIET):
        os.environ.pop(name, None)
        if before[name] is not None:
            os.environ[name] = before[name]
    return True
