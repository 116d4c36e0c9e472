"""Finding the other processes of a run: started by torchrun or srun, joined through lightning-fabric."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from forgefield.core.errors import DeviceError
from forgefield.train.team import ALONE, Team, Together

MEETING = timedelta(seconds=50)  # for all processes to appear; torch tries twice, so there is an end after it
PATIENCE = timedelta(minutes=20)  # for one that lives and does not answer later; one that died is noticed at once


@dataclass(frozen=True)
class Launch:
    """What the launcher says of its processes."""

    launcher: str
    rank: int
    processes: int
    nodes: int
    processes_per_node: int


_team: Team = ALONE


def launched(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return how this process was started together with others; None if it was started alone.

    A batch script under SLURM is alone: only `srun` starts tasks.

    Raises:
        DeviceError: the nodes have different numbers of tasks.
    """
    if "TORCHELASTIC_RUN_ID" in environment and int(environment["WORLD_SIZE"]) > 1:
        size, local = int(environment["WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"])
        return Launch("torchrun", int(environment["RANK"]), size, size // local, local)
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        size, nodes = int(environment["SLURM_STEP_NUM_TASKS"]), int(environment.get("SLURM_STEP_NUM_NODES", "1"))
        if size % nodes:
            what = f"{size} tasks on {nodes} nodes: the nodes have different numbers of tasks"
            raise DeviceError(what, "srun", "give --nodes and --ntasks-per-node")
        return Launch("srun", int(environment["SLURM_PROCID"]), size, nodes, size // nodes)
    return None


def join(device: str) -> tuple[Team, str]:
    """Join the other processes, once; alone there is nothing to do.

    Args:
        device: as `device` in run.yaml: auto, cpu or cuda; each process of a node gets a CUDA device of its own.

    Returns:
        The team, and the name of this process's device.

    Raises:
        DeviceError: lightning-fabric or a device is missing, or the others do not answer.
    """
    global _team
    launch = launched()
    if launch is None:
        return ALONE, device
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if ":" in kind:
        what = f"{device} is one device, and {launch.launcher} started {launch.processes} processes"
        raise DeviceError(what, "device", "write auto, cpu or cuda; each process gets a device of its own")
    if not isinstance(_team, Together):
        with _ending(launch):
            fabric = _fabric(launch, kind)
            _team = Together(dist.get_rank(), dist.get_world_size(), fabric.device, _group(launch))
    return _team, str(_team.device)


def team() -> Team:
    """Return the processes that have joined; this one alone if there was no `join`."""
    return _team


def leave() -> None:
    """Take this process out of the team; for the end of the program."""
    global _team
    _team = ALONE
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _fabric(launch: Launch, kind: str) -> Any:
    """Let lightning-fabric read the launcher's variables, choose the device and make the process group."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        what = f"{launch.launcher} started {launch.processes} processes, and lightning-fabric is not installed"
        raise DeviceError(what, fix="pip install 'forgefield[distributed]', or start one process") from error
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if launch.launcher == "srun":  # fabric refuses `srun --ntasks` without it
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(launch.processes_per_node))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints of fabric about launchers, which do not concern the user here
            fabric = Fabric(
                accelerator=kind,
                devices=launch.processes_per_node,
                num_nodes=launch.nodes,
                strategy=DDPStrategy(timeout=MEETING),
            )
            fabric.launch()
    except Exception as error:
        first = " ".join(str(error).split())[:300]
        what = f"the {launch.processes} processes of {launch.launcher} cannot work together: {first}"
        raise DeviceError(what, "device", "check the launcher's options and the devices of each node") from error
    if not dist.is_initialized():
        raise DeviceError(f"{launch.launcher} was not recognised, no process group was made", "device")
    return fabric


@contextlib.contextmanager
def _ending(launch: Launch) -> Generator[None]:
    """End this process if the others do not appear: torch waits in code that no exception reaches."""
    seconds = 1.1 * MEETING.total_seconds()

    def end() -> None:
        sys.stderr.write(
            f"error: process {launch.rank} of {launch.processes}: the others did not appear within {seconds:.0f} s. "
            "Fix: look at their first error, and start all again\n"
        )
        sys.stderr.flush()
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _group(launch: Launch) -> Any:
    """Make the group that computes: patient, while that of the meeting is not."""
    try:
        return dist.new_group(timeout=PATIENCE)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0][:200]
        what = f"the {launch.processes} processes of {launch.launcher} did not all appear: {first}"
        raise DeviceError(what, fix="look at the first error of the others, mend it, and resume") from error
