"""Names of parameters: those of AIMNet2mult that a regular expression finds, and the same ones of our AIMNet2."""

from __future__ import annotations

import re
from collections.abc import Iterator

from forgefield.app.translate.aimnet2mult.reading import Settings
from forgefield.core.errors import ConfigError

DECAYS = re.compile(r"convolve|passes\.\d+\.weights")
"""Names of ours that decay where a decay is asked for: matrices, without embeddings, readouts, shifts and biases."""


def pairs(given: Settings) -> list[tuple[str, str]]:
    """Return (name there, name here) of all parameters; where levels share a tensor here, it stands there for each."""
    levels = len([k for k in given.names("data.fidelity_datasets") if given.has(f"data.fidelity_datasets.{k}")])
    own = levels > 1 and given.get("use_fidelity_readouts", True)
    prefix = "module." if "forces" in [str(name) for name in given["data.y"]] else ""
    found = [(f"{prefix}{there}", f"architecture.{here}") for there, here in _shared(given)]
    starts = [f"fidelity_readouts.{k}" for k in range(levels)] if own else ["outputs"]
    for start in starts:
        found += [(f"{prefix}{start}.{there}", f"architecture.{here}") for there, here in _readout(given)]
    return found


def _shared(given: Settings) -> Iterator[tuple[str, str]]:
    yield "afv.weight", "embedding"
    yield "conv_a.agh", "convolve.mix"
    yield "conv_q.agh", "convolve_charges.mix"
    for k, widths in enumerate(given.get("model.kwargs.hidden", [])):
        for layer in range(len(widths) + 1):
            yield f"mlps.{k}.{2 * layer}.weight", f"passes.{k}.weights.{layer}"
            yield f"mlps.{k}.{2 * layer}.bias", f"passes.{k}.biases.{layer}"


def _readout(given: Settings) -> Iterator[tuple[str, str]]:
    block = "model.kwargs.outputs"
    for name in given.names(block):
        kind = str(given.get(f"{block}.{name}.class", "")).rpartition(".")[2]
        if kind == "AtomicShift":
            yield f"{name}.shifts.weight", "readout.shifts"
        elif kind == "Output":
            for layer in range(len(given.get(f"{block}.{name}.kwargs.mlp.hidden", [])) + 1):
                yield f"{name}.mlp.{2 * layer}.weight", f"readout.weights.{layer}"
                yield f"{name}.mlp.{2 * layer}.bias", f"readout.biases.{layer}"


def found_by(given: Settings, key: str, expression: str) -> list[str]:
    """Return our names of the parameters that an expression finds there, in order.

    Raises:
        ConfigError: it is no regular expression.
        LookupError: it finds none, or a part of what is one tensor here.
    """
    try:
        search = re.compile(expression).search
    except re.error as error:
        raise ConfigError(
            f"{key}: {expression!r} is not a regular expression: {error}", given.places.get(key)
        ) from None
    table = pairs(given)
    hits = dict.fromkeys(here for there, here in table if search(there))
    if not hits:
        raise LookupError("it finds no parameter of AIMNet2mult's model")
    if any(here in hits and not search(there) for there, here in table):
        raise LookupError("it finds the readouts of some levels alone, which are one tensor here")
    return list(hits)


def expression_of(names: list[str], given: Settings) -> str:
    """Return a short regular expression that finds these parameters of ours and no other."""
    every = list(dict.fromkeys(here for _, here in pairs(given)))
    left, words = set(names), []
    coarse = [
        "embedding$",
        r"convolve\.",
        r"convolve_charges\.",
        r"passes\.",
        r"readout\.",
        r"readout\.(weights|biases)\.",
    ]
    passes = sorted({name.split(".")[2] for name in every if ".passes." in name})
    fine = [rf"passes\.{k}\." for k in passes] + [r"readout\.shifts$"]
    for word in (*coarse, *fine, *(f"{re.escape(name.removeprefix('architecture.'))}$" for name in names)):
        matched = {name for name in every if re.search(rf"^architecture\.{word}", name)}
        if matched and matched <= set(names) and matched & left:
            words.append(word)
            left -= matched
    return rf"^architecture\.{words[0]}" if len(words) == 1 else rf"^architecture\.({'|'.join(words)})"
