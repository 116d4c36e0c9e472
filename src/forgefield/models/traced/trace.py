"""One traced graph: predictions and their gradients as a list of plain tensor operations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental import _config as fx_config
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._sympy.printers import PythonPrinter

from forgefield.kernels.choice import kernels
from forgefield.models.architecture import AtomTerm, Respond
from forgefield.models.traced.gradient import CHARGES, differentiate, state_of
from forgefield.models.traced.lowering import NOT_IN_TORCHSCRIPT, call_respond, drop_detach, lower_sizes
from forgefield.models.traced.sizes import Inputs, Sizes, inputs_of

if TYPE_CHECKING:
    from forgefield.models.traced.architecture import EnergyArchitecture

Guard = Callable[[Mapping[str, int]], bool]


class Purpose(NamedTuple):
    """What a trace is for; another purpose needs another trace."""

    training: bool  # mode of the module
    differentiable: bool  # parameters need gradients
    exporting: bool  # run by torch.jit.trace
    dtype: torch.dtype
    device: torch.device
    autocast: torch.dtype | None  # lower precision of the ambient autocast
    responds: bool = False  # the charges' part of the gradient is wanted too

    @property
    def precision(self) -> torch.dtype:
        """Least precise type of the computation."""
        return self.autocast or self.dtype

    def __str__(self) -> str:
        mode = "training" if self.training else "evaluation"
        words = [str(self.dtype).removeprefix("torch."), str(self.device), mode]
        words += ["gradients"] * self.differentiable + ["export"] * self.exporting + ["charges"] * self.responds
        return ", ".join(words + ([f"autocast {self.autocast}"] if self.autocast else []))


class Case(NamedTuple):
    """A batch to evaluate, or one like it to trace for."""

    architecture: EnergyArchitecture
    inputs: Inputs
    purpose: Purpose
    respond: Respond | None = None


class Trace:
    """A graph that stands for all sizes that satisfy its guards.

    Args:
        module: takes parameters, buffers and inputs as one list of tensors.
        layout: names the sizes of the inputs.
        extra: names of the further predictions, in the order of the outputs.
        fixed: sizes that the graph was specialised to (0 and 1).
        guard: whether other sizes fit.
        conditions: the guard in words.
        moves: whether gradients by positions and strain are the last outputs.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        layout: Sizes,
        extra: Sequence[str],
        fixed: Mapping[str, int],
        guard: Guard,
        conditions: str,
        moves: bool = False,
    ) -> None:
        self.moves = moves
        self.module, self.layout, self.extra = module, layout, tuple(extra)
        self.fixed, self.guard, self.conditions = dict(fixed), guard, conditions
        self.checked: set[tuple[int, ...]] = set()

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """Whether the graph may be used for these sizes."""
        return all(sizes[name] == value for name, value in self.fixed.items()) and self.guard(sizes)

    def run(self, state: Sequence[Tensor], inputs: Inputs, respond: Respond | None = None) -> AtomTerm:
        """Evaluate: parameters and buffers in the order of the trace, then the batch, then what gives dE/dq."""
        tensors = [tensor.contiguous() for tensor in inputs.tensors()]
        more = [] if respond is None else [respond]
        with no_autocast(inputs.vectors.device):
            energies, gradients, *rest = self.module.forward(*state, *tensors, *more)
        strain, positions = (rest.pop(), rest.pop()) if self.moves else (None, None)
        by_charge = None if respond is None else rest.pop()
        return AtomTerm(energies, gradients, dict(zip(self.extra, rest, strict=True)), by_charge, positions, strain)


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Casts are part of a trace: do not cast again."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def make_trace(case: Case, layout: Sizes, sizes: Mapping[str, int]) -> Trace:
    """Trace energies and gradient symbolically.

    Args:
        case: architecture and purpose; of the inputs only types and devices are looked at.
        layout: shapes of the inputs, with names for the sizes that vary.
        sizes: a number for each name; 0 and 1 are specialised, others stand for all that satisfy the guards.

    Raises:
        Exception: whatever the architecture or the tracer raises, e.g. where Python decides by values.
    """
    architecture, inputs, purpose, _ = case
    state = {name: value.detach() for name, value in state_of(architecture).items()}
    environment = ShapeEnv(specialize_zero_one=False, duck_shape=False)
    symbols = {name: _symbol(environment, name, size) for name, size in sizes.items() if size > 1}
    extra: list[str] = []

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        by_name = dict(zip(state, tensors[: len(state)], strict=True))
        given, respond = list(tensors[len(state) :]), None
        if purpose.responds:
            seed = given.pop()
            respond = lambda _: seed  # noqa: E731
        batch = inputs_of(given)
        term = differentiate(architecture, by_name, batch, differentiable=purpose.differentiable, respond=respond)
        extra[:] = term.extra
        last = [x for x in (term.charge_gradients, term.positions, term.strain) if x is not None]
        return term.energies, term.vector_gradients, *term.extra.values(), *last

    table = get_decompositions(NOT_IN_TORCHSCRIPT) if purpose.exporting else {}
    with (
        torch.inference_mode(False),
        fx_config.patch(backed_size_oblivious=True),
        enable_python_dispatcher(),
        FakeTensorMode(shape_env=environment) as fake,
        kernels("plain") if purpose.exporting else nullcontext(),  # exported files run without our operators
    ):
        stand_ins = [fake.from_tensor(value, static_shapes=True) for value in state.values()]
        for shape, tensor in zip([*layout.shapes, tuple(inputs.counts.shape)], inputs.tensors(), strict=True):
            known = [symbols.get(d, sizes[d]) if isinstance(d, str) else d for d in shape]
            stand_ins.append(torch.empty(known, dtype=tensor.dtype, device=tensor.device))
        if purpose.responds:  # stands for dE/dq, one number per atom
            stand_ins.append(torch.empty_like(stand_ins[-2], dtype=inputs.vectors.dtype))
        module = make_fx(flat, decomposition_table=table)(*stand_ins)
    drop_detach(module)
    if purpose.exporting:
        lower_sizes(module)
    if purpose.responds:
        call_respond(module, 2 + extra.index(CHARGES))
    module.graph.eliminate_dead_code()
    for node in module.graph.nodes:
        node.meta.clear()
    module.recompile()
    fixed = {name: size for name, size in sizes.items() if size < 2}
    guard, conditions = _guard(environment, {str(s.node._expr): n for n, s in symbols.items()})
    return Trace(module, layout, extra, fixed, guard, conditions, architecture.uses_positions)


def _symbol(environment: ShapeEnv, name: str, size: int) -> torch.SymInt:
    source = ConstantSource(name)
    symbol = environment.create_symbol(size, source=source, dynamic_dim=DimDynamic.DYNAMIC, constraint_dim=None)
    return environment.create_symintnode(symbol, hint=size, source=source)  # type: ignore[return-value]


def _guard(environment: ShapeEnv, names: Mapping[str, str]) -> tuple[Guard, str]:
    """Turn the guards of a finished trace into one function of the sizes."""
    conditions = dict.fromkeys(PythonPrinter().doprint(guard.expr) for guard in environment.guards)
    text = " and ".join(f"({c})" for c in conditions)
    words = re.sub(r"\bs\d+\b", lambda m: names[m[0]], text)
    code = re.sub(r"\bs\d+\b", lambda m: f"sizes['{names[m[0]]}']", text)
    return eval(f"lambda sizes: {code or True}", {"math": math}), words
