"""The potential's prediction, compiled; what is compiled is compared with the eager model before it is used."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from forgefield.graph.graph import Graph
from forgefield.models.potential import Outputs, Potential
from forgefield.train.compiler import MOST_GRAPHS, brief, compile_graph, compiler_settings

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
        self.backend = backend or compile_graph
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

    def prepare(self, batches: Iterable[Graph]) -> list[Graph]:
        """Compile and compare before training, so that the code does not depend on where training is taken up.

        Args:
            batches: of the training set, always in the same order.

        Returns:
            The batches that it was compiled for and compared on; none if no batch was fit for it.
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
        return chosen

    def check(self, graph: Graph) -> None:
        """Compare with the eager potential on a batch; random numbers are left as they were."""
        self._unchecked -= 1
        self._checked.add(_sizes(graph))
        devices = [graph.positions.device] if graph.positions.is_cuda else []
        with torch.random.fork_rng(devices=devices), compiler_settings():
            try:
                found = compare(self.potential, self._run, displaced(graph))
            except Exception as error:
                self._give_up(f"the compiled backward failed ({brief(error)})")
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
            self._give_up(f"it failed ({brief(error)})")
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
        per = {name: q.per for name, q in self.potential.architecture.extra_quantities().items()}
        extra = {name: v[:n] if per[name] == "structure" else v for name, v in outputs.extra.items()}
        return outputs._replace(energy=outputs.energy[:n], stress=outputs.stress[:n], extra=extra)

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
    for name in (*COMPARED, *potential.architecture.extra_quantities()):
        sides: list[tuple[Outputs, list[Tensor]]] = []
        weights: list[Tensor] = []
        for run in (potential, compiled):
            torch.set_rng_state(random)
            outputs = run(graph)
            value = _value(outputs, name)
            if not weights:
                weights.append(torch.randn(value.shape, generator=generator, dtype=value.dtype).to(device))
            sides.append((outputs, _gradients((value * weights[0]).sum(), list(parameters.values()))))
        (eager, wanted), (own, got) = sides
        scale = _scale(potential, graph, eager, name)
        found = max(found, _deviation(name, _value(own, name), _value(eager, name), scale, dtype))
        floor = FLOOR[dtype] / TOLERANCE[dtype] * max((_largest(g) for g in wanted), default=0.0)
        for label, a, b in zip(parameters, got, wanted, strict=True):
            what = f"gradient of {label} by the {name}"
            found = max(found, _deviation(what, a, b, max(_largest(b), floor), dtype))
    return found


def _value(outputs: Outputs, name: str) -> Tensor:
    return outputs.extra[name] if name in outputs.extra else getattr(outputs, name)


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
        return _largest(_value(outputs, name))
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


def _sizes(graph: Graph) -> tuple[int, ...]:
    """Structures, atoms, pairs, width of the neighbour table, and far pairs where there are some."""
    far = graph.far_first.shape[0]
    sizes = graph.n_structures, graph.n_atoms, graph.pair_first.shape[0], graph.table_sign.shape[1]
    return (*sizes, far) if far else sizes


def _coincidence(graph: Graph) -> bool:
    """Say whether sizes of a batch are 1 or equal by chance, which a compiler would take for a rule."""
    sizes = _sizes(graph)[1:]
    return min(sizes) < 2 or len(set(sizes)) < len(sizes)


def _fix_sizes(graph: Graph, counts: Tensor) -> None:
    """Say which sizes never change: the three components of vectors and the number of elements."""
    mark = torch._dynamo.mark_static
    mark(counts)
    for tensor in (graph.positions, graph.pair_shift, graph.far_shift, graph.pbc, graph.cell, graph.features):
        mark(tensor, 1)
    mark(graph.cell, 2)


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
        charge=torch.cat([graph.charge, graph.charge.new_zeros(more)]),
        multiplicity=torch.cat([graph.multiplicity, graph.multiplicity.new_ones(more)]),
        features=torch.cat([graph.features, graph.features.new_zeros(more, graph.features.shape[1])]),
    )
