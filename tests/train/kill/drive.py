"""Kill fits at random moments with SIGKILL, continue them, and compare each with the one that was left alone.

    python tests/train/kill/drive.py --kills 100

Moments: in a step, in validation, while a checkpoint is written, and anywhere. Compared by SHA-256: weights, optimizer,
average, random states, counters and the history without its columns of time and memory, bit for bit.
"""

import argparse
import collections
import csv
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from trial import PHASES, VARIANTS, processes, start

CLOCK = {"seconds", "total_seconds", "cpu_seconds", "structures_per_second", "peak_memory_mib"}
KILLS_PER_RUN = 5
MOST_SECONDS = 60.0  # that a process may live on after another one of its run was killed


def digest(folder):
    """SHA-256 of all that a fit leaves behind but times."""
    found = hashlib.sha256()
    for name in ("last", "best"):
        place = folder / "checkpoints" / name
        for file in ("training.safetensors", "weights.safetensors"):
            found.update((place / file).read_bytes())
        state = json.loads((place / "state.json").read_text())
        for clock in ("seconds", "cpu_seconds"):
            state["progress"].pop(clock)
        state["progress"]["running"].pop("seconds")
        found.update(json.dumps(state, sort_keys=True).encode())
    for line in (folder / "history.jsonl").read_text().splitlines():
        row = json.loads(line)
        found.update(json.dumps({key: row[key] for key in row if key not in CLOCK}).encode())
    with open(folder / "history.csv", newline="") as file:
        for row in csv.DictReader(file):
            found.update(json.dumps({key: row[key] for key in row if key not in CLOCK}).encode())
    return found.hexdigest()


class Trials:
    """Attempts at the fits of one variant, and what became of them."""

    def __init__(self, variant, chance):
        self.variant, self.chance = variant, chance
        self.kills = collections.Counter()
        self.unsaved = self.runs = self.equal = 0
        self.longest = 0.0  # seconds that other processes of a run outlived a kill

    def begin(self, folder):
        """Start the processes of an attempt; each has shared memory of its own."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = [mmap.mmap(-1, len(PHASES) + 1) for _ in range(processes(self.variant))]
        return shared, [start(folder, self.variant, memory, rank, port) for rank, memory in enumerate(shared)]

    def whole(self, folder):
        """Make an attempt that is left alone."""
        _, children = self.begin(folder)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(codes):
            errors = [path.read_text() for path in folder.parent.glob(f"{folder.name}.error.*")]
            raise SystemExit(f"{self.variant}: an attempt that was left alone ended with {codes}: {errors}")

    def killed(self, folder):
        """Make an attempt and kill it; returns the phase it was in, None if it had ended."""
        shared, children = self.begin(folder)
        target, count = self.chance.randrange(len(PHASES)), self.chance.randint(1, 6)
        delay = self.chance.uniform(0, 0.3) if target == 0 else self.chance.expovariate(1 / 0.004)
        victim = self.chance.randrange(len(children))
        memory = shared[victim if target != PHASES.index("checkpoint") else 0]
        while target and memory[target] < count:
            if os.waitid(os.P_PID, children[victim], os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.0002)
        time.sleep(delay)
        phase = PHASES[shared[victim][0]]
        together = all(memory[len(PHASES)] for memory in shared)  # before that a launcher ends the others, so do we
        for child in children if self.chance.random() < 0.3 or not together else [children[victim]]:
            os.kill(child, signal.SIGKILL)
        since = time.monotonic()
        codes = [self.ended(child, since) for child in children]
        if codes[victim] != -signal.SIGKILL:
            return None
        self.longest = max(self.longest, time.monotonic() - since)
        return phase

    def ended(self, child, since):
        """Wait for the end of a process; one that hangs is a failure."""
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() - since > MOST_SECONDS:
                os.kill(child, signal.SIGKILL)
                raise SystemExit(f"{self.variant}: a process hangs after another one was killed")
            time.sleep(0.001)

    def run(self, folder, kills, reference):
        """Kill one fit up to so many times, let it end, and compare it."""
        for _ in range(kills):
            phase = self.killed(folder)
            if phase is None:
                break
            checkpoints = folder / "checkpoints"
            if any((checkpoints / name).exists() for name in ("last", "best", ".last.old", ".best.old")):
                self.kills[phase] += 1
            else:
                self.unsaved += 1  # nothing to continue: begun anew, and not counted
                shutil.rmtree(folder, ignore_errors=True)
        self.whole(folder)
        self.runs += 1
        self.equal += digest(folder) == reference


def drive(variant, kills, seed, root):
    """Carry out at least so many kills of a variant; returns its trials."""
    trials = Trials(variant, random.Random(f"{variant} {seed}"))
    alone = root / "alone"
    trials.whole(alone)
    reference = digest(alone)
    while (left := kills - trials.kills.total()) > 0:
        folder = root / f"run-{trials.runs}"
        trials.run(folder, min(KILLS_PER_RUN, left), reference)
        shutil.rmtree(folder)
    return trials


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="kills in all, shared by the variants")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    wrong, began = 0, time.monotonic()
    for number, variant in enumerate(asked.variants):
        share = (asked.kills + number) // len(asked.variants)
        with tempfile.TemporaryDirectory(prefix="kill-") as root:
            trials = drive(variant, share, asked.seed, Path(root))
        where = ", ".join(f"{trials.kills[phase]} in {phase}" for phase in PHASES)
        after = f"; others ended within {trials.longest:.1f} s" if processes(variant) > 1 else ""
        print(
            f"{variant}: {trials.kills.total()} kills ({where}), {trials.unsaved} more before the first checkpoint; "
            f"{trials.equal} of {trials.runs} runs equal to the uninterrupted one{after}",
            flush=True,
        )
        wrong += trials.runs - trials.equal
    print(f"{time.monotonic() - began:.0f} s")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
