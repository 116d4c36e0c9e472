"""finetune_modules of XequiNet: words in its parameters' names become patterns on ours, or are refused."""

import pytest
import torch
from test_translate_xequinet import folder, lost, run_of, stand_in, values  # noqa: F401  fixtures among them

from forgefield.core.quantities import QUANTITIES
from forgefield.models.potential import build_potential
from forgefield.models.targets import Aims
from forgefield.train.groups import choose_trained

KWARGS = {
    "node_dim": 8, "node_irreps": "6x0e + 5x1o + 3x2e", "num_basis": 6, "hidden_dim": 7, "action_blocks": 2,
}  # fmt: skip
CASES = {
    "plain": {},
    "electrons": {"charge_embed": True, "spin_embed": True, "embed_basis": "one-hot", "rbf_kernel": "gaussian"},
    "bare": {"layer_norm": False, "rbf_kernel": "expbern"},
    "outputs": {"output_modes": ["energy", "atomic_charges", "dipole", "polar"], "conservation": False},
    "ewald": {"num_k_points": [1, 1, 1], "ewald_blocks": 2},
}
TARGETS = {"atomic_charges": "charges", "dipole": "dipole", "polar": "polarizability"}


def settings(name, *words):
    """Settings of a case with words; `model_kwargs` as a whole."""
    modes = CASES[name].get("output_modes", ["energy"])
    return {
        "model__model_name": "xpainn-ewald" if name == "ewald" else "xpainn",
        "model__model_kwargs": {**KWARGS, **CASES[name]},
        "trainer__losses_weight": {"energy": 1.0, "forces": 1.0, **{m: 1.0 for m in modes if m != "energy"}},
        "trainer__finetune_modules": list(words),
    }


def potential_of(run, name):
    targets = [QUANTITIES[TARGETS[m]] for m in CASES[name].get("output_modes", []) if m != "energy"]
    return build_potential(
        "xpainn", run.model.settings, elements=[1, 6], reference_energies={"default": {1: -1.0, 6: -2.0}},
        avg_num_neighbors=5.0, aims=Aims(tuple(targets), True), dtype=torch.float64, seed=1,
    )  # fmt: skip


def trained(folder, name, *words):  # noqa: F811
    """Names of the parameters that the translated run trains."""
    run = run_of(folder, **settings(name, *words))
    potential = potential_of(run, name)
    choose_trained(potential, run.train)
    return {n.removeprefix("architecture.") for n, p in potential.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", CASES)
def test_every_module_alone_and_all_together_are_all_parameters_once(folder, name):  # noqa: F811
    run = run_of(folder, **settings(name, "mods"))
    every = {n.removeprefix("architecture.") for n, _ in potential_of(run, name).named_parameters()}
    assert trained(folder, name, "mods") == every
    words = ["embedding.", "charge_embedding", "spin_embedding", "message_0", "message_1", "update_0", "update_1"]
    words += ["output_energy", "output_atomic", "output_dipole", "output_polar", "ewald_0", "ewald_1", "ewald_initial"]
    there = [w for w in words if "finetune_modules" not in "".join(lost(folder, **settings(name, w)))]
    assert len(there) == {"plain": 6, "electrons": 8, "bare": 6, "outputs": 9, "ewald": 9}[name]
    parts = [trained(folder, name, word) for word in there if word != "embedding." or name != "electrons"]
    found = set().union(*parts)
    assert sum(map(len, parts)) == len(found)
    left = {n for n in every - found if not n.startswith(("embedding.kinds", "basis."))}
    assert not left


@pytest.mark.parametrize(
    ("name", "words", "begin"),
    [
        ("plain", ["output"], ["energy."]),
        ("plain", ["message_1", "output_energy"], ["messages.1.", "energy."]),
        ("plain", ["update"], ["updates.0.", "updates.1."]),
        ("plain", ["update_1.update_mlp", "update_1.dot_lin"], ["updates.1.network.", "updates.1.dot."]),
        ("plain", ["update_U", "update_V"], ["updates.0.mix.", "updates.1.mix."]),
        ("plain", ["rbf"], ["basis.", "messages.0.radial.", "messages.1.radial."]),
        ("plain", ["message_1.norm"], ["messages.1.norm."]),
        ("electrons", ["spin_embedding"], ["embedding.electrons.1."]),
        ("electrons", ["embed"], ["embedding.", "basis."]),
        ("outputs", ["output_atomic_charges"], ["heads.made.charges."]),
        ("outputs", ["output_dipole", "output_polar"], ["heads.made.dipole.", "heads.made.polarizability."]),
        ("ewald", ["ewald_0"], ["ewald.blocks.0."]),
        ("ewald", ["output"], ["energy."]),
    ],
)
def test_words_take_the_same_layers(folder, name, words, begin):  # noqa: F811
    run = run_of(folder, **settings(name, *words))
    every = {n.removeprefix("architecture.") for n, _ in potential_of(run, name).named_parameters()}
    wanted = {n for n in every if n.startswith(tuple(begin))}
    assert wanted
    assert trained(folder, name, *words) == wanted


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("plain", "update_U"),  # U and V are one map here
        ("plain", "scalar_mlp.0"),  # a part of a layer
        ("plain", "_0"),
        ("plain", "bias"),
        ("plain", "spin_embedding"),  # the model has none
        ("plain", "message_0.o3norm"),  # it acts on nothing
        ("bare", "o3norm"),
        ("ewald", "ewald_output"),  # one output here, after the blocks
        ("outputs", "output_dipole.scalar_out_mlp"),
    ],
)
def test_words_for_anything_else_are_refused_with_the_modules(folder, name, word):  # noqa: F811
    told = lost(folder, **settings(name, "message_1", word))["trainer.finetune_modules"]
    assert f"{word!r}: no word for whole layers" in told
    assert "message_1" not in told.split(":")[0]
    assert "Modules of this model: embedding, " in told
    assert "output_energy" in told
    assert "train.finetune_modules" not in values(folder, **settings(name, word))


def test_more_than_ten_blocks(folder):  # noqa: F811
    """A word takes what it takes in XequiNet: message_1 is found in message_10 too."""
    changed = settings("plain", "message_1")
    changed["model__model_kwargs"] = {**KWARGS, "action_blocks": 12}
    assert values(folder, **changed)["train.finetune_modules"] == [
        rf"^architecture\.messages\.{k}\b" for k in (1, 10, 11)
    ]
