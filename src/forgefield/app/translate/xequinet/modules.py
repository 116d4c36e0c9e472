"""XequiNet: its modules and where their parameters are here, for `finetune_modules`.

XequiNet trains each parameter whose name contains one of some words. Names begin with `mods.`, the module and, in it, a
layer; ours are other names of the same layers, so that a word can be followed wherever it takes whole layers.

Source:
    Names: X1X1010/XequiNet, xequinet/nn/model.py and the layers that it puts together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from forgefield.app.translate.xequinet.keys import KWARGS
from forgefield.app.translation import Given

SHORTEST = 3  # letters of a word; shorter ones are found in the names of weights too
NORMS = {"norm": "norm", "o3norm": "equivariant_norm"}
MESSAGE = {**NORMS, "scalar_mlp": "sender", "rbf_lin": "radial"}
UPDATE = {**NORMS, "update_U": "mix", "update_V": "mix", "dot_lin": "dot", "update_mlp": "network"}
EWALD_BLOCK = {"pre_mlp": "before", "norm": "norm", "up": "filter", "update_mlp": "after"}
ATTENTION = ("linear_q", "linear_k", "linear_v", "residual")
TENSOR = ("scalar_out_mlp", "equi_out_mlp")
OUTPUTS = {
    "energy": ("out_mlp",), "scalar": ("out_mlp",), "charges": ("out_mlp",), "atomic_charges": ("out_mlp",),
    "dipole": TENSOR, "polar": TENSOR, "spatial": ("scalar_out_mlp",),
    "cartesian": ("selfmix_tp", "weight_mlp", "post_lin"),
}  # fmt: skip
HEADS = {
    "charges": "charges", "atomic_charges": "charges", "polar": "polarizability", "scalar": "scalar",
    "spatial": "spatial_extent", "cartesian": "cartesian",
}  # fmt: skip


Layers = dict[str, tuple[str, ...]]  # our layer -> beginnings of the names of its parameters there; "" is the whole


class Module(NamedTuple):
    """A module of XequiNet.

    Args:
        ours: the same here, below `architecture.`; empty if only its layers are here.
        layers: below `ours`.
    """

    ours: str
    layers: Layers


class Found(NamedTuple):
    """What words take: regular expressions on our names; and words that cannot be followed."""

    patterns: list[str]
    strange: list[str]


def follow(words: Sequence[str], modules: Sequence[Module]) -> Found:
    """Return our names of what the words take. A layer of which they take a part only makes its words strange."""
    names = [name for module in modules for group in module.layers.values() for name in group]
    short = {word for word in words if not any(len(run) >= SHORTEST for run in re.findall("[A-Za-z]+", word))}
    unknown = {word for word in words if not any(word in name for name in names)}
    patterns, partly = list[str](), set[str]()
    for module in modules:
        taken = list[str]()
        for ours, group in module.layers.items():
            hits = [{word for word in words if word in name} for name in group]
            if all(hits):
                taken.append(ours)
            else:
                partly |= set[str]().union(*hits)
        if module.ours and len(taken) == len(module.layers):
            taken = [""]
        patterns += [rf"^architecture\.{_dotted(module.ours, ours)}\b" for ours in taken]
    return Found(patterns, [word for word in words if word in short | unknown | partly])


def _dotted(*names: str) -> str:
    return re.escape(".".join(name for name in names if name))


def modules_of(given: Given) -> list[Module]:
    """Return the modules of the model that the settings describe."""
    return [*_embeddings(given), *_blocks(given), *_outputs(given)]


def names_of(modules: Sequence[Module]) -> list[str]:
    """Return what they are called in XequiNet."""
    every = [name.split(".")[1] for module in modules for group in module.layers.values() for name in group]
    return list(dict.fromkeys(every))


def _embeddings(given: Given) -> Iterator[Module]:
    element = {"embedding.kinds": ""} if given[f"{KWARGS}.embed_basis"] == "one-hot" else {"embedding.map": "node_lin"}
    layers = {ours: _begin("embedding", [theirs]) for ours, theirs in {**element, "basis": "rbf"}.items()}
    yield Module("", layers)
    asked = [kind for kind in ("charge", "spin") if given[f"{KWARGS}.{kind}_embed"]]
    for place, kind in enumerate(asked):
        yield Module(f"embedding.electrons.{place}", {"": _begin(f"{kind}_embedding", ATTENTION)})


def _blocks(given: Given) -> Iterator[Module]:
    bare = set[str]() if given[f"{KWARGS}.layer_norm"] else {*NORMS}
    for k in range(given[f"{KWARGS}.action_blocks"]):
        without = bare | ({"o3norm"} if k == 0 else set[str]())  # there it acts on features that are zero
        yield Module(f"messages.{k}", _sorted(f"message_{k}", MESSAGE, without))
        yield Module(f"updates.{k}", _sorted(f"update_{k}", UPDATE, bare))
    if _has_ewald(given):
        blocks = given[f"{KWARGS}.ewald_blocks"]
        yield Module("ewald.projected", {"": _begin("ewald_initial", ["down_projection"])})
        for k in range(1 if blocks is None else blocks):
            yield Module(f"ewald.blocks.{k}", _sorted(f"ewald_{k}", EWALD_BLOCK, bare))


def _outputs(given: Given) -> Iterator[Module]:
    """One for each output; XequiNet has another after its Ewald blocks, where ours are all read."""
    modes = {f"output_{mode}": mode for mode in _listed(given[f"{KWARGS}.output_modes"])}
    if _has_ewald(given):
        late = given[f"{KWARGS}.ewald_output_mode"]
        modes |= {f"ewald_output_{mode}": mode for mode in _listed("energy" if late is None else late)}
    names: Layers = {}
    for module, mode in modes.items():
        place = _head(mode, given["trainer.losses_weight"])
        names[place] = (*names.get(place, ()), *_begin(module, OUTPUTS.get(mode, ("",))))
    for place, group in names.items():
        yield Module(place, {"": group})


def _head(mode: str, weights: Mapping[str, object]) -> str:
    """Return where an output is made here."""
    if mode == "energy":
        return mode
    return "heads.made." + (HEADS.get(mode) or ("dipole" if "dipole" in weights else "dipole_magnitude"))


def _sorted(module: str, table: Mapping[str, str], without: set[str]) -> Layers:
    """Sort a module's layers by ours."""
    found: Layers = {}
    for theirs, ours in table.items():
        if theirs not in without:
            found[ours] = (*found.get(ours, ()), *_begin(module, [theirs]))
    return found


def _begin(module: str, layers: Sequence[str]) -> tuple[str, ...]:
    """Return how the names of parameters of some layers begin."""
    return tuple(f"mods.{module}.{layer}." if layer else f"mods.{module}." for layer in layers)


def _listed(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]  # type: ignore[misc]


def _has_ewald(given: Given) -> bool:
    return str(given["model.model_name"]).lower() == "xpainn-ewald"
