"""The traces of one architecture: made when needed, checked before they are trusted."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forgefield.core.errors import ForgeError, ModelError
from forgefield.models.architecture import AtomTerm, Respond
from forgefield.models.traced.agreement import compare
from forgefield.models.traced.gradient import differentiate, state_of
from forgefield.models.traced.sizes import Inputs, inputs_of, probes, sizes_for
from forgefield.models.traced.trace import Case, Purpose, Trace, make_trace

if TYPE_CHECKING:
    from forgefield.models.traced.architecture import EnergyArchitecture

MOST_TRACES = 6  # of one purpose; more means that the architecture's Python depends on sizes


class TracingWarning(UserWarning):
    """Forces come from automatic differentiation because a trace cannot be used."""


class Traces:
    """Finds the trace for a batch, makes it, checks it. A copy begins without any.

    Attributes:
        notes: what happened, in sentences: traces made, fallbacks.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._made: dict[Purpose, list[Trace]] = {}
        self._refused: dict[Purpose, str] = {}

    def __deepcopy__(self, memo: object) -> Traces:
        return Traces()

    def __reduce__(self) -> tuple[type[Traces], tuple[()]]:
        return Traces, ()

    def made(self, purpose: Purpose | None = None) -> list[Trace]:
        """All traces so far, or those of one purpose."""
        return [t for p, same in self._made.items() for t in same if purpose in (None, p)]

    def term(self, architecture: EnergyArchitecture, inputs: Inputs, respond: Respond | None = None) -> AtomTerm:
        """Return predictions and gradients by a trace, or by autograd where no trace may be used.

        Raises:
            ModelError: a compiler or exporter needs a trace and there is none.
        """
        purpose = purpose_of(architecture, inputs, respond is not None)
        case = Case(architecture, inputs, purpose, respond)
        if torch.compiler.is_compiling():
            trace = self._compiled(case)
        elif case.purpose.exporting:
            with _not_recording():
                trace = self._exported(case)
        else:
            trace = self._trusted(case)
        state = state_of(architecture)
        if trace is not None:
            return trace.run(list(state.values()), inputs, respond)
        return _plain(case, state)

    def _compiled(self, case: Case) -> Trace:
        for trace in self._made.get(case.purpose, []):
            if trace.checked and trace.fits(trace.layout.measure(case.inputs)):
                return trace
        reason = self._refused.get(case.purpose, "it has not been traced yet")
        raise ModelError(
            f"cannot be compiled ({case.purpose}): {reason}",
            fix="run it once, in the same mode, on a batch with pairs",
        )

    def _exported(self, case: Case) -> Trace:
        """Return the one trace that a file holds for all sizes, compared on a lone atom and two atoms too."""
        needs = case.architecture.needs
        trace = self._make(case, sizes_for(needs).typical)
        for inputs in (case.inputs, *probes(case.inputs, needs)):
            if trace is not None:
                trace = self._judge(trace, case._replace(inputs=inputs))
        if trace is None:
            what = f"cannot be exported: {self._refused[case.purpose]}"
            raise ModelError(what, fix="see docs/architecture.md, Forces without double backward")
        return trace

    def _trusted(self, case: Case) -> Trace | None:
        """Return a trace for the sizes of this batch, checked where it is new to them; None if there can be none."""
        purpose = case.purpose
        if purpose in self._refused:
            return None
        layout = sizes_for(case.architecture.needs)
        sizes = layout.measure(case.inputs)
        trace = self._fitting(purpose, sizes)
        if trace is None and not self._made.get(purpose):
            self._make(case, layout.typical)
            trace = self._fitting(purpose, sizes)
        if trace is None and purpose not in self._refused:
            if len(self._made[purpose]) >= MOST_TRACES:
                self._refuse(purpose, f"{MOST_TRACES} traces do not fit the sizes {sizes}")
                return None
            trace = self._make(case, sizes)
        pattern = tuple(min(size, 2) for size in sizes.values())
        if trace is None or pattern in trace.checked:
            return trace
        return self._judge(trace, case, pattern)

    def _fitting(self, purpose: Purpose, sizes: Mapping[str, int]) -> Trace | None:
        return next((t for t in self._made.get(purpose, []) if t.fits(sizes)), None)

    def _make(self, case: Case, sizes: Mapping[str, int]) -> Trace | None:
        purpose = case.purpose
        try:
            trace = make_trace(case, sizes_for(case.architecture.needs), sizes)
        except ForgeError:
            raise
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            self._refuse(purpose, f"tracing failed ({type(error).__name__}: {first})")
            return None
        self._made.setdefault(purpose, []).append(trace)
        operations = sum(node.op.startswith("call") for node in trace.module.graph.nodes)
        special = ", ".join(f"{name} = {size}" for name, size in trace.fixed.items())
        known = f" for {special}" * bool(special) + f" where {trace.conditions}" * bool(trace.conditions)
        self.notes.append(f"traced ({purpose}){known}: {operations} operations")
        return trace

    def _judge(self, trace: Trace, case: Case, pattern: tuple[int, ...] | None = None) -> Trace | None:
        """Compare with autograd; return the trace if they agree."""
        purpose = case.purpose
        if case.respond is not None:  # whatever the physics is; the real one knows this batch only
            case = case._replace(respond=_stand_in)
        found = compare(
            lambda state: trace.run(list(state.values()), case.inputs, case.respond),
            lambda state: _plain(case, state),
            state_of(case.architecture),
            purpose.precision,
            purpose.differentiable,
        )
        if found.difference:
            self._refuse(purpose, f"it does not agree with automatic differentiation: {found.difference}")
            return None
        if found.conclusive and pattern is not None:
            trace.checked.add(pattern)
        return trace

    def _refuse(self, purpose: Purpose, reason: str) -> None:
        self._refused[purpose] = reason
        self.notes.append(f"no trace ({purpose}): {reason}; forces come from automatic differentiation")
        if not purpose.exporting:
            warnings.warn(self.notes[-1], TracingWarning, stacklevel=2)


