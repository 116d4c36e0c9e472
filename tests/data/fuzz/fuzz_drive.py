"""Damage the sample of each format many times and read it: only a ForgeError or success will do.

    python tests/data/fuzz/fuzz_drive.py [--mutations 1000] [--first 0] [--format NAME ...]

A failure prints format, number and seed, so that `--first NUMBER --mutations 1` repeats it.
"""

import argparse
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_mutate import damaged
from fuzz_samples import SAMPLES

from forgefield.core.errors import ForgeError
from forgefield.data.dataset import open_dataset
from forgefield.data.reading import Reading
from forgefield.data.sources import open_sources

SECONDS = 10  # of computing
MEGABYTES = 300
LONGEST_MESSAGE = 1500
MOST_STRUCTURES = 200


class TookTooLong(Exception):
    pass


@contextlib.contextmanager
def time_limit(seconds):
    """Computing time; 20 times as long by the clock, since a busy machine is no hang."""

    def stop(*_):
        raise TookTooLong(f"more than {seconds} s")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 20 * seconds))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def reset_peak():
    """Forget the highest use of memory so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak():
    """Highest use of memory since the last reset, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def harm(path, sample, rng):
    """Damage a sample in place: a file, one file of a folder, or what lies inside."""
    if sample.inside is not None and rng.random() < 0.6:
        sample.inside(path, lambda data: damaged(data, rng))
        return
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    chosen = rng.choice(files)
    if path.is_dir() and rng.random() < 0.05:
        chosen.unlink()
        return
    chosen.write_bytes(damaged(chosen.read_bytes(), rng))


def read(path, name):
    """Open by contents and by name, and look at the structures. Returns "read" or "refused"."""
    outcome = "read"
    for format in ("auto", name):
        try:
            dataset = open_dataset(path, format)
        except ForgeError as error:
            check_message(error)
            outcome = "refused"
            continue
        for k in range(min(len(dataset), MOST_STRUCTURES)):
            try:
                dataset[k]
            except ForgeError as error:
                check_message(error)
                outcome = "refused"
    read_what_is_left(path)
    return outcome


def read_what_is_left(path):
    """Open with on_error: skip. What is then there can be read."""
    try:
        dataset = open_sources([path], Reading(on_error="skip"))
    except ForgeError as error:
        check_message(error)
        return
    for k in range(min(len(dataset), MOST_STRUCTURES)):
        assert len(dataset[k])


def check_message(error):
    text = str(error)
    assert error.where, f"no place named: {text}"
    assert len(text) < LONGEST_MESSAGE, f"a message of {len(text)} letters"
    assert "Traceback" not in text


def one(name, number, folder):
    """Run one mutation; the seed is the format and the number."""
    rng = random.Random(f"{name}:{number}")
    sample = SAMPLES[name][number % len(SAMPLES[name])]
    path = Path(folder) / "sample"
    sample.write(path)
    try:
        harm(path, sample, rng)
        reset_peak()
        before = peak()
        with warnings.catch_warnings(), time_limit(SECONDS):
            warnings.simplefilter("error")
            outcome = read(path, name)
        grown = peak() - before
        assert grown < MEGABYTES, f"memory grew by {grown:.0f} MB"
        return outcome
    finally:
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)


def run(name, count, first=0):
    """Run mutations; returns outcomes and failures as (number, traceback)."""
    outcomes, failures = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            try:
                outcomes[one(name, number, folder)] += 1
            except Exception:
                failures.append((number, traceback.format_exc()))
    return outcomes, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--format", nargs="*", default=sorted(SAMPLES))
    asked = parser.parse_args()
    failed = False
    for name in asked.format:
        start = time.perf_counter()
        outcomes, failures = run(name, asked.mutations, asked.first)
        print(f"{name:18s} {dict(outcomes)}  failures {len(failures)}  {time.perf_counter() - start:.1f} s", flush=True)
        kinds = Counter(text.strip().splitlines()[-1][:100] for _, text in failures)
        for number, text in failures:
            last = text.strip().splitlines()[-1][:100]
            if kinds[last]:
                print(f"--- {name} {number} ({kinds[last]} of this kind)\n{text}", flush=True)
                kinds[last] = 0
        failed |= bool(failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
