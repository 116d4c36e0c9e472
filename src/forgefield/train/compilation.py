"""Whether a fit is trained compiled: asked for, forecast, measured, and always said."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from forgefield.core.disk import write_atomic
from forgefield.core.errors import DeviceError, ForgeError
from forgefield.train.compiled import CompiledPotential, cache_folder, source_tag
from forgefield.train.settings import TrainSettings
from forgefield.train.state import TrainState

if TYPE_CHECKING:
    from forgefield.data.loader import Loader

MEASURED = 10  # updates timed before a decision; the median counts
FIRST = 2  # updates not timed: caches and allocators settle
USUAL_SECONDS = 180.0  # to compile a MACE of two layers the first time, on two slow cores
USUAL_GAIN = 0.3  # of the time of an update, as benchmarks/LOG.md has it
CACHED_SHARE = 0.25  # of the time of a first compilation that one from the cache takes; 0.05 to 0.2 were measured
KEPT = "forgefield.json"  # measurements of earlier runs, in the cache folder


class Compilation:
    """Decides for one fit, once, and keeps to it: that a fit is compiled is part of its checkpoints.

    With `auto` the first updates are eager and timed. Compiling pays if the updates that are left, times the gain,
    save more than compiling costs; gain and cost are those of an earlier run of the same model on this machine, else
    the usual ones. The gain is then measured, and a compiled model that is no faster is dropped. When that happens
    depends on the clock, and compiled results differ from eager ones by rounding: who wants the same digits in every
    run says true or false.

    Args:
        state: gets `compiled` and `progress.compiled`.
        settings: the `train` block.
        loader: training batches, of which the first of epoch 0 are what is compiled for.
        seconds_left: seconds that the run may still take, given those of an update.
        report: is called with one sentence for each event.
    """

    def __init__(
        self,
        state: TrainState,
        settings: TrainSettings,
        loader: Loader,
        seconds_left: Callable[[float], float],
        report: Callable[[str], None],
    ) -> None:
        self.state, self.wish, self.loader = state, settings.compile, loader
        self.seconds_left, self.amp = seconds_left, settings.amp
        self.sentences: list[str] = []
        self._tell = report
        self._decided = False
        self._times: list[float] = []
        self._eager: float | None = None
        self._cost = 0.0

    def start(self) -> None:
        """Compile before the first update, if that is asked for or the fit was compiled before it was stopped.

        Raises:
            DeviceError: `train.compile: true`, and it is not possible.
        """
        progress = self.state.progress
        before, progress.compiled = progress.compiled, False
        self._decided = self.wish != "auto" or self.amp
        if self.wish == "auto" and self.amp:
            self._report("train.compile: off, amp is on")
        elif self.wish is True or (self.wish == "auto" and before):
            self._compile()
        if progress.update and before != progress.compiled:
            now, then = ("compiled", "eager") if progress.compiled else ("eager", "compiled")
            self._report(f"train.compile: {now} from here on; the last digits differ from those of a run all {then}")

    def took(self, seconds: float) -> None:
        """Take note of how long an update took, and decide when there are enough of them.

        Raises:
            DeviceError: `train.compile: true`, and the compiled model turned out wrong.
        """
        compiled = self.state.compiled
        if compiled is not None and compiled.off is not None:
            self._drop(compiled)
        self._times.append(seconds)
        if len(self._times) < FIRST + MEASURED:
            return
        median = statistics.median(self._times[FIRST:])
        if not self._decided:
            self._decided = True
            self._forecast(median)
            self._times = []
        elif self._eager is not None and self.state.compiled is not None:
            self._judge(self._eager, median)
            self._eager = None

    def _forecast(self, seconds: float) -> None:
        """Decide whether compiling pays."""
        cost, gain, source = self._experience()
        left = self.seconds_left(seconds)
        saved = left * gain
        numbers = f"forecast: {left:.0f} s left, {100 * gain:.0f} % of them saved ({source}), {cost:.0f} s to compile"
        if saved <= cost:
            self._report(f"train.compile: eager, compiling does not pay ({numbers})")
            return
        self._report(f"train.compile: compiling pays ({numbers})")
        self._eager = seconds
        self._compile()

    def _compile(self) -> None:
        """Compile and compare; the batches are the same wherever training is taken up."""
        start = time.perf_counter()
        self._report("train.compile: compiling, the first time takes minutes")
        compiled = CompiledPotential(self.state.potential, self._report)
        self.state.potential.train()
        compiled.prepare(batch.graph for batch in self.loader.batches(0))
        self._cost = time.perf_counter() - start
        self.state.progress.compiled, self.state.compiled = True, compiled
        if compiled.off is not None:
            self._drop(compiled)
            return
        worst = compiled.worst
        self._report(
            f"train.compile: compiled in {self._cost:.0f} s and equal to the eager model within {worst.relative:.0e} "
            f"({worst.what})"
        )

    def _judge(self, eager: float, compiled: float) -> None:
        """Compare the measured times; keep what is faster, and remember it for other runs."""
        gain = 1.0 - compiled / eager
        text = f"an update takes {1000 * compiled:.0f} ms compiled, {1000 * eager:.0f} ms eagerly"
        self._remember(gain)
        if gain > 0:
            self._report(f"train.compile: {text}")
            return
        self._report(f"train.compile: {text}; training goes on eagerly")
        self.state.compiled, self.state.progress.compiled = None, False

    def _drop(self, compiled: CompiledPotential) -> None:
        if self.wish is True:
            raise DeviceError(
                f"the model cannot be trained compiled: {compiled.off}", "train.compile", "set it to auto or false"
            )
        self.state.compiled, self.state.progress.compiled, self._eager = None, False, None

    def _report(self, text: str) -> None:
        self.sentences.append(text.removeprefix("train.compile: "))
        self._tell(text)

    # -- measurements of earlier runs ----------------------------------------------------------------------------

    def _key(self) -> str:
        potential = self.state.potential
        what = [
            potential.backend,
            potential.settings.model_dump(mode="json"),
            potential.elements,
            str(potential.dtype),
            str(next(potential.parameters()).device),
            torch.get_num_threads(),
            torch.__version__,
            source_tag(),
        ]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def _experience(self) -> tuple[float, float, str]:
        """Seconds to compile, share of an update that is saved, and where the two are from."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads((cache_folder() / KEPT).read_text(encoding="utf-8"))[self._key()]
            return float(kept["seconds"]), float(kept["gain"]), "measured before"
        return USUAL_SECONDS, USUAL_GAIN, "usual"

    def _remember(self, gain: float) -> None:
        """Keep the measurement; the next run finds its code in the cache and takes a part of a first run's time."""
        path = cache_folder() / KEPT
        known: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            known = json.loads(path.read_text(encoding="utf-8"))
        key = self._key()
        seconds = self._cost if key in known else self._cost * CACHED_SHARE
        with suppress(OSError, TypeError, ForgeError):
            write_atomic(path, json.dumps({**known, key: {"seconds": seconds, "gain": gain}}, indent=1))
