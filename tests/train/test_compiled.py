"""Training through torch.compile: nothing compiled is used before it agrees, and every way out is visible.

Most tests let PyTorch trace and differentiate the graph and run it without Inductor, which takes seconds; the slow ones
compile for real.
"""

import io
import json
import logging
import re

import pytest
import torch
from rich.console import Console
from torch._dynamo.backends.debugging import aot_eager
from toy import load, make_potential, make_structures, quiet, same, weights

from forgefield.core.errors import DeviceError
from forgefield.train import compilation, compiled
from forgefield.train.compiled import CompiledPotential, compare
from forgefield.train.compiler import MOST_GRAPHS
from forgefield.train.loop import fit


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """No graphs of other tests, no Inductor, and a cache folder of the test's own."""
    torch._dynamo.reset()
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # megabytes for pytest's log capture
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "compile_graph", aot_eager)
    yield
    torch._dynamo.reset()


def graphs(n=12, size=4):
    return [batch.graph for batch in load(make_structures(n), size).batches()]


def perturbed(target, change):
    """A backend whose backward pass changes what it returns for one parameter, named by its shape."""
    from torch._dynamo.backends.common import aot_autograd

    def backward(module, inputs):
        def run(*values):
            out = list(module(*values))
            return [change(x) if isinstance(x, torch.Tensor) and tuple(x.shape) == target else x for x in out]

        return run

    return aot_autograd(fw_compiler=lambda module, inputs: module, bw_compiler=backward)


def trained(folder, resume=False, **settings):
    """Fit the toy; returns it, the result, and what was said."""
    console = Console(record=True, width=400, file=io.StringIO())
    potential, structures = make_potential(noise=settings.pop("noise", 0.0)), make_structures(16)
    loaders = load(structures[:12], shuffle=True), load(structures[12:])
    prints = {"config_fingerprint": "c", "data_fingerprint": "d", "console": console}
    made = quiet(max_grad_norm=None, stress_weight=1.0, **settings)
    result = fit(potential, *loaders, made, folder=folder, device="cpu", resume=resume, **prints)
    said = console.export_text()
    console.file.close()
    return potential, result, said


def events(folder):
    return [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]


def test_one_graph_serves_all_sizes_and_agrees():
    potential, said = make_potential(), []
    run = CompiledPotential(potential.train(), said.append)
    run.prepare(graphs())
    for graph in graphs(n=14, size=3) + graphs(n=3, size=1):
        for own, wanted in zip(run(graph)[:4], potential(graph)[:4], strict=True):
            assert torch.allclose(own, wanted, rtol=1e-13, atol=1e-13)
    assert (run.graphs, run.off, said) == (1, None, [])
    assert run.worst.relative < 1e-12


def test_a_batch_of_one_pair_is_computed_eagerly():
    run = CompiledPotential(make_potential(), print)
    singles = [batch.graph for batch in load(make_structures(30), 1).batches()]
    small = [graph for graph in singles if graph.pair_first.shape[0] < 2]
    assert small, "the toy structures hold a pair of atoms"
    run(small[0])
    assert run.graphs == 0


@pytest.mark.parametrize(
    ("name", "shape", "change"),
    [
        ("linear.weight", (3, 4), lambda g: g * 1.001),
        ("readouts.0.weight", (1, 3), torch.zeros_like),
        ("linear.weight", (3, 4), lambda g: g * torch.nan),
    ],
)
def test_a_wrong_gradient_of_one_parameter_is_caught(name, shape, change):
    potential, said = make_potential().train(), []
    run = CompiledPotential(potential, said.append, perturbed(shape, change))
    graph = graphs()[0]
    outputs = run(graph)
    assert all(torch.equal(a, b) for a, b in zip(outputs[:4], potential(graph)[:4], strict=True))
    assert f"gradient of architecture.{name}" in run.off
    assert len(said) == 1
    assert "training goes on eagerly" in said[0]
    before = run.graphs
    run(graphs()[1])
    assert run.graphs == before


