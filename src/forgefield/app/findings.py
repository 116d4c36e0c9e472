"""What an examination finds, topic by topic."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from forgefield.core.errors import ForgeError

State = Literal["ok", "note", "warn", "error"]


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    topic: str
    state: State
    text: str


class Findings:
    """Rows in the order they were found; an error ends its own topic alone."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def add(self, topic: str, state: State, text: str) -> None:
        """Add a row."""
        self.findings.append(Finding(topic, state, text))

    @contextmanager
    def guard(self, topic: str) -> Generator[None]:
        """Turn an error of what stands within into a row."""
        try:
            yield
        except ForgeError as error:
            self.add(topic, "error", str(error))

    def attempt(self, topic: str, examine: Callable[[], None]) -> None:
        """Examine; an error becomes a row."""
        with self.guard(topic):
            examine()
