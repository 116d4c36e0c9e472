"""Open files and connections that no two threads or processes share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar


class Closable(Protocol):
    """Something open."""

    def close(self) -> object:
        """End it."""
        ...


T = TypeVar("T", bound=Closable)


class _Held(Generic[T]):
    """Something open, of one process; closed when nobody refers to it any more, by the process that opened it."""

    def __init__(self, value: T) -> None:
        self.value, self.process = value, os.getpid()

    def __del__(self) -> None:
        if self.process == os.getpid():
            self.value.close()


class OwnHandle(Generic[T]):
    """Something open that each thread and each process opens for itself; may be pickled and forked.

    Args:
        make: opens it. It travels with a pickle, so it must be a method or a function of a module.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"_make": self._make}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._make = state["_make"]
        self._local = threading.local()

    def get(self) -> T:
        """Return that of this thread, opened if need be."""
        held: _Held[T] | None = getattr(self._local, "held", None)
        if held is None or held.process != os.getpid():
            held = self._local.held = _Held(self._make())
        return held.value
