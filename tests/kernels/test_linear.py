"""Linear maps of rows, degrees and elements: the C++ operator does what plain PyTorch does, derivatives included."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from forgefield.kernels.choice import kernels
from forgefield.kernels.library import load
from forgefield.kernels.operators import ops
from forgefield.models.blocks.linear import map_degrees, map_elements, map_rows

pytestmark = pytest.mark.skipif(load().path is None, reason=f"no compiled operators: {load().words}")
SIZES = [(1, 1, 1), (7, 3, 5), (50, 8, 64), (97, 64, 130), (300, 200, 17), (5, 640, 64), (0, 4, 6)]


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def both(function):
    """The result in C++ and in plain PyTorch."""
    own = function()
    with kernels("plain"):
        return own, function()


def close(a, b):
    tolerance = 1e-13 if a.dtype == torch.float64 else 1e-6
    largest = max(float(b.abs().max()), 1.0) if b.numel() else 1.0
    return a.shape == b.shape and bool(((a - b).abs() <= 20 * tolerance * largest).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("rows", "depth", "columns"), SIZES)
@pytest.mark.parametrize("transpose", [False, True])
def test_rows_of_any_size(rows, depth, columns, transpose, dtype):
    x, w = random(rows, depth, dtype=dtype), random(depth, columns, dtype=dtype)
    w = w.T.contiguous() if transpose else w
    own, plain = both(lambda: map_rows(x, w, 0.7, transpose))
    assert own.grad_fn is None
    assert close(own, plain)
    assert close(plain, 0.7 * (x @ (w.T if transpose else w)))


@pytest.mark.parametrize("degrees", [[0], [1], [0, 1, 2], [0, 2]])
@pytest.mark.parametrize("transpose", [False, True])
def test_one_matrix_per_degree(degrees, transpose):
    x = random(11, sum(2 * l + 1 for l in degrees), 6).transpose(0, 1).contiguous().transpose(0, 1)
    w = random(len(degrees), *((9, 6) if transpose else (6, 9)))
    own, plain = both(lambda: map_degrees(x, w, degrees, 0.3, transpose))
    assert close(own, plain)


@pytest.mark.parametrize(("given", "wanted"), [([0], [0, 1]), ([0, 1, 2], [0]), ([0, 1], [0, 1]), ([1, 2], [0, 2])])
@pytest.mark.parametrize("counts", [[4, 0, 7], [0, 11, 0], [11, 0, 0]])
@pytest.mark.parametrize("transpose", [False, True])
def test_one_matrix_per_degree_and_element(given, wanted, counts, transpose):
    mapped = [l for l in wanted if l in given]
    x, counts = random(11, sum(2 * l + 1 for l in given), 5), torch.tensor(counts)
    w = random(len(mapped), 3, *((8, 5) if transpose else (5, 8)))
    own, plain = both(lambda: map_elements(x, w, given, wanted, counts, 1.5, transpose))
    assert own.shape == (11, sum(2 * l + 1 for l in wanted), 8)
    assert close(own, plain)


@pytest.mark.parametrize("transpose", [False, True])
def test_gradients_of_both_orders(transpose):
    x, counts = random(6, 4, 3).requires_grad_(), torch.tensor([2, 0, 4])
    w = random(2, 3, *((5, 3) if transpose else (3, 5))).requires_grad_()

    def function(x, w):
        return map_elements(x, w, [0, 1], [0, 1, 2], counts, 0.8, transpose)

    assert gradcheck(function, (x, w))
    assert gradgradcheck(function, (x, w))
    for order in (1, 2):
        found = []
        for kind in ("auto", "plain"):
            with kernels(kind):
                value = function(x, w).pow(3).sum()
                for _ in range(order):
                    value = sum(g.pow(2).sum() for g in torch.autograd.grad(value, (x, w), create_graph=True))
                found.append(torch.autograd.grad(value, (x, w)))
        assert all(close(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads):
    x, w = random(2000, 64, dtype=torch.float32), random(64, 64, dtype=torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for n in (1, threads):
            torch.set_num_threads(n)
            found.append(
                (map_rows(x, w), ops.linear_weights(x, x, torch.zeros(0).long(), [1, 1, 0, 0], 1.0, False, [64, 64]))
            )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_not_a_number_stays_one_and_stays_where_it_is():
    x, w = random(20, 64), random(64, 64)
    x[3, 5] = torch.nan
    out = map_rows(x, w)
    assert out[3].isnan().all()
    assert out[[0, 1, 2, *range(4, 20)]].isfinite().all()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("linear", (random(6, 4, 3), random(2, 2, 3, 5), torch.tensor([2, 4]), [4, 1, 0, 0, 3, 1, 1], 0.5, False)),
        (
            "linear_weights",
            (random(6, 4, 3), random(6, 4, 5), torch.tensor([2, 4]), [4, 1, 0, 0, 3, 1, 1], 0.5, False, [2, 2, 3, 5]),
        ),
    ],
)
def test_compilers_are_told_the_truth(name, arguments):
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    inputs = tuple(
        a.clone().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments
    )
    torch.library.opcheck(getattr(ops, name).default, inputs, test_utils=checks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": [4, 1, 0, 0, 3, 2, 1]}, "outside"),
        ({"counts": torch.tensor([2, 3])}, "add up"),
        ({"x": random(6, 4, 3).float()}, "do not fit"),
        ({"blocks": [4, 1, 0, 0]}, "one matrix per block"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {
        "x": random(6, 4, 3),
        "weights": random(2, 2, 3, 5),
        "counts": torch.tensor([2, 4]),
        "blocks": [4, 1, 0, 0, 3, 1, 1],
    }
    with pytest.raises(RuntimeError, match=message):
        ops.linear(*(given | change).values(), 1.0, False)