def _stand_in(charges: Tensor) -> Tensor:
    """Response of no physics at all: another number at each atom, which depends on its charge."""
    rows = torch.arange(charges.shape[0], dtype=charges.dtype, device=charges.device)
    return torch.cos(1.3 * rows) + 0.5 * charges


def purpose_of(architecture: EnergyArchitecture, inputs: Inputs, responds: bool = False) -> Purpose:
    """Return what a trace is needed for here and now."""
    device = inputs.vectors.device
    return Purpose(
        training=architecture.training,
        differentiable=torch.is_grad_enabled() and not torch.jit.is_tracing(),
        exporting=torch.jit.is_tracing(),
        dtype=inputs.vectors.dtype,
        device=device,
        autocast=torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None,
        responds=responds,
    )


def untraced(architecture: EnergyArchitecture, inputs: Inputs, respond: Respond | None = None) -> AtomTerm:
    """Return predictions and gradients by autograd, for architectures whose operators bring their own gradients."""
    purpose = purpose_of(architecture, inputs, respond is not None)
    return _plain(Case(architecture, inputs, purpose, respond), None)


def _plain(case: Case, state: Mapping[str, Tensor] | None) -> AtomTerm:
    """Energies and gradients by autograd, also for tensors made in inference mode."""
    architecture, inputs, purpose, respond = case
    with torch.inference_mode(False):
        if inputs.vectors.is_inference():
            inputs = inputs_of([tensor.clone() for tensor in inputs.tensors()])
        return differentiate(architecture, state, inputs, differentiable=purpose.differentiable, respond=respond)


@contextmanager
def _not_recording() -> Generator[None]:
    """Keep `torch.jit.trace` from recording what happens inside."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)
