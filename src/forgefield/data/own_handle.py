"""Open files and connections that no two threads or processes share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


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
        held: tuple[int, T] | None = getattr(self._local, "held", None)
        if held is None or held[0] != os.getpid():
            held = self._local.held = (os.getpid(), self._make())
        return held[1]
