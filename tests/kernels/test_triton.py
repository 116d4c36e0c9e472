# ruff: noqa: E402
"""The Triton kernels, in Triton's interpreter on the CPU, against the C++ operators in float64."""

from itertools import product

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed: its kernels cannot be run or interpreted")

from forgefield.core.errors import ModelError
from forgefield.kernels.library import load
from forgefield.kernels.operators import ops
from forgefield.kernels.polynomials import polynomial_plan, read_plan
from forgefield.kernels.triton import contraction, edge_product, gated
from forgefield.kernels.triton.edge_source import Form, groups

pytestmark = [
    pytest.mark.skipif(load().path is None, reason="no C++ operators to compare with"),
    pytest.mark.skipif(
        type(triton.language.sum).__name__ != "InterpretedFunction",
        reason="Triton is not interpreted here: a GPU is there (see test_triton_gpu.py), or it was imported before",
    ),
]
SHAPES = [([0], 0, 1), ([0], 1, 33), ([0], 3, 3), ([0, 1], 1, 70), ([0, 1], 2, 5), ([1], 2, 4), ([0, 3], 1, 2)]


@pytest.mark.parametrize(("degrees", "max_degree", "channels"), SHAPES)
def test_edge_product(degrees, max_degree, channels, EdgeCase, same):
    case = EdgeCase(degrees, max_degree, channels)
    same(edge_product.edge_product(*case.factors, *case.table), ops.edge_product(*case.factors, *case.table))


@pytest.mark.parametrize(("degrees", "max_degree", "channels"), SHAPES)
def test_edge_product_adjoint(degrees, max_degree, channels, EdgeCase, same):
    case = EdgeCase(degrees, max_degree, channels)
    given = (case.g, *case.factors, *case.table, True, True)
    same(edge_product.edge_product_adjoint(*given), ops.edge_product_adjoint(*given))


@pytest.mark.parametrize(("degrees", "max_degree", "channels"), SHAPES)
def test_edge_product_second(degrees, max_degree, channels, EdgeCase, same):
    case = EdgeCase(degrees, max_degree, channels)
    given = (case.g, *case.factors, *case.directions, *case.table, True, True)
    same(edge_product.edge_product_second(*given), ops.edge_product_second(*given))


@pytest.mark.parametrize("needs", list(product((True, False), repeat=2)))
def test_gradients_that_are_not_needed_are_empty(needs, EdgeCase, same):
    case = EdgeCase([0, 1], 1, 3)
    given = (case.g, *case.factors, *case.table, *needs)
    same(edge_product.edge_product_adjoint(*given), ops.edge_product_adjoint(*given))


@pytest.mark.parametrize("there", list(product((True, False), repeat=3)))
def test_directions_that_are_not_there_count_as_zero(there, EdgeCase, same):
    case = EdgeCase([0, 1], 1, 3)
    directions = [v if t else None for v, t in zip(case.directions, there, strict=True)]
    given = (case.g, *case.factors, *directions, *case.table, True, True)
    same(edge_product.edge_product_second(*given), ops.edge_product_second(*given))


@pytest.mark.parametrize("n", [0, 1, 4])
def test_atoms_without_pairs(n, EdgeCase, same):
    case = EdgeCase([0, 1], 1, 3, pairs=[], n=n)
    same(edge_product.edge_product(*case.factors, *case.table), ops.edge_product(*case.factors, *case.table))
    given = (case.g, *case.factors, *case.table, True, True)
    same(edge_product.edge_product_adjoint(*given), ops.edge_product_adjoint(*given))


def test_paths_in_several_groups(monkeypatch, EdgeCase, same):
    """With few rows to a group, paths of one feature degree are added up over groups."""
    monkeypatch.setattr(edge_product, "MOST_ROWS", 20)
    assert sum(g.paths[0].feature == 1 for g in groups(Form((0, 1), 2, 10))) > 2
    case = EdgeCase([0, 1], 2, 3)
    given = (case.g, *case.factors, *case.directions, *case.table, True, True)
    same(edge_product.edge_product_second(*given), ops.edge_product_second(*given))
    same(edge_product.edge_product_adjoint(case.g, *case.factors, *case.table, True, True),
         ops.edge_product_adjoint(case.g, *case.factors, *case.table, True, True))  # fmt: skip


def test_highest_degrees(EdgeCase, same):
    case = EdgeCase([6], 6, 1, pairs=[(0, 1)], n=2)
    same(edge_product.edge_product(*case.factors, *case.table), ops.edge_product(*case.factors, *case.table))


def test_unknown_plan_is_an_error(EdgeCase):
    case = EdgeCase([0], 1, 1)
    with pytest.raises(ModelError, match="no edge plan"):
        edge_product.edge_product(*case.factors, *case.table[:-2], [4], 4)


# -- contraction -----------------------------------------------------------------------------------------------

CONTRACTIONS = [(0, [0], 1, 2), (1, [0], 3, 5), (1, [0, 1], 2, 70), (2, [0], 2, 3), (1, [0], 4, 2)]


@pytest.mark.parametrize(("max_degree", "degrees", "correlation", "channels"), CONTRACTIONS)
def test_contraction(max_degree, degrees, correlation, channels, contraction_case, same):
    x, c, g, v, sets, plan = contraction_case(max_degree, degrees, correlation, channels)
    given = (x, c, sets, plan, g.shape[1])
    same(contraction.contraction(*given), ops.contraction(*given))
    for need in (True, False):
        given = (g, x, c, sets, plan, need)
        same(contraction.contraction_adjoint(*given), ops.contraction_adjoint(*given))
    given = (g, x, c, v, sets, plan)
    same(contraction.contraction_second(*given), ops.contraction_second(*given))


def test_contraction_without_atoms(contraction_case, same):
    x, c, g, v, sets, plan = contraction_case(1, [0], 2, 3)
    given = (g[:0], x[:0], c, v[:0], sets[:0], plan)
    same(contraction.contraction_second(*given), ops.contraction_second(*given))


@pytest.mark.parametrize("terms", [[(0, (0,))], [(0, (0, 0, 2)), (1, (1,)), (0, (0, 0, 1)), (1, (0, 2)), (0, (2,))]])
def test_plans_are_read_back(terms):
    plan, order = polynomial_plan(terms, 3, 2)
    assert read_plan(plan) == (3, 2, [terms[k] for k in order])


# -- silu ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 3), (1,), (37, 5), (3, 1024)])
def test_gated(shape, same):
    torch.manual_seed(0)
    x, g_value, g_slope = (3.0 * torch.randn(shape, dtype=torch.float64) for _ in range(3))
    same(gated.gated(x, 1.68), ops.gated(x, 1.68))
    for g in product((g_value, None), (g_slope, None)):
        given = (*g, x, torch.sigmoid(x), 1.68)
        same(gated.gated_backward(*given), ops.gated_backward(*given))
