"""Processes that build batches ahead: neighbour lists, graphs and labels, in the order in which they are asked for.

Each is a fresh interpreter that runs `crew_member`, so no `if __name__ == "__main__"` is needed in who calls us, and
nothing that this process holds (threads, CUDA, open files) is copied into it. It ends when its connection does: with
this process, however that ends.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Pipe
from types import MappingProxyType
from typing import Any, NamedTuple, final

import numpy as np
import torch

from forgefield.core.errors import DataError, DeviceError, ForgeError
from forgefield.data.builder import Batch, Builder

PATIENCE = 2.0  # seconds that a process is given to end by itself
_KEY = "train.num_workers"


class Member(NamedTuple):
    """One process."""

    process: subprocess.Popen[bytes]
    line: Connection


@final
class Crew:
    """So many processes; each has one batch in hand, or ready.

    Args:
        builder: what each gets a copy of.
        count: of the processes.

    Raises:
        DataError: the data cannot be sent to another process.
        DeviceError: a process cannot be started.
    """

    def __init__(self, builder: Builder, count: int) -> None:
        try:
            copy = packed(builder)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            what = f"cannot be sent to the processes that build batches ({error})"
            raise DataError(what, builder.cache.dataset.name, f"set {_KEY} to 0") from None
        self.busy = False
        self._members: list[Member] = []
        self.stop = weakref.finalize(self, _end, self._members, os.getpid())
        try:
            for _ in range(count):
                self._members.append(_start())
            for member in self._members:
                self._send(member, copy)
        except BaseException:
            self.stop()
            raise

    @property
    def running(self) -> bool:
        """Whether it can be asked for batches."""
        return self.stop.alive

    @property
    def processes(self) -> list[int]:
        """Numbers of the processes."""
        return [member.process.pid for member in self._members]

    def batches(self, chosen: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Yield the batches of the structures at these places, each built by a process; left early, all are ended.

        Raises:
            ForgeError: what a process met, or that it ended.
        """
        self.busy = True
        done, size = 0, len(self._members)
        try:
            for member, places in zip(self._members, chosen, strict=False):
                self._send(member, packed(places))
            for done in range(1, len(chosen) + 1):
                member = self._members[(done - 1) % size]
                batch = self._receive(member)
                if done - 1 + size < len(chosen):  # a member that is asked is waiting: neither can block the other
                    self._send(member, packed(chosen[done - 1 + size]))
                yield batch
        finally:
            self.busy = False
            if done < len(chosen) or sys.exc_info()[0] is not None:
                self.stop()

    def _send(self, member: Member, message: bytes) -> None:
        try:
            member.line.send_bytes(message)
        except OSError:
            raise _ended(member) from None

    def _receive(self, member: Member) -> Batch:
        try:
            found = member.line.recv()
        except (EOFError, OSError):
            raise _ended(member) from None
        if isinstance(found, ForgeError):
            raise found
        return found


def _start() -> Member:
    mine, other = Pipe()
    words = f"import sys; sys.path[:] = {sys.path!r}; from forgefield.data.crew_member import main; "
    words += f"main({other.fileno()})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", words], pass_fds=[other.fileno()], env=environment, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        mine.close()
        what = f"a process that builds batches cannot be started ({error.strerror})"
        raise DeviceError(what, _KEY, "lower it, or set it to 0") from None
    finally:
        other.close()
    return Member(process, mine)


def _end(members: list[Member], owner: int) -> None:
    """Close the connections, which ends the processes; kill those that take too long."""
    if os.getpid() != owner:
        return
    for member in members:
        member.line.close()
    for member in members:
        try:
            member.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            member.process.kill()
            member.process.wait()


def _ended(member: Member) -> DeviceError:
    try:
        code = member.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        code = 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    fix = f"look for its message above and for what the system says of memory; a lower {_KEY} takes less, 0 none"
    return DeviceError(f"a process that builds batches {how}", _KEY, fix)


def packed(value: Any) -> bytes:
    """Return a value as the bytes that `Connection.recv` reads; tensors go as arrays, not through shared memory."""
    stream = io.BytesIO()
    _Packer(stream, 5).dump(value)
    return stream.getvalue()


class _Packer(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor):
            return torch.as_tensor, (obj.numpy(),)
        if isinstance(obj, MappingProxyType):
            return MappingProxyType, (dict(obj),)
        return NotImplemented
