"""XequiNet: what is minimised. Its errors are in the units of `default_units`, ours in eV and Å, so weights change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forgefield.app.translate.xequinet.keys import KWARGS
from forgefield.app.translation import Given, Remark, Sheet
from forgefield.core.units import factor
from forgefield.data.unit_expressions import named_unit

KINDS = {
    "mae": "mae", "l1": "mae", "mse": "mse", "l2": "mse", "smoothl1": "smooth_l1", "matloss": "mae_plus_rmse",
}  # fmt: skip
TARGETS = {
    "virial": "virial", "charges": "charges", "atomic_charges": "charges", "dipole": "dipole",
    "polar": "polarizability", "magnitude": "dipole_magnitude",
}  # fmt: skip
"""Properties that are known quantities here."""
OWN: dict[str, dict[str, Any]] = {
    "scalar": {"per": "structure"}, "spatial": {"per": "structure"},
    "cartesian": {"per": "structure", "components": 9, "rotates": "tensor"},
}  # fmt: skip
NAMES = {"spatial": "spatial_extent"}


def losses(given: Given, sheet: Sheet) -> None:
    """One weight for each property, and the kind of all."""
    weights = given["trainer.losses_weight"]
    if not isinstance(weights, dict) or not weights:
        raise given.wrong(
            "trainer.losses_weight", "is empty", "give a weight for each property, {energy: 1, forces: 100}"
        )
    kind = _kind(given)
    found: dict[str, float] = {}
    targets: dict[str, dict[str, Any]] = {}
    keys: dict[str, dict[str, Any]] = {}
    for name, weight in weights.items():
        _one(given, sheet, str(name), float(weight), kind, found, targets, keys)
    _energies(given, sheet, found, kind)
    if keys:
        sheet.put("data.targets", keys, "names in the records")
    if targets:
        sheet.put("train.targets", targets)
    _betas(given, sheet)
    sheet.put("train.best_metric", "loss", "the validation loss; XequiNet takes the weighted mean absolute errors")


def _kind(given: Given) -> str:
    name = str(given["trainer.lossfn"]).lower()
    if name not in KINDS:
        raise given.wrong("trainer.lossfn", f"got {name!r}", f"give one of {', '.join(KINDS)}")
    return KINDS[name]


def scale_of(given: Given, name: str) -> float:
    """Return what a number in eV, Å or e is multiplied by to be in XequiNet's default unit of a property."""
    declared = given["model.default_units"]
    units = declared if isinstance(declared, dict) else {}

    def of(quantity: str, key: str) -> float:
        return (
            1.0 if key not in units else 1.0 / factor(quantity, named_unit(quantity, str(units[key]), "default_units"))
        )

    energy, length = of("energy", "energy"), of("length", "pos")
    scales: dict[str, Callable[[], float]] = {
        "forces": lambda: energy / length, "stress": lambda: energy / length**3,
        "dipole": lambda: of("dipole", "dipole"), "magnitude": lambda: of("dipole", "dipole"),
        "polar": lambda: of("polarizability", "polar"),
    }  # fmt: skip
    if name in ("energy", "energy/atom", "virial"):
        return energy
    return scales[name]() if name in scales else 1.0


def _one(
    given: Given, sheet: Sheet, name: str, weight: float, kind: str, found: dict[str, float],
    targets: dict[str, Any], keys: dict[str, Any],
) -> None:  # fmt: skip
    """Put one property where it belongs."""
    scale = scale_of(given, name)
    ours = weight * (scale**2 if kind == "mse" else scale)
    if name in ("energy", "energy/atom", "forces", "stress"):
        found[name] = ours
        return
    if name in TARGETS:
        block: dict[str, Any] = {"weight": ours, "loss": kind}
        if name == "virial":
            block["normalization"] = "total"
        targets[TARGETS[name]] = block
    elif name in OWN:
        own = NAMES.get(name, name)
        general = name == "cartesian" and str(given[f"{KWARGS}.symmetry"]).replace(" ", "") != "ij=ji"
        keys[own] = {"key": name, **OWN[name], **({"symmetric": False} if general else {})}
        targets[own] = {"weight": ours, "loss": kind}
    else:
        known = ", ".join(("energy", "energy/atom", "forces", "stress", *TARGETS, *OWN))
        why = f"no property of that name; known: {known}. Declare it under data.targets and train.targets"
        sheet.lost.append(Remark(f"trainer.losses_weight.{name}", weight, why))
        return


def _energies(given: Given, sheet: Sheet, found: dict[str, float], kind: str) -> None:
    """Energies per structure or per atom, forces, stress."""
    both = "energy" in found and "energy/atom" in found
    if both:
        why = "a second loss of the energy; there is one, per atom or per structure"
        sheet.lost.append(Remark("trainer.losses_weight.energy/atom", found["energy/atom"], why))
    per_atom = "energy/atom" in found and not both
    energy = found.get("energy/atom" if per_atom else "energy", 0.0)
    changed = any(scale_of(given, name) != 1.0 for name in found)
    note = "weights as they are for errors in eV and Å" if changed else ""
    sheet.put("train.energy_weight", energy, note)
    sheet.put("train.force_weight", found.get("forces", 0.0))
    sheet.put("train.stress_weight", found.get("stress", 0.0), "of virial / V" if "stress" in found else "")
    of_energy = "energy errors per atom" if per_atom else "errors of the whole energy, as in XequiNet"
    if energy:
        sheet.put("train.energy_normalization", "per_atom" if per_atom else "total", of_energy)
    for name in ("energy", "force", "stress"):
        sheet.put(f"train.loss_{name}", kind)


def _betas(given: Given, sheet: Sheet) -> None:
    """Write the errors, in our units, at which smooth L1 turns linear, where XequiNet's units are others."""
    if sheet.lines["train.loss_energy"].value != "smooth_l1":
        return
    names = {"energy": "energy", "forces": "forces", "stress": "stress"}
    names |= {TARGETS.get(name, NAMES.get(name, name)): name for name in given["trainer.losses_weight"]}
    own = sheet.lines["train.targets"].value if "train.targets" in sheet.lines else {}
    found = {
        ours: 1.0 / scale_of(given, name)
        for ours, name in names.items()
        if ours in ("energy", "forces", "stress", *own)
    }
    if any(value != 1.0 for value in found.values()):
        sheet.put("train.smooth_l1_beta", found, "1 in XequiNet's units")
