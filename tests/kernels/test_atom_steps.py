"""Steps of atoms' rows: the C++ operators against plain PyTorch, derivatives included."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from forgefield.kernels.library import load
from forgefield.kernels.operators import ops

pytestmark = pytest.mark.skipif(load().path is None, reason=f"no compiled operators: {load().words}")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-4}
SOFT = 0.03
PARTS = [[], [(0, 3)], [(1, 2)], [(0, 16), (1, 17)], [(0, 5), (1, 4), (2, 3)]]


def norm(rows, parameters, width, parts):
    """Layer norm of scalars; features by the root of their mean squared length, scalars among them centred."""
    h = rows[0]
    s, v = h[:, :width], h[:, width:]
    found = [torch.nn.functional.layer_norm(s, (width,), *parameters[:2])]
    if not parts:
        return found
    split = [x.unflatten(1, (2 * l + 1, c)) for x, (l, c) in zip(v.split(sizes(parts), 1), parts, strict=True)]
    if parts[0][0] == 0:
        split[0] = split[0] - split[0].mean(2, keepdim=True)
    squares = sum(x.square().sum((1, 2)) for x in split) / sum(c for _, c in parts)
    weights = parameters[2].split([c for _, c in parts])
    split = [x * torch.rsqrt(squares + SOFT**2).reshape(-1, 1, 1) * w for x, w in zip(split, weights, strict=True)]
    if parts[0][0] == 0:
        split[0] = split[0] + parameters[3]
    return found + [x.flatten(0, 1) for x in split]


def gate(rows, parameters, width, parts):
    """Features times the gates of their channels, behind other columns."""
    own, *gates = rows[0].split([width, *(c for _, c in parts)], 1)
    features = [x.unflatten(0, (len(own), 2 * l + 1)) for x, (l, _) in zip(rows[1:], parts, strict=True)]
    return [torch.cat([own, *((x * g.unsqueeze(1)).flatten(1) for x, g in zip(features, gates, strict=True))], 1)]


def mixed(rows, parameters, n, parts):
    """U and V, (N, 2l+1, c)."""
    found = [x.unflatten(0, (n, 2 * l + 1)) for x, (l, _) in zip(rows, parts, strict=True)]
    if parameters:
        found[0] = found[0] + parameters[0]
    return zip(*(x.chunk(2, 2) for x in found), strict=True)


def products(rows, parameters, width, parts):
    """Scalars and soft lengths of V; products of U and V."""
    u, v = mixed(rows[1:], parameters, len(rows[0]), parts)
    lengths = [torch.sqrt(x.square().sum(1) + SOFT**2) - SOFT for x in v]
    return [torch.cat([rows[0], *lengths], 1), torch.cat([(a * b).sum(1) for a, b in zip(u, v, strict=True)], 1)]


def update(rows, parameters, width, parts):
    """Scalars + b dotted + c, features + U gates."""
    h, net, dotted = rows[:3]
    b, c, *gates = net.split([width, width, *(n for _, n in parts)], 1)
    s = h[:, :width] + b * dotted + c
    if not parts:
        return [s]
    u, _ = mixed(rows[3:], parameters, len(h), parts)
    moved = [(x * g.unsqueeze(1)).flatten(1) for x, g in zip(u, gates, strict=True)]
    return [torch.cat([s, h[:, width:] + torch.cat(moved, 1)], 1)]


PLAIN = {"norm": norm, "gate": gate, "products": products, "update": update}
CASES = [(step, parts) for step in PLAIN for parts in PARTS if parts or step != "products"]  # products of something


def sizes(parts):
    return [(2 * l + 1) * c for l, c in parts]


def given(step, n, width, parts, dtype):
    """Random rows and parameters of a step."""
    torch.manual_seed(3)
    rand = lambda *shape: torch.randn(shape, dtype=dtype)  # noqa: E731
    size, count, scalars = sum(sizes(parts)), sum(c for _, c in parts), bool(parts) and parts[0][0] == 0
    several = lambda k: [rand(n * (2 * l + 1), k * c) for l, c in parts]  # noqa: E731
    bias = [rand(2 * parts[0][1])] if scalars else []
    if step == "norm":
        parameters = [
            rand(width),
            rand(width),
            *([rand(count)] if parts else []),
            *([rand(parts[0][1])] if scalars else []),
        ]
        return [rand(n, width + size)], parameters
    if step == "gate":
        return [rand(n, width + count), *several(1)], []
    if step == "products":
        return [rand(n, width), *several(2)], bias
    return [rand(n, width + size), rand(n, 2 * width + count), rand(n, width), *several(2)], bias


def layout(width, parts):
    return [width, *(k for part in parts for k in part)]


def own(step, width, parts):
    return lambda rows, parameters: ops.atom_step(rows, parameters, step, layout(width, parts), SOFT)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("n", "width"), [(7, 5), (1, 16), (70, 35), (0, 3)])
@pytest.mark.parametrize(("step", "parts"), CASES, ids=str)
def test_step_and_both_derivatives(step, n, width, parts, dtype):
    """Value, gradient by rows, and gradients by all of a loss of both, as in training to forces."""
    results = []
    plain = lambda rows, parameters: PLAIN[step](rows, parameters, width, parts)  # noqa: E731
    for function in (own(step, width, parts), plain):
        rows, parameters = given(step, n, width, parts, dtype)
        leaves = [t.requires_grad_() for t in (*rows, *parameters)]
        out = function(rows, parameters)
        seeds = [torch.linspace(-1, 1, y.numel(), dtype=dtype).reshape(y.shape).requires_grad_() for y in out]
        pairs = list(zip(out, seeds, strict=True))
        first = torch.autograd.grad(sum((y * w).sum() for y, w in pairs), rows, create_graph=True, allow_unused=True)
        first = [torch.zeros_like(x) if g is None else g for g, x in zip(first, rows, strict=True)]
        loss = sum(torch.cos(y).sum() for y in out) + sum((g * torch.sin(3 * g.detach())).sum() for g in first)
        second = torch.autograd.grad(loss, [*leaves, *seeds], allow_unused=True, materialize_grads=True)
        results.append([*out, *first, *second])
    for found, wanted in zip(*results, strict=True):
        assert found.shape == wanted.shape
        if found.numel():
            error = float((found - wanted).detach().abs().max())
            assert error < TOLERANCE[dtype] * (1 + float(wanted.detach().abs().max()))


@pytest.mark.parametrize("parts", [[(0, 2), (1, 3)], [(1, 2)]], ids=str)
@pytest.mark.parametrize("step", list(PLAIN))
def test_step_by_finite_differences(step, parts):
    rows, parameters = given(step, 3, 4, parts, torch.float64)
    leaves = [t.requires_grad_() for t in (*rows, *parameters)]
    function = lambda *all_: tuple(own(step, 4, parts)(list(all_[: len(rows)]), list(all_[len(rows) :])))  # noqa: E731
    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves)


def test_sums_do_not_depend_on_threads():
    """Gradients of the parameters are bit for bit the same with one thread and with two."""
    parts, found = [(0, 16), (1, 16)], []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rows, parameters = given("norm", 500, 32, parts, torch.float32)
        out = own("norm", 32, parts)(rows, [p.requires_grad_() for p in parameters])
        found.append(torch.autograd.grad(sum(torch.cos(y).sum() for y in out), parameters))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_rows_that_do_not_fit_are_refused():
    rows, parameters = given("norm", 4, 6, [(0, 3)], torch.float64)
    for wrong in (rows[0][:, 1:], rows[0].float()):
        with pytest.raises(RuntimeError, match="atom_step"):
            ops.atom_step([wrong], parameters, "norm", layout(6, [(0, 3)]), SOFT)
    with pytest.raises(RuntimeError, match="no such step"):
        ops.atom_step(rows, parameters, "nothing", layout(6, [(0, 3)]), SOFT)
