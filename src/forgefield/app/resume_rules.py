"""What continuing a run demands of run.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from forgefield.app.validation import problem
from forgefield.app.yaml_source import Node

if TYPE_CHECKING:
    from forgefield.app.run import RunConfig


def accepting_is_for_resume(config: RunConfig, tree: Node) -> Iterator[str]:
    """Only a run that is continued can differ from what it was."""
    if config.accept and config.task != "resume":
        yield problem(tree, ("accept",), f"has an effect with task resume only, this is {config.task}. Remove it")
