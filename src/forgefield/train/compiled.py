"""The potential's prediction, compiled; what is compiled is compared with the eager model before it is used."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import warnings
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from forgefield.graph.graph import Graph
from forgefield.models.potential import Outputs, Potential

MOST_GRAPHS = 4  # compiled in one run; batches that fit none of them are computed eagerly
SEARCHED_BATCHES = 50  # of the training set, for sizes that differ from each other
CHECKED_BATCHES = 2  # of different sizes, on which the compiled code is compared after each compilation
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}  # of the largest element of what is compared
FLOOR = {torch.float32: 1e-6, torch.float64: 1e-13}  # of the largest element of all gradients: below is rounding
DISPLACEMENT = 0.02  # Å, of the atoms in comparisons, so that nothing cancels by symmetry
COMPARED = ("energy", "forces", "stress")

Backend = Callable[[torch.fx.GraphModule, list[Any]], Callable[..., Any]]


class Deviation(NamedTuple):
    """The largest difference found: share of the allowed one (above 1 is a mismatch), of what, and relative size."""

    share: float
    what: str
    relative: float


class CompiledPotential:
    """Predicts like the potential, through `torch.compile`, for training.

    Sizes (structures, atoms, pairs, table width) are symbols, so that one compilation serves all batches. Each new
    compilation is compared with the eager potential on the batch that caused it and on the next one of other sizes:
    energies, forces, stress, and the gradient of every parameter by a random combination of each of the three.
    A mismatch or an error switches compilation off for good; `off` says why, `report` is told at once.

    Args:
        potential: what is compiled; its weights stay shared.
        report: is called with one sentence for each event that must not be missed.
        backend: what compiles a graph; Inductor if not given.
    """

    def __init__(self, potential: Potential, report: Callable[[str], None], backend: Backend | None = None) -> None:
        self.potential, self.report = potential, report
        self.backend = backend or _inductor
        self.graphs = 0
        self.off: str | None = None
        self.worst = Deviation(0.0, "nothing", 0.0)
        self._unchecked = 0
        self._checked: set[tuple[int, ...]] = set()
        self._predict = torch.compile(potential.predict, fullgraph=True, dynamic=True, backend=self._compile)

    def __call__(self, graph: Graph) -> Outputs:
        """Predict a batch; eagerly if compilation is off or the batch too small for symbolic sizes."""
        if self.off is not None or min(_sizes(graph)[1:]) < 2:
            return self.potential(graph)
        before, random = self.graphs, torch.get_rng_state()
        outputs = self._attempt(graph)
        if self.graphs > before:
            self._unchecked = CHECKED_BATCHES
            self._checked.clear()
        if outputs is not None and self._unchecked and _sizes(graph) not in self._checked:
            self.check(graph)
        if outputs is not None and self.off is None:
            return outputs
        torch.set_rng_state(random)
        return self.potential(graph)

    def prepare(self, batches: Iterable[Graph]) -> None:
        """Compile and compare before training, so that the code does not depend on where training is taken up.

        Args:
            batches: of the training set, always in the same order.
        """
        chosen: list[Graph] = []
        for graph in itertools.islice(batches, SEARCHED_BATCHES):
            if _coincidence(graph) or (chosen and _sizes(graph) == _sizes(chosen[0])):
                continue
            chosen.append(graph)
            if len(chosen) == CHECKED_BATCHES:
                break
        random = torch.get_rng_state()
        for graph in chosen:
            self(graph)
        torch.set_rng_state(random)
        if not chosen:
            self._give_up("no batch has sizes that it could be compiled for (two atoms, pairs and neighbours at least)")

    def check(self, graph: Graph) -> None:
        """Compare with the eager potential on a batch; random numbers are left as they were."""
        self._unchecked -= 1
        self._checked.add(_sizes(graph))
        devices = [graph.positions.device] if graph.positions.is_cuda else []
        with torch.random.fork_rng(devices=devices), compiler_settings():
            try:
                found = compare(self.potential, self._run, displaced(graph))
            except Exception as error:
                self._give_up(f"the compiled backward failed ({_brief(error)})")
                return
        self.worst = max(self.worst, found)
        if not found.share <= 1.0:
            allowed = TOLERANCE[self.potential.dtype]
            self._give_up(
                f"its {found.what} differs from the eager one by {found.relative:.1e} (allowed {allowed:.0e})"
            )

    def _attempt(self, graph: Graph) -> Outputs | None:
        """Run the compiled code; None, with `off` set, if it cannot be compiled or run."""
        try:
            with compiler_settings():
                return self._run(graph)
        except Exception as error:
            self._give_up(f"it failed ({_brief(error)})")
            return None

    def _run(self, graph: Graph) -> Outputs:
        n = graph.n_structures
        species, counts = self.potential.count_elements(graph)
        padded = _padded(graph, apart=not self.graphs)
        _fix_sizes(padded, counts)
        full = self.graphs >= MOST_GRAPHS
        with torch.compiler.set_stance("eager_on_recompile") if full else contextlib.nullcontext():
            outputs = self._predict(padded, species, counts)
        if padded.n_structures == n:
            return outputs
        return outputs._replace(energy=outputs.energy[:n], stress=outputs.stress[:n])

    def _compile(self, module: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        code = self.backend(module, inputs)
        self.graphs += 1
        if self.graphs == MOST_GRAPHS:
            self.report(f"train.compile: {MOST_GRAPHS} graphs are compiled; batches that fit none run eagerly from now")
        return code

    def _give_up(self, why: str) -> None:
        self.off = why
        self.report(f"train.compile: the compiled model is not used, {why}; training goes on eagerly")


def compare(potential: Potential, compiled: Callable[[Graph], Outputs], graph: Graph) -> Deviation:
    """Return the largest deviation of the compiled outputs and parameter gradients from the eager ones.

    Each quantity and each gradient is measured by its own largest element. Gradients whose elements are all below
    FLOOR times the largest of all gradients by the same quantity are compared with that floor.
    """
    parameters = {name: p for name, p in potential.named_parameters() if p.requires_grad}
    dtype, device = potential.dtype, graph.positions.device
    generator = torch.Generator().manual_seed(0)
    random = torch.get_rng_state()
    found = Deviation(0.0, "nothing", 0.0)
    for name in COMPARED:
        sides: list[tuple[Outputs, list[Tensor]]] = []
        weights: list[Tensor] = []
        for run in (potential, compiled):
            torch.set_rng_state(random)
            outputs = run(graph)
            value = getattr(outputs, name)
            if not weights:
                weights.append(torch.randn(value.shape, generator=generator, dtype=value.dtype).to(device))
            sides.append((outputs, _gradients((value * weights[0]).sum(), list(parameters.values()))))
        (eager, wanted), (own, got) = sides
        scale = _scale(potential, graph, eager, name)
        found = max(found, _deviation(name, getattr(own, name), getattr(eager, name), scale, dtype))
        floor = FLOOR[dtype] / TOLERANCE[dtype] * max((_largest(g) for g in wanted), default=0.0)
        for label, a, b in zip(parameters, got, wanted, strict=True):
            what = f"gradient of {label} by the {name}"
            found = max(found, _deviation(what, a, b, max(_largest(b), floor), dtype))
    return found


def _gradients(value: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Gradient of a number by each parameter, zero where there is none."""
    if not value.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found: Any = torch.autograd.grad(value, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def _deviation(what: str, value: Tensor, reference: Tensor, scale: float, dtype: torch.dtype) -> Deviation:
    difference = _largest(value.detach().double() - reference.detach().double())
    if difference == 0.0:
        return Deviation(0.0, what, 0.0)
    relative = difference / scale if scale > 0.0 else float("inf")
    relative = relative if relative == relative else float("inf")  # not a number is a mismatch
    return Deviation(relative / TOLERANCE[dtype], what, relative)


def _scale(potential: Potential, graph: Graph, outputs: Outputs, name: str) -> float:
    """What a difference of predictions is measured by; for energies the part that is learned, summed per structure."""
    if name != "energy":
        return _largest(getattr(outputs, name))
    species, _ = potential.count_elements(graph)
    energies = potential.get_buffer("self_energies")
    base = energies[graph.head.index_select(0, graph.structure), species]
    learned = (outputs.atom_energies.detach() - base.index_select(0, graph.inverse)).abs()
    structure = graph.structure.index_select(0, graph.inverse)
    return _largest(learned.new_zeros(graph.n_structures).index_add(0, structure, learned))


def _largest(tensor: Tensor) -> float:
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0


def displaced(graph: Graph) -> Graph:
    """Copy of a batch whose atoms are moved a little, always in the same way."""
    generator = torch.Generator().manual_seed(1)
    moves = torch.randn(graph.positions.shape, generator=generator, dtype=torch.float64) * DISPLACEMENT
    return graph._replace(positions=graph.positions + moves.to(graph.positions))


def _sizes(graph: Graph) -> tuple[int, int, int, int]:
    """Structures, atoms, pairs and width of the neighbour table."""
    return graph.n_structures, graph.n_atoms, graph.pair_first.shape[0], graph.table_sign.shape[1]


def _coincidence(graph: Graph) -> bool:
    """Say whether sizes of a batch are 1 or equal by chance, which a compiler would take for a rule."""
    sizes = _sizes(graph)[1:]
    return min(sizes) < 2 or len(set(sizes)) < len(sizes)


def _fix_sizes(graph: Graph, counts: Tensor) -> None:
    """Say which sizes never change: the three components of vectors and the number of elements."""
    mark = torch._dynamo.mark_static
    mark(counts)
    for tensor, axes in ((graph.positions, (1,)), (graph.pair_shift, (1,)), (graph.cell, (1, 2)), (graph.pbc, (1,))):
        for axis in axes:
            mark(tensor, axis)


def _padded(graph: Graph, apart: bool = False) -> Graph:
    """Add empty structures: two at least, and with `apart` as many as differ from all other sizes."""
    n = max(2, graph.n_structures)
    while apart and n in _sizes(graph)[1:]:
        n += 1
    more = n - graph.n_structures
    if not more:
        return graph
    return graph._replace(
        cell=torch.cat([graph.cell, graph.cell.new_zeros(more, 3, 3)]),
        pbc=torch.cat([graph.pbc, graph.pbc.new_zeros(more, 3)]),
        head=torch.cat([graph.head, graph.head.new_zeros(more)]),
    )


# -- the compiler ------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where compiled code is kept between runs: TORCHINDUCTOR_CACHE_DIR, else a folder in the user's cache."""
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forgefield" / "inductor"


def source_tag() -> str:
    """Hash of the code that operators may be made of: cached results of other versions are not taken."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for room in ("graph", "models", "kernels"):
        for path in sorted((root / room).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h", ".cu"):
                digest.update(path.read_bytes())
    return "forgefield-" + digest.hexdigest()[:16]


@contextlib.contextmanager
def compiler_settings() -> Generator[None]:
    """Settings of `torch.compile` under which results are the same in every process.

    Random numbers are drawn as eagerly. Sums by index stay eager operators: those that Inductor writes itself add with
    atomic operations, in an order that changes from run to run.
    """
    import torch._dynamo.config as dynamo
    import torch._functorch.config as aot
    import torch._inductor.config as inductor
    import torch.compiler.config as compiler_config

    compiler: Any = compiler_config
    with (
        dynamo.patch(automatic_dynamic_shapes=False, specialize_float=True, recompile_limit=2 * MOST_GRAPHS),
        inductor.patch(fallback_random=True, fx_graph_cache=True),
        aot.patch(enable_autograd_cache=True, autograd_cache_allow_custom_autograd_functions=True),
        compiler.patch(cache_key_tag=_tag()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


_TAGS: list[str] = []


def _tag() -> str:
    if not _TAGS:
        _TAGS.append(source_tag())
    return _TAGS[0]


def _inductor(module: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    """Compile with Inductor; index_add is left to its eager operator."""
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import decompositions

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder())
    operator = torch.ops.aten.index_add.default
    held = decompositions.pop(operator, None)
    try:
        with _symbolic_strides():
            code: Any = compile_fx(module, inputs)
            return code
    finally:
        if held is not None:
            decompositions[operator] = held


@contextlib.contextmanager
def _symbolic_strides() -> Generator[None]:
    """Keep the strides of saved tensors as functions of the sizes.

    torch 2.13 tells the backward pass those of the first batch as numbers, and batches of other sizes then fail
    (pytorch/pytorch pull request 194420). The switch used here makes it keep the symbols.
    """
    import torch._inductor.output_code as place
    from torch._guards import TracingContext

    name = "set_tracing_context_output_strides"
    original = getattr(place, name, None)
    if original is None:
        yield
        return

    def symbolic(inputs: Any, graph: Any) -> None:
        context: Any = TracingContext.try_get()
        if context is None:
            return
        before, context.fakify_first_call = context.fakify_first_call, True
        try:
            original(inputs, graph)
        finally:
            context.fakify_first_call = before

    setattr(place, name, symbolic)
    try:
        yield
    finally:
        setattr(place, name, original)


def _brief(error: BaseException) -> str:
    """First line of an error, with its kind."""
    while type(error).__module__.startswith("torch._dynamo") and getattr(error, "inner_exception", None) is not None:
        error = error.inner_exception  # pyright: ignore
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0].strip()[:200]}"
