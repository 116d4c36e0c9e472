"""The loss in words: what exactly is minimised, for the record and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forgefield.core.quantities import DERIVED, QUANTITIES, Quantity
from forgefield.train.keys.loss import keys_of

if TYPE_CHECKING:
    from forgefield.train.settings import TrainSettings

_SYMBOLS = {"energy": "ΔE", "forces": "ΔF"}
_SINGULAR = {"forces": "force", "charges": "charge", "spin_charges": "spin charge"}
_SHAPES = {
    "mse": "({d})²",
    "mae": "|{d}|",
    "huber": "huber({d}, delta {delta:g})",
    "smooth_l1": "smooth_l1({d}, beta {beta:g})",
    "l2mae": "‖{d}‖",
    "atomwisel2": "n·‖{d}‖",
}


def terms_in_words(settings: TrainSettings, stage: int = 1) -> list[str]:
    """Return each term of the loss of a stage as a weight and a formula; n is the number of atoms of a structure."""
    weights = settings.loss_weights(stage)
    return [f"{weight:g} · {_formula(name, settings)}" for name, weight in weights.items() if weight > 0]


def notes_in_words(settings: TrainSettings) -> list[str]:
    """Return what else is to be known of the loss: units, atoms left out, missing labels, the second stage."""
    notes = ["E in eV, F in eV/Å, stress in eV/Å³; n = atoms of the structure"]
    if settings.train_on_free_atoms:
        notes.append("atoms held fixed are left out of the force loss")
    if settings.tag_weights:
        factors = ", ".join(f"tag {tag}: {factor:g}" for tag, factor in sorted(settings.tag_weights.items()))
        notes.append(f"factors of atoms in the force loss: {factors} (0 = left out)")
    if settings.missing_labels == "mask":
        notes.append("means are over the labels present; structures may lack some")
    if settings.stage_two is not None:
        two = settings.stage_two
        terms = " + ".join(terms_in_words(settings, 2))
        average = "the equal average of the weights" if two.average == "equal" else "validated as before"
        notes.append(f"stage two, after {two.start} epochs at most: {terms}; learning rate {two.lr:g}; {average}")
    return notes


def _formula(name: str, settings: TrainSettings) -> str:
    kind, normalization = keys_of(settings, name)
    quantity = {**QUANTITIES, **DERIVED}.get(name)
    if quantity is None:
        kind = "squared error (cross entropy of a class)" if kind == "auto" else kind
        return f"{kind} of {name}, normalised {normalization or 'as the model declares'}"
    kind = "mse" if kind == "auto" else kind
    normalization = normalization or quantity.normalization
    d = _SYMBOLS.get(name, f"Δ{name}")
    if quantity.per == "structure" and normalization == "per_atom":
        d += "/n"
    values = (
        {}
        if kind not in ("huber", "smooth_l1")
        else {
            "delta": settings.shape_of("huber_delta", name) if kind == "huber" else 0.0,
            "beta": settings.shape_of("smooth_l1_beta", name) if kind == "smooth_l1" else 0.0,
        }
    )
    over, divided = _range(quantity, kind, normalization), "/√n" if normalization == "sqrt_atoms" else ""
    if kind == "mae_plus_rmse":
        return f"(mean over {over} of |{d}|{divided} + root of the mean of ({d})²{divided})"
    shape = _SHAPES.get(kind, kind + "({d})").format(d=d, **values)
    return f"mean over {over} of {shape}{divided}"


def _range(quantity: Quantity, kind: str, normalization: str) -> str:
    """Say what the mean is over."""
    lengths = kind in ("l2mae", "atomwisel2")
    parts = "structures" if quantity.per == "structure" else "atoms"
    if quantity.width > 1 and not lengths:
        parts = f"{_SINGULAR.get(quantity.name, quantity.name)} components"
    if quantity.per == "structure":
        return parts
    if kind == "atomwisel2" or normalization in ("total", "sqrt_atoms"):
        mean = "" if lengths or quantity.width == 1 else " of the mean over components"
        return f"structures of the sum over atoms{mean}"
    return f"structures of the mean over their {parts}" if normalization == "per_structure" else parts