def test_each_quantity_is_compared_by_itself():
    """A backward pass that is wrong for the forces alone, which an energy loss would never show."""
    potential = make_potential().train()

    def run(graph):
        outputs = potential(graph)
        return outputs._replace(forces=outputs.forces.detach() + 1.001 * (outputs.forces - outputs.forces.detach()))

    found = compare(potential, run, graphs()[0])
    assert re.match(r"gradient of .* by the forces", found.what)
    assert found.relative == pytest.approx(1e-3, rel=0.1)
    assert compare(potential, potential, graphs()[0]).relative == 0.0


def test_a_new_graph_is_compared_again():
    """The first compilation is right, the second one wrong."""
    backends = [aot_eager, perturbed((3, 4), lambda g: g * 2.0)]
    run = CompiledPotential(make_potential().train(), print, lambda module, inputs: backends.pop(0)(module, inputs))
    first = graphs()[0]
    run(first)
    assert run.off is None
    run(first._replace(positions=first.positions.requires_grad_()))  # another kind of input: a new graph
    assert (run.graphs, len(backends)) == (2, 0)
    assert "linear.weight" in run.off


def test_compilations_are_bounded():
    """With sizes that are no symbols each new size would be a new graph."""
    said = []
    potential = make_potential()
    run = CompiledPotential(potential, said.append)
    run._predict = torch.compile(potential.predict, fullgraph=True, dynamic=False, backend=run._compile)
    for n in range(2, 10):
        graph = graphs(n=n, size=n)[0]
        assert torch.allclose(run(graph).energy, potential(graph).energy, rtol=1e-13)
    assert (run.graphs, run.off) == (MOST_GRAPHS, None)
    assert len(said) == 1
    assert f"{MOST_GRAPHS} graphs are compiled" in said[0]


def test_unknown_elements_are_refused_compiled_too():
    potential = make_potential()
    run = CompiledPotential(potential, print)
    graph = graphs()[0]
    run(graph)
    with pytest.raises(Exception, match="does not know O"):
        run(graph._replace(numbers=torch.full_like(graph.numbers, 8)))


def test_a_compiled_fit_is_the_eager_one_and_resumes_bit_for_bit(tmp_path):
    eager, _, _ = trained(tmp_path / "eager", compile=False, noise=0.01)
    straight, result, said = trained(tmp_path / "straight", compile=True, noise=0.01)
    assert "equal to the eager model within" in said
    assert any("equal to the eager model within" in s for s in result.compilation)
    for name, value in weights(eager).items():
        assert torch.allclose(value, weights(straight)[name], rtol=1e-9), name
    trained(tmp_path / "cut", compile=True, noise=0.01, epochs=1)
    torch._dynamo.reset()
    again, _, _ = trained(tmp_path / "cut", compile=True, noise=0.01, resume=True)
    assert same(weights(straight), weights(again))
    state = json.loads((tmp_path / "cut" / "checkpoints" / "last" / "state.json").read_text())
    assert state["progress"]["compiled"] is True


def test_what_is_wrong_falls_back_in_sight_or_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "compile_graph", perturbed((3, 4), lambda g: -g))
    monkeypatch.setattr(compilation, "LONG", 1)
    eager, _, _ = trained(tmp_path / "eager", compile=False, epochs=6)
    fallen, result, said = trained(tmp_path / "fallen", compile="auto", epochs=6)
    assert same(weights(eager), weights(fallen))
    assert "the compiled model is not used, its gradient of" in said
    assert any("the compiled model is not used" in text for text in result.compilation)
    assert any("the compiled model is not used" in text for text in events(tmp_path / "fallen"))
    with pytest.raises(DeviceError, match=r"cannot be trained compiled: its gradient of.*set it to auto or false"):
        trained(tmp_path / "refused", compile=True)


def test_a_compiler_that_fails_is_told(tmp_path, monkeypatch):
    def none(module, inputs):
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(compiled, "compile_graph", none)
    with pytest.raises(DeviceError, match="no C\\+\\+ compiler found"):
        trained(tmp_path / "refused", compile=True)


