"""Small networks and joined degrees: the C++ operators do what plain PyTorch does, derivatives included."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from forgefield.kernels.choice import kernels
from forgefield.kernels.library import load
from forgefield.kernels.operators import ops
from forgefield.models.blocks.linear import join_degrees, join_degrees_adjoint
from forgefield.models.blocks.network import SILU_GAIN, Network

pytestmark = pytest.mark.skipif(load().path is None, reason=f"no compiled operators: {load().words}")
SIZES = [[8, 1], [3, 5], [8, 64, 7], [2, 33, 65, 70], [5, 16, 16, 16, 130]]
CHECKS = ("test_schema", "test_faketensor", "test_autograd_registration")


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def grown(x):
    return (x.reshape(-1) * torch.linspace(0.3, 1.2, x.numel(), dtype=x.dtype)).sin().sum()


def network(sizes):
    torch.manual_seed(1)
    return Network(sizes).double()


@pytest.mark.parametrize("rows", [0, 1, 47, 48, 100])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_network_value_adjoint_and_both_gradients(sizes, rows):
    net, x = network(sizes), random(rows, sizes[0]).requires_grad_()
    leaves = [x, *net.parameters()]
    found = {}
    for mode in ("plain", "auto"):
        with kernels(mode):
            y, saved = net(x)
            adjoint = net.adjoint(y.sin(), saved)
            both = [grown(y), grown(adjoint), grown(y) + grown(adjoint)]
            first, second, mixed = (torch.autograd.grad(loss, leaves, retain_graph=True) for loss in both)
        found[mode] = [y, adjoint, *first, *second, *mixed]
    for plain, fast in zip(found["plain"], found["auto"], strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-11, atol=1e-11)


def test_network_gradients_beside_finite_differences():
    net, x, g = network([2, 5, 4, 3]), random(6, 2).requires_grad_(), random(6, 3).requires_grad_()

    def value(x, *weights):
        return ops.network(x, list(weights), SILU_GAIN)[0]

    def adjoint(g, x, *weights):
        hidden = ops.network(x, list(weights), SILU_GAIN)[1:]
        return ops.network_adjoint(g, hidden, list(weights), SILU_GAIN)[0]

    assert gradcheck(value, (x, *net.parameters()))
    assert gradcheck(adjoint, (g, x, *net.parameters()))


def test_network_in_float32_is_as_good_as_plain():
    net, x = network([8, 64, 64, 64, 200]), random(300, 8)
    with kernels("plain"):
        exact = net(x)[0]
    net.float()
    found = {}
    for mode in ("plain", "auto"):
        with kernels(mode):
            y, saved = net(x.float())
            found[mode] = [y, net.adjoint(torch.ones_like(y), saved)]
    errors = [float((found[mode][0].detach() - exact.detach()).abs().max()) for mode in ("plain", "auto")]
    assert errors[1] < 1.5 * errors[0] < 1e-4
    torch.testing.assert_close(found["auto"][1], found["plain"][1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sigmoids_are_exact_and_keep_what_is_no_number(dtype):
    x = torch.cat([torch.linspace(-80, 80, 4001), torch.tensor([0.0, torch.nan, torch.inf, -500.0])]).to(dtype)
    one = torch.ones(1, 1, dtype=dtype)
    _, z, s = ops.network(x.unsqueeze(1), [one, one], 1.0)
    assert torch.equal(z[:, 0].nan_to_num(), x.nan_to_num())
    expected = torch.sigmoid(x.double())
    relative = ((s[:, 0].double() - expected) / expected)[:-3].abs().max()
    assert relative < 4 * torch.finfo(dtype).eps
    assert s[-3].isnan()
    assert s[-2] == 1
    assert 0 <= s[-1] < 1e-30


def test_a_row_that_is_no_number_stays_alone():
    net, x = network([8, 64, 20]), random(100, 8)
    x[60, 3] = torch.nan
    y, _ = net(x)
    assert y[60].isnan().all()
    assert y[[*range(60), *range(61, 100)]].isfinite().all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads):
    net, x = network([8, 64, 64, 640]), random(700, 8).requires_grad_()
    before, found = torch.get_num_threads(), []
    try:
        for n in (1, threads):
            torch.set_num_threads(n)
            y, saved = net(x)
            adjoint = net.adjoint(y.cos(), saved)
            found.append([y, adjoint, *torch.autograd.grad(grown(y) + grown(adjoint), [x, *net.parameters()])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def joined(n, channels):
    widths = (6, 70, 3)
    parts = [random(n, 2 * l + 1, d).requires_grad_() for l, d in enumerate(widths)]
    return parts, [random(d, channels).requires_grad_() for d in widths]


@pytest.mark.parametrize("n", [0, 1, 60])
@pytest.mark.parametrize("channels", [5, 64])
def test_joined_degrees_and_their_adjoint(n, channels):
    (parts, weights), g = joined(n, channels), random(n, 9, channels).requires_grad_()
    found = {}
    for mode in ("plain", "auto"):
        with kernels(mode):
            whole, back = join_degrees(parts, weights, 0.7), join_degrees_adjoint(g, weights, 0.7)
            loss = grown(whole) + sum(grown(x) for x in back)
            first = torch.autograd.grad(loss, [*parts, *weights, g], create_graph=True)
            second = torch.autograd.grad(sum(grown(x) for x in first), [*parts, *weights, g])
        found[mode] = [whole, *back, *first, *second]
    for plain, fast in zip(found["plain"], found["auto"], strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-11, atol=1e-11)


def test_joined_degrees_have_derivatives_of_any_order():
    parts, weights = joined(2, 2)
    g = random(2, 9, 2).requires_grad_()
    for function, given in (
        (lambda *x: ops.mix(list(x[:3]), list(x[3:]), 0.7), (*parts, *weights)),
        (lambda g, *w: tuple(ops.mix_adjoint(g, list(w), [1, 3, 5], 0.7)), (g, *weights)),
        (lambda g, *x: tuple(ops.mix_weights(list(x), g, 0.7)), (g, *parts)),
    ):
        assert gradcheck(function, given)
        assert gradgradcheck(function, given)


def test_compilers_are_told_the_truth():
    net, x = network([3, 5, 4]), random(6, 3).requires_grad_()
    weights = list(net.weights)
    hidden = [h.detach().requires_grad_(k % 2 == 0) for k, h in enumerate(ops.network(x, weights, 1.3)[1:])]
    g = random(6, 4).requires_grad_()
    t = [p.detach() for p in ops.network_adjoint(g, hidden, weights, 1.3)[1:]]
    parts, matrices = joined(4, 6)
    whole = random(4, 9, 6).requires_grad_()
    calls = {
        "network": (x, weights, 1.3),
        "network_adjoint": (g, hidden, weights, 1.3),
        "mix": (parts, matrices, 0.7),
        "mix_adjoint": (whole, matrices, [1, 3, 5], 0.7),
        "mix_weights": (parts, whole, 0.7),
    }
    for name, given in calls.items():
        torch.library.opcheck(getattr(ops, name).default, given, test_utils=CHECKS)
    with torch.no_grad():
        plain = [w.detach() for w in weights]
        hidden = [h.detach() for h in hidden]
        shapes = ("test_schema", "test_faketensor")
        for need in (True, False):
            given = (g.detach(), hidden[::2], x.detach(), hidden, plain, 1.3, need)
            torch.library.opcheck(ops.network_backward.default, given, test_utils=shapes)
        given = (x.detach(), g.detach(), hidden, t, plain, 1.3)
        torch.library.opcheck(ops.network_second.default, given, test_utils=shapes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.network(random(4, 3), [random(2, 5)], 1.0), "do not fit"),
        (lambda: ops.network(random(4, 3), [random(3, 5), random(4, 2)], 1.0), "do not fit"),
        (lambda: ops.network(random(4, 3).float(), [random(3, 5)], 1.0), "do not fit"),
        (lambda: ops.network_adjoint(random(4, 2), [], [random(3, 5), random(5, 2)], 1.0)[0], "wrong number"),
        (lambda: ops.mix([random(4, 1, 3)], [random(2, 5)], 1.0), "do not fit"),
        (lambda: ops.mix([random(4, 1, 3)], [], 1.0), "one matrix per part"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()
