"""Further elements and heads change nothing of what a model said before."""

import numpy as np
import pytest
import torch

from forgefield.core.elements import place_of
from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.export.prediction import predict
from forgefield.kernels.choice import kernels
from forgefield.models.bundle import load_bundle, save_bundle
from forgefield.models.potential import ARCHITECTURES, build_potential
from forgefield.models.widening import Growth, inventory, nearest_element, widen

E0 = {1: -13.5, 6: -1029.0, 8: -2041.0}
KINDS = [
    {},
    {"use_agnostic_product": True, "pair_repulsion": True},
    {"interaction_first": "plain", "interaction": "density_residual", "correlation": [2, 3]},
    {"num_interactions": 1, "use_reduced_cg": True},
]


def make(dtype=torch.float64, heads=("default",), **changes):
    block = {"hidden_irreps": "6x0e + 6x1o", "max_ell": 2, "correlation": 2, "radial_mlp": [8], **changes}
    return build_potential(
        "mace", ARCHITECTURES.entry("mace").settings.model_validate(block), elements=list(E0), heads=heads,
        reference_energies={h: {z: e + k for z, e in E0.items()} for k, h in enumerate(heads)},
        avg_num_neighbors=6.0, scale=[2.0 + k for k in range(len(heads))], shift=0.3, dtype=dtype, seed=3,
    )  # fmt: skip


def structures(symbols=(8, 1, 1, 6), head=None, n=4):
    random = np.random.default_rng(1)
    return [
        Structure(np.array(symbols * 3), 2.0 * random.normal(size=(3 * len(symbols), 3)), head=head) for _ in range(n)
    ]


def same(one, other):
    return all(
        a.energy == b.energy and np.array_equal(a.forces, b.forces) and np.array_equal(a.stress, b.stress)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("changes", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("code", ["auto", "plain"])
def test_old_elements_predict_the_same_to_the_bit(changes, dtype, code):
    old = make(dtype, **changes)
    with kernels(code):
        before = predict(old, structures())
        for row in ([6], [1, 6, 8]):
            assert same(predict(widen(old, Growth({9: row, 3: row})), structures()), before)


def test_a_new_element_begins_as_the_one_it_is_made_from():
    old = make()
    new = widen(old, Growth({9: [8]}))
    as_oxygen, as_fluorine = predict(old, structures()), predict(new, structures((9, 1, 1, 6)))
    for a, b in zip(as_oxygen, as_fluorine, strict=True):
        assert b.energy == pytest.approx(a.energy - 3 * E0[8], abs=1e-9)  # the new E0 is 0
        np.testing.assert_allclose(b.forces, a.forces, atol=1e-12)


def test_the_mean_is_the_mean():
    new = widen(make(), Growth({9: [1, 6, 8]}))
    weights = new.architecture.embedding
    torch.testing.assert_close(weights[3], weights[:3].mean(0))
    skip = new.architecture.layers[1].skip
    torch.testing.assert_close(skip[:, 3], skip[:, :3].mean(1))


@pytest.mark.parametrize("changes", KINDS)
def test_heads_are_added_copied_and_dropped(changes):
    old = make(heads=("low", "high"), **changes)
    new = widen(old, Growth(heads={"mine": "high"}, dropped=["low"]))
    assert new.heads == ["high", "mine"]
    before = predict(old, structures(head="high"))
    for head in ("high", "mine"):
        for a, b in zip(before, predict(new, structures(head=head)), strict=True):
            assert b.energy == pytest.approx(a.energy, abs=1e-9)
            np.testing.assert_allclose(b.forces, a.forces, atol=1e-11)


def test_a_new_head_learns_without_moving_the_others_readouts():
    new = widen(make(), Growth(heads={"mine": "default"}))
    before = predict(new, structures(head="default"))
    with torch.no_grad():
        for name, parameter in new.architecture.named_parameters():
            if name.startswith("readouts."):
                half = parameter.shape[-1] // 2
                parameter[..., half:] += 1.0
    assert same(predict(new, structures(head="default")), before)
    assert not same(predict(new, structures(head="mine")), before)


def test_a_widened_model_survives_the_disk_and_is_widened_again(tmp_path):
    old = make()
    new = widen(widen(old, Growth({9: [8]}, {"mine": "default"})), Growth({16: [8]}))
    save_bundle(new, tmp_path, provenance={})
    back = load_bundle(tmp_path)
    assert back.elements == [1, 6, 8, 9, 16]
    assert same(predict(back, structures(head="default")), predict(new, structures(head="default")))
    plain = widen(widen(old, Growth({9: [8]})), Growth({16: [8]}))
    assert same(predict(plain, structures()), predict(old, structures()))


def test_nothing_to_add_returns_the_model_itself():
    old = make()
    assert widen(old, Growth()) is old


def test_every_number_is_counted():
    old = make(heads=("low", "high"))
    growth = Growth({9: [8]}, {"mine": "high"}, ["low"])
    new = widen(old, growth)
    rows = inventory(old, new, growth)
    for potential, key in ((new, "new"), (old, "left")):
        tensors = [*potential.architecture.parameters(), potential.self_energies, potential.scale, potential.shift]
        assert sum(t.numel() for t in tensors) == sum(row.loaded + getattr(row, key) for row in rows)
    found = {row.name: row for row in rows}
    assert found["embedding"][2:] == (18, 6, 0, "F from O")
    assert found["self_energies"][2:5] == (3, 5, 3)
    assert found["layers.0.up"][2:] == (36, 0, 0, "")
    assert found["readouts.0.weight"].note == "head mine from high; head low left"


@pytest.mark.parametrize(
    ("growth", "words"),
    [
        (Growth({8: [1]}), "O cannot be added"),
        (Growth({9: [7]}), "F cannot be added from N"),
        (Growth(heads={"default": "default"}), "has a head 'default' already"),
        (Growth(heads={"mine": "other"}), "has no head 'other'"),
        (Growth(dropped=["other"]), "has no head 'other'"),
        (Growth(dropped=["default"]), "no head would be left"),
    ],
)
def test_what_cannot_be_added_is_refused(growth, words):
    with pytest.raises(ModelError, match=words):
        widen(make(), growth)


def test_an_architecture_that_does_not_say_how_is_refused(monkeypatch):
    old = make()
    monkeypatch.setattr(type(old.architecture), "indexed", lambda self: {})
    with pytest.raises(ModelError, match="does not say how its weight"):
        widen(old, Growth({9: [8]}))


@pytest.mark.parametrize(
    ("number", "known", "found"),
    [(9, [1, 6, 7, 8], 8), (16, [1, 6, 7, 8], 8), (14, [1, 6, 7, 8], 6), (17, [8, 9], 9), (79, [29, 78], 78),
     (58, [21, 72], 72), (35, [9, 53], 53)],
)  # fmt: skip
def test_nearest_in_the_periodic_table(number, known, found):
    assert nearest_element(number, known) == found


def test_places_in_the_periodic_table():
    places = {1: (1, 1), 2: (1, 18), 3: (2, 1), 5: (2, 13), 18: (3, 18), 26: (4, 8), 57: (6, 3), 71: (6, 3),
              72: (6, 4), 118: (7, 18)}  # fmt: skip
    assert {z: place_of(z) for z in places} == places
