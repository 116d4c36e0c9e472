"""One attempt at a small fit, in a process of its own that may be killed; says in shared memory what it is doing."""

import io
import os
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import torch.utils.tensorboard  # imported here, so that forked attempts need not
from lightning_fabric import Fabric  # noqa: F401  for the same reason
from rich.console import Console
from toy import load, make_potential, make_structures, quiet

from forgefield.train import cycles, joining
from forgefield.train.loop import fit

PHASES = ("elsewhere", "step", "validation", "checkpoint")
VARIANTS = {
    "plain": {"ema_decay": None, "scheduler": None},
    "ema": {"ema_decay": 0.9, "plateau_patience": 0, "lr_factor": 0.7, "optimizer": "adamw"},
    "accumulation": {"accum_steps": 2, "scheduler": "step", "step_size": 2, "gamma": 0.8},
    "cycles": {"cycle_steps": 3, "save_every": 2, "plateau_patience": 0},
    "two stages": {
        "ema_decay": 0.9,
        "stage_two": {"start": 2, "average": "equal"},
        "warmup": "linear",
        "warmup_steps": 9,
        "best_k": 2,
    },
    "two processes": {"ema_decay": 0.9, "plateau_patience": 0, "accum_steps": 2, "save_every": 2},
}
EPOCHS, BATCH = 6, 3
TRAIN, VAL = make_structures(10), make_structures(4, seed=7)  # batches of 3, 3, 3 and 1: one process of two goes empty


def processes(variant):
    return 2 if variant == "two processes" else 1


def marked(shared, phase, call):
    """Return `call` so that shared memory holds its phase while it runs, and how often it has begun."""
    number = PHASES.index(phase)

    def run(*args, **more):
        shared[0] = number
        shared[number] = min(255, shared[number] + 1)
        try:
            return call(*args, **more)
        finally:
            shared[0] = 0

    return run


def attempt(folder, variant, shared):
    """Begin or continue the fit of a variant in a folder."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    for phase, name in (("step", "take_update"), ("validation", "validate"), ("checkpoint", "save_checkpoint")):
        setattr(cycles, name, marked(shared, phase, getattr(cycles, name)))
    settings = quiet(epochs=EPOCHS, batch_size=BATCH, **VARIANTS[variant])
    joining.join("cpu")
    shared[len(PHASES)] = 1
    checkpoints = folder / "checkpoints"
    resume = any((checkpoints / name).exists() for name in ("last", "best", ".last.old", ".best.old"))
    train = load(TRAIN, BATCH, shuffle=True, seed=3, drop_last=settings.drop_last)
    fit(
        make_potential(seed=0 if not resume else 1, noise=0.05), train, load(VAL), settings,
        folder=folder, device="cpu", resume=resume, config_fingerprint="c", data_fingerprint="d",
        console=Console(file=io.StringIO()),
    )  # fmt: skip
    joining.leave()


def start(folder, variant, shared, rank=0, port=0):
    """Fork a process that makes an attempt; returns its number."""
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if processes(variant) > 1:
            os.environ |= {
                "TORCHELASTIC_RUN_ID": "kill", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
            }  # fmt: skip
        attempt(folder, variant, shared)
        code = 0
    except BaseException as error:
        (folder.parent / f"{folder.name}.error.{rank}").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)
