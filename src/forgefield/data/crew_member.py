"""A process that builds batches for another one, see `crew`."""

from __future__ import annotations

import contextlib
import signal
from multiprocessing.connection import Connection

import torch

from forgefield.data.builder import Builder
from forgefield.data.crew import packed

IGNORED = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")  # they are for the process that trains, which may go on a while


def main(file: int) -> None:
    """Build what is asked for until the connection ends.

    Args:
        file: number of the open connection.
    """
    for name in IGNORED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError), Connection(file) as line:
        _work(line)


def _work(line: Connection) -> None:
    builder: Builder | None = None
    while True:
        asked = line.recv()
        if isinstance(asked, Builder):
            builder = asked
            continue
        assert builder is not None
        try:
            answer = builder.build(asked)
        except Exception as error:
            answer = builder.explain(asked, error)
        line.send_bytes(packed(answer))
