"""Signals that ask a fit to end: noticed while it runs, obeyed after the update in hand."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType

SAVED = 75  # EX_TEMPFAIL: the same command goes on
WATCHED = ("SIGTERM", "SIGUSR1", "SIGINT")
_AGAIN = b"\nCtrl-C: the update in hand is finished and saved; press again to end at once\n"


class Stopped(KeyboardInterrupt):
    """A signal ended the program.

    Args:
        name: of the signal.
        saved: the fit was saved first, and the same command continues it.
    """

    def __init__(self, name: str, saved: bool) -> None:
        super().__init__(f"stopped by {name}")
        self.name, self.saved = name, saved


class StopRequest:
    """The first signal that arrived; its number is 0 as long as there was none."""

    number: int = 0

    @property
    def name(self) -> str | None:
        """Name of the signal, None if there was none."""
        return name_of(self.number) if self.number else None


def name_of(number: int) -> str:
    """Return the name of a signal."""
    return signal.Signals(number).name


@contextlib.contextmanager
def noticed() -> Generator[StopRequest]:
    """Note the first of the watched signals instead of ending; a second SIGINT is a KeyboardInterrupt at once.

    Outside the main thread, where Python handles no signals, nothing is changed.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if request.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            os.write(2, _AGAIN)
        request.number = request.number or number

    with _handling(note, WATCHED):
        yield request


@contextlib.contextmanager
def obeyed() -> Generator[None]:
    """Raise `Stopped` where SIGTERM or SIGUSR1 would end the program without a word, so that it can put things away."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(name_of(number), saved=False)

    with _handling(stop, ("SIGTERM", "SIGUSR1")):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None], names: tuple[str, ...]) -> Generator[None]:
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows has no SIGUSR1
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)
