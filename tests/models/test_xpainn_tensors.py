"""Tensors of XPaiNN that are not symmetric: they turn and reflect, begin as large as the others, are learned."""

import dataclasses

import numpy as np
import pytest
import torch
from test_xpainn_heads import EXACT, close, free, make, molecule, predict

from forgefield.core.errors import ModelError
from forgefield.core.quantities import QUANTITIES
from forgefield.graph.build import build_graph
from forgefield.models.architectures.xpainn.tensors import antisymmetric_basis, coupling, tensor_basis
from forgefield.models.bundle import load_bundle, save_bundle

BORN = free("born", "atom", (3, 3), rotates="tensor", symmetric=False)
WHOLE = free("whole", "structure", (3, 3), rotates="tensor", symmetric=False)
LIKE = dataclasses.replace(BORN, name="like", symmetric=True)
EVEN_ONLY = {"node_irreps": "6x0e + 4x2e"}


def parts(x):
    """Symmetric and antisymmetric part."""
    return (x + x.transpose(1, 2)) / 2.0, (x - x.transpose(1, 2)) / 2.0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("settings", [{}, EVEN_ONLY, {"hidden_irreps": "4x0e + 3x1o + 5x2e"}])
def test_they_turn_and_reflect(settings, sign):
    potential, turn = make([BORN, WHOLE], **settings), np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn = sign * np.linalg.det(turn) * turn
    here, there = predict(potential, molecule()).extra, predict(potential, molecule(turn=turn)).extra
    m = torch.as_tensor(turn)
    for name in ("born", "whole"):
        assert close(m @ here[name] @ m.T, there[name])
        assert all(float(part.abs().max()) > 1e-4 for part in parts(here[name]))
    assert here["born"].shape == (6, 3, 3)


def test_a_single_mirror_changes_no_sign_of_the_pseudovector():
    potential, mirror = make([BORN]), np.diag([1.0, 1.0, -1.0])
    _, here = parts(predict(potential, molecule()).extra["born"])
    _, there = parts(predict(potential, molecule(turn=mirror)).extra["born"])
    assert close(here[:, 0, 1], there[:, 0, 1])  # z of a pseudovector stays
    assert close(here[:, 0, 2], -there[:, 0, 2])  # y turns round
    flat = dataclasses.replace(molecule(), positions=molecule().positions * [1.0, 1.0, 0.0])
    _, inside = parts(predict(potential, flat).extra["born"])
    assert float(inside[:, :2, 2].abs().max()) < EXACT
    assert float(inside[:, 0, 1].abs().max()) > 1e-4


def test_sites_with_an_inversion_centre_have_it_too():
    """There degree 1 vanishes, and products of degree 2 remain."""
    around = np.array([[1.2, 0.1, 0.3], [-0.4, 1.3, 0.5]])
    site = dataclasses.replace(molecule(5), numbers=[6, 8, 8, 14, 14], positions=np.concatenate([[[0.0, 0.0, 0.0]], *(
        [[r, -r] for r in around])]))  # fmt: skip
    _, turned = parts(predict(make([BORN]), site).extra["born"])
    assert float(turned[0].abs().max()) > 1e-7  # rounding leaves 1e-17


