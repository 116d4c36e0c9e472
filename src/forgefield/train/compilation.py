"""Whether a fit is trained compiled: by a rule without a clock, and always said."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from forgefield.core.errors import DeviceError
from forgefield.train.compiled import CompiledPotential
from forgefield.train.settings import TrainSettings
from forgefield.train.state import TrainState

if TYPE_CHECKING:
    from forgefield.data.loader import Loader
    from forgefield.graph.graph import Graph
    from forgefield.models.potential import Outputs

LONG = 5000  # updates from which `auto` compiles: seconds saved per 1,000 updates over minutes to compile
SHORT_MINUTES = 20  # `max_minutes` or `max_cpu_minutes` below which it does not
TIMED = 3  # passes of either side that are timed after compiling; the median is told


class Compilation:
    """Decides before the first update, from the run's settings alone, so that every attempt decides alike.

    `auto` compiles long fits of models whose hot sums run in plain PyTorch: around the kernels a tenth of the time is
    gained (`benchmarks/LOG.md`), and the digits would differ from those of the eager model.

    Args:
        state: gets `compiled` and `progress.compiled`.
        settings: the `train` block.
        loader: training batches, of which the first of epoch 0 are what is compiled for.
        updates: of the whole fit, as the settings plan it.
        report: is called with one sentence for each event.
    """

    def __init__(
        self, state: TrainState, settings: TrainSettings, loader: Loader, updates: int, report: Callable[[str], None]
    ) -> None:
        self.state, self.settings, self.loader, self.updates = state, settings, loader, updates
        self.sentences: list[str] = []
        self._tell = report

    def start(self) -> None:
        """Compile before the first update, if it is wished or pays.

        Raises:
            DeviceError: `train.compile: true`, and it is not possible.
        """
        progress = self.state.progress
        before, progress.compiled = progress.compiled, False
        if self.settings.compile is True or (self.settings.compile == "auto" and self._pays()):
            self._compile()
        if progress.update and before != progress.compiled:
            now, then = ("compiled", "eager") if progress.compiled else ("eager", "compiled")
            self._report(f"train.compile: {now} from here on; the last digits differ from those of a run all {then}")

    def look(self) -> None:
        """Take note, after an update, of a compiled model that has been switched off.

        Raises:
            DeviceError: `train.compile: true`, and the compiled model turned out wrong.
        """
        if self.state.compiled is not None and self.state.compiled.off is not None:
            self._drop(self.state.compiled)

    def _pays(self) -> bool:
        potential, limits = self.state.potential, (self.settings.max_minutes, self.settings.max_cpu_minutes)
        short = any(limit is not None and limit < SHORT_MINUTES for limit in limits)
        if self.settings.amp or self.updates < LONG or short:
            return False
        return not potential.in_kernels()

    def _compile(self) -> None:
        """Compile and compare; the batches are the same wherever training is taken up."""
        start = time.perf_counter()
        self._report("train.compile: compiling, the first time takes minutes")
        compiled = CompiledPotential(self.state.potential, self._report)
        self.state.potential.train()
        chosen = compiled.prepare(batch.graph for batch in self.loader.batches(0))
        seconds = time.perf_counter() - start
        self.state.progress.compiled, self.state.compiled = True, compiled
        if compiled.off is not None:
            self._drop(compiled)
            return
        worst = compiled.worst
        self._report(
            f"train.compile: compiled in {seconds:.0f} s and equal to the eager model within {worst.relative:.0e} "
            f"({worst.what})"
        )
        with torch.random.fork_rng():
            times = [1000 * self._seconds(run, chosen[-1]) for run in (compiled, self.state.potential)]
        own, eager = times
        advice = "" if own <= eager else "; train.compile: false is faster here"
        self._report(f"train.compile: a pass and its gradient take {own:.1f} ms, {eager:.1f} ms eagerly{advice}")

    def _seconds(self, run: Callable[[Graph], Outputs], graph: Graph) -> float:
        """Median time of a prediction with its backward pass; no gradient is left behind."""
        found = []
        for _ in range(TIMED + 1):
            start = time.perf_counter()
            outputs = run(graph)
            (outputs.energy.sum() + outputs.forces.sum().to(outputs.energy.dtype)).backward()
            self.state.optimizer.zero_grad(set_to_none=True)
            found.append(time.perf_counter() - start)
        return statistics.median(found[1:])

    def _drop(self, compiled: CompiledPotential) -> None:
        if self.settings.compile is True:
            raise DeviceError(
                f"the model cannot be trained compiled: {compiled.off}", "train.compile", "set it to auto or false"
            )
        self.state.compiled, self.state.progress.compiled = None, False

    def _report(self, text: str) -> None:
        self.sentences.append(text.removeprefix("train.compile: "))
        self._tell(text)