def test_auto_decides_by_the_plan_alone_and_follows_a_changed_one(tmp_path, monkeypatch):
    _, short, said = trained(tmp_path, compile="auto")
    assert (short.compilation, "compile" in said) == ((), False)
    monkeypatch.setattr(compilation, "LONG", 15)  # 3 updates an epoch
    _, longer, _ = trained(tmp_path, compile="auto", epochs=6, resume=True)
    assert "equal to the eager model" in longer.compilation[1]
    assert re.match(r"a pass and its gradient take \d+\.\d ms, \d+\.\d ms eagerly", longer.compilation[2])
    assert "compiled from here on; the last digits differ" in longer.compilation[3]
    _, off, _ = trained(tmp_path, compile=False, epochs=7, resume=True)
    assert "eager from here on; the last digits differ" in off.compilation[0]
    _, limited, _ = trained(tmp_path / "limited", compile="auto", epochs=6, max_minutes=10)
    assert limited.compilation == ()


def test_auto_leaves_models_with_kernels_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "LONG", 1)
    monkeypatch.setattr("toy.Toy.has_kernels", True)
    monkeypatch.setattr("forgefield.models.potential.compiled", lambda tensor: True)
    assert trained(tmp_path / "with", compile="auto")[1].compilation == ()
    monkeypatch.setattr("forgefield.models.potential.compiled", lambda tensor: False)
    assert trained(tmp_path / "without", compile="auto")[1].compilation != ()


def test_nothing_is_compiled_when_it_is_off(tmp_path):
    _, result, _ = trained(tmp_path / "off", compile=False)
    assert result.compilation == ()
    assert not (tmp_path / "off" / "events.jsonl").exists()


def test_amp_and_compile_exclude_each_other():
    with pytest.raises(ValueError, match="cannot be had with amp"):
        quiet(compile=True, amp=True)


def test_no_coincidence_is_compiled_for():
    """Sizes that are equal by chance in the first batch would be a rule of its graph."""
    run = CompiledPotential(make_potential(), print)
    few = graphs(n=3, size=3)[0]
    assert few.n_structures == 3
    run.prepare([few])
    run(graphs(n=4, size=4)[0])
    assert run.graphs == 1


def mace(interactions=1):
    """A small MACE with two elements."""
    from forgefield.models.architectures.mace.settings import MaceSettings
    from forgefield.models.potential import build_potential

    shape = {"hidden_irreps": "2x0e + 2x1o" if interactions > 1 else "2x0e", "max_ell": 1, "correlation": 2}
    settings = MaceSettings(**shape, r_max=3.5, num_interactions=interactions, radial_mlp=[8])
    tables = {"default": {1: -1.5, 6: -3.0}}
    return build_potential("mace", settings, elements=[1, 6], reference_energies=tables, avg_num_neighbors=3.0).train()


def single(n=12, size=4):
    return [batch.graph for batch in load(make_structures(n), size, dtype=torch.float32).batches()]


def test_mace_is_traced_whole_with_the_gradients_of_every_parameter():
    run = CompiledPotential(mace(), print)
    run.prepare(single())
    assert (run.graphs, run.off) == (1, None)
    assert run.worst.relative < 1e-5


@pytest.mark.slow
def test_inductor_agrees_and_finds_its_code_again(tmp_path, monkeypatch):
    from torch._dynamo.utils import counters

    monkeypatch.undo()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    results = []
    for turn in range(2):
        torch._dynamo.reset()
        counters.clear()
        potential = mace(interactions=2)
        run = CompiledPotential(potential, print)
        run.prepare(single(n=48, size=16))  # Inductor has other code for products of fewer than 32 rows
        assert (run.graphs, run.off) == (1, None)
        assert counters["aot_autograd"]["autograd_cache_hit"] == turn
        outputs = run(single(n=48, size=15)[1])
        (outputs.energy.sum() + outputs.forces.square().sum()).backward()
        results.append([*outputs[:4], *(p.grad for p in potential.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