def test_the_couplings_are_those_of_vectors_and_matrices():
    rng = torch.Generator().manual_seed(0)
    basis, x, y = antisymmetric_basis().reshape(3, 3, 3), *torch.randn(2, 3, 3, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(torch.einsum("aij,bij->ab", basis, basis), torch.eye(3, dtype=torch.float64))
    for degree in (1, 2):
        u, w = torch.randn(2, 2 * degree + 1, generator=rng, dtype=torch.float64)
        found = torch.einsum("a,b,abk,kij->ij", u, w, coupling(degree), basis)
        if degree == 1:
            x, y = (v @ tensor_basis(1)[0] for v in (u, w))
            expected = torch.outer(x, y) - torch.outer(y, x)
        else:
            x, y = ((v @ tensor_basis(2)[1]).reshape(3, 3) for v in (u, w))
            expected = x @ y - y @ x
        ratio = float((found * expected).sum() / expected.square().sum())
        torch.testing.assert_close(found, ratio * expected)
        assert abs(ratio) > 0.5


def test_both_parts_begin_alike():
    """Root mean squares of orthonormal components, over models and molecules."""
    sums = np.zeros(2)
    for seed in range(4):
        torch.manual_seed(seed)
        found = predict(make([BORN], node_irreps="64x0e + 32x1o + 16x2e"), *(molecule(12, seed=k) for k in range(6)))
        symmetric, turned = parts(found.extra["born"])
        sums += [float(symmetric.square().sum()) / 6, float(turned.square().sum()) / 3]
    assert 0.4 < (sums[1] / sums[0]) ** 0.5 < 2.5


def test_every_weight_is_reached_named_and_kept(tmp_path):
    potential = make([BORN, WHOLE], energy=True)
    structures = [molecule(), molecule(4, seed=3), molecule(1)]
    out = potential(build_graph(structures, potential.needs, dtype=torch.float64))
    sum((v**2).sum() for v in (out.energy, out.forces, *out.extra.values())).backward()
    assert [n for n, p in potential.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)] == []
    named = {n for n in potential.architecture.head_parameters() if ".turns." in n}
    assert named == {n for n, _ in potential.architecture.named_parameters() if ".turns." in n}
    assert len(named) == 2 * (2 + 2 + 1 + 4)
    alone = out.extra["born"][-1].detach()
    assert close(alone, alone.T)
    save_bundle(potential, tmp_path, provenance={})
    again = load_bundle(tmp_path)
    assert again.aims.targets == (BORN, WHOLE)
    a, b = predict(potential, molecule()).extra, predict(again, molecule()).extra
    assert all(torch.equal(a[name], b[name]) for name in ("born", "whole"))


def test_symmetric_targets_stay_so():
    found = predict(make([LIKE, QUANTITIES["polarizability"]]), molecule()).extra
    assert all(close(value, value.transpose(1, 2)) for value in found.values())


def test_other_ranks_are_refused():
    cube = free("cube", shape=(3, 3, 3), rotates="tensor", symmetric=False)
    with pytest.raises(ModelError, match="cube is a tensor of rank 3 that is not symmetric"):
        make([cube])


def labelled(seed):
    """A molecule; for each atom A B^T - B A^T, sums of its bonds of which B weighs elements, plus a sum of r r^T."""
    found = molecule(7, seed=seed)
    r = found.positions[None, :] - found.positions[:, None]
    d = np.linalg.norm(r, axis=2)
    near = np.where((d > 0) & (d < 3.5), (1 - (d / 3.5) ** 2) ** 2, 0.0)
    a = (near[..., None] * r).sum(1)
    b = (near[..., None] * r * (found.numbers / 4.0 - 2.0)[:, None]).sum(1)
    symmetric = np.einsum("ij,ijk,ijl->ikl", near, r, r)
    return found, a[:, :, None] * b[:, None, :] - b[:, :, None] * a[:, None, :] + symmetric


def test_a_tensor_that_is_not_symmetric_is_learned():
    """No symmetric prediction has a smaller error than the antisymmetric part of the labels."""
    known, other = ([labelled(k) for k in range(*ends)] for ends in ((0, 40), (40, 60)))
    t, u = (torch.as_tensor(np.concatenate([x for _, x in rows])) for rows in (known, other))
    scale = float(t.square().mean().sqrt())
    potential = make([BORN], node_dim=16, node_irreps="16x0e + 16x1o + 8x2e", hidden_dim=16, action_blocks=2)
    graph, unseen = (build_graph([s for s, _ in rows], potential.needs, dtype=torch.float64) for rows in (known, other))
    optimizer = torch.optim.Adam(potential.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=250)
    for _ in range(250):
        optimizer.zero_grad()
        (potential(graph).extra["born"] - t / scale).square().mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        error = float((scale * potential(unseen).extra["born"] - u).square().mean().sqrt())
    least = float(parts(u)[1].square().mean().sqrt())
    assert error < 0.35 * least  # 0.19 was found
