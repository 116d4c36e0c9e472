"""Fits in processes of their own, forked from one that has all imported; `test_several.py` looks at what is left.

python tests/train/several.py FOLDER
"""

import dataclasses
import io
import json
import os
import signal
import socket
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
import torch.utils.tensorboard  # imported here, so that forked processes need not
from lightning_fabric import Fabric  # noqa: F401  for the same reason
from rich.console import Console
from toy import load, make_potential, make_structures, quiet

from forgefield.train import cycles, joining, loop
from forgefield.train.loop import fit

TRAIN, VAL = make_structures(10), make_structures(4, seed=7)
ROOTS = {f"loss_{name}": "mae_plus_rmse" for name in ("energy", "force", "stress")}
KEYS = {"epochs": 3, "batch_size": 3, "plateau_patience": 0, "stress_weight": 10.0}


def train(folder, train=TRAIN, noise=0.0, resume=False, data="d", **keys):
    settings = quiet(**{**KEYS, **keys})
    loader = load(train, settings.batch_size, shuffle=True, seed=3, drop_last=settings.drop_last)
    return fit(
        make_potential(noise=noise), loader, load(VAL, 3), settings, folder=folder, device="cpu", resume=resume,
        config_fingerprint="c", data_fingerprint=data, console=Console(file=io.StringIO()),
    )  # fmt: skip


def variables(launcher, rank, size, port):
    if launcher == "srun":
        return {
            "SLURM_NTASKS": str(size), "SLURM_STEP_NUM_TASKS": str(size), "SLURM_STEP_NUM_NODES": "1",
            "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_JOB_ID": str(port),
            "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NAME": "train",
        }  # fmt: skip
    return {
        "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank),
        "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
    }  # fmt: skip


def begin(call, size=1, launcher="torchrun", appear=None):
    """Fork processes that join and call `call(rank)`; returns their numbers and where their words will be.

    Only the first `appear` of them come, all if it is None.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size if appear is None else appear):
        out, into = os.pipe()
        child = os.fork()
        if child:
            os.close(into)
            children.append((child, out))
            continue
        text = ""
        try:
            warnings.simplefilter("error")
            torch.set_num_threads(1)
            if size > 1:
                os.environ |= variables(launcher, rank, size, port)
                joining.join("cpu")
            call(rank)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(into, text.encode())
            os._exit(0)
    return children


def end(children):
    """Wait for forked processes; returns what each ended with, in words, and how long it took in all."""
    began, words = time.monotonic(), []
    for child, out in children:
        with os.fdopen(out, "rb") as file:
            words.append(file.read().decode())
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        words[-1] = words[-1] or (f"exit {code}" if code else "")
    return {"words": words, "seconds": time.monotonic() - began}


def both(root, name, size, launcher="torchrun", **more):
    """The same fit in one process and in several."""
    return {
        "alone": end(begin(lambda rank: train(root / name / "alone", **more))),
        "several": end(begin(lambda rank: train(root / name / "several", **more), size, launcher)),
    }


def broken(structures):
    """The structures, the last one with forces whose square is beyond all numbers; no file would be let through."""
    last = dataclasses.replace(structures[-1])
    forces = np.full_like(last.labels["forces"], 1e200)
    object.__setattr__(last, "labels", {**last.labels, "forces": forces})
    return [*structures[:-1], last]


def dies(root):
    """Process 1 ends in its fifth update, without a word."""

    def call(rank):
        real, seen = cycles.take_update, []

        def update(*args, **more):
            seen.append(1)
            if rank == 1 and len(seen) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        cycles.take_update = update
        train(root / "dies")

    return end(begin(call, 2))


def disk(root):
    """Process 0 cannot write its first checkpoint."""

    def call(rank):
        def full(*args, **more):
            raise OSError(28, "No space left on device")

        loop.Recorder.cycle = full
        train(root / "disk")

    return end(begin(call, 2))


def signalled(root, number, size=1):
    """A signal reaches the last process in its sixth update, in the middle of an epoch; then the fit is continued."""
    folder = root / f"signal-{number}-{size}"

    def call(rank):
        real, seen = cycles.take_update, []

        def update(*args, **more):
            seen.append(1)
            if rank == size - 1 and len(seen) == 6:
                os.kill(os.getpid(), number)
            return real(*args, **more)

        cycles.take_update = update
        train(folder / "cut", noise=0.05)

    found = {"cut": end(begin(call, size))}
    found["state"] = json.loads((folder / "cut/checkpoints/last/state.json").read_text())["progress"]
    found["goes on"] = end(begin(lambda rank: train(folder / "cut", noise=0.05, resume=True), size))
    found["straight"] = end(begin(lambda rank: train(folder / "straight", noise=0.05), size))
    return found


def twice(root):
    """Ctrl-C twice in one update: the second ends at once, nothing is saved."""

    def call(rank):
        def update(*args, **more):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

        cycles.take_update = update
        train(root / "twice")

    return end(begin(call))


def other_number(root):
    """Two processes begin, one goes on."""
    first = end(begin(lambda rank: train(root / "number", epochs=1), 2))
    return {"first": first, "second": end(begin(lambda rank: train(root / "number", resume=True)))}


def waits():
    """Process 0 of two is alone."""
    joining.MEETING = timedelta(seconds=3)
    found = end(begin(lambda rank: None, 2, appear=1))
    joining.MEETING = timedelta(seconds=50)
    return found


def main(root):
    nan = broken(TRAIN)
    found = {
        "plain": both(root, "plain", 2),
        "accumulated": both(root, "accumulated", 2, accum_steps=2, ema_decay=None),
        "roots": both(root, "roots", 2, accum_steps=2, **ROOTS),
        "roots of single batches": both(root, "roots of single batches", 2, **ROOTS),
        "roots, full batch": both(
            root, "roots, full batch", 2, optimizer="lbfgs", lr=1.0, ema_decay=None, max_grad_norm=None, **ROOTS
        ),
        "three": both(root, "three", 3, batch_size=2, cycle_steps=3),
        "srun": both(root, "srun", 2, "srun", epochs=1),
        "full batch": both(root, "full batch", 2, optimizer="lbfgs", lr=1.0, ema_decay=None, max_grad_norm=None),
        "nan": end(begin(lambda rank: train(root / "nan", train=nan), 2)),
        "other data": end(begin(lambda rank: train(root / "other", data=f"d{rank}"), 2)),
        "dies": dies(root),
        "disk": disk(root),
        "waits": waits(),
        "number": other_number(root),
        "twice": twice(root),
        "signals": {name: signalled(root, getattr(signal, name)) for name in ("SIGTERM", "SIGUSR1", "SIGINT")},
        "signal to one": signalled(root, signal.SIGTERM, 2),
    }
    (root / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
