"""alignn: what a trained model is, from the config.json beside its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from forgefield.app.translate.alignn.data import ADDITIONAL, ATOMWISE, TARGET
from forgefield.app.translate.alignn.losses import is_force_field
from forgefield.app.translate.alignn.model import CAPPED, model
from forgefield.app.translation import Given, Sheet, open_dialect
from forgefield.core.elements import number
from forgefield.core.errors import ConfigError, ForgeError, ModelError
from forgefield.core.quantities import Quantity
from forgefield.models.architectures.alignn.elements import element_features
from forgefield.models.architectures.alignn.settings import AlignnSettings, AtomFeatures
from forgefield.models.targets import Aims

SETTINGS = "config.json"
FEATURES = "extra_features"
EVERY, LAST = "all", 103


class Described(NamedTuple):
    """A model in our words.

    Args:
        settings: of the model.
        aims: what it predicts.
        warnings: why predictions may be others than alignn's.
        notes: what else is meant otherwise here.
    """

    settings: AlignnSettings
    aims: Aims
    warnings: list[str]
    notes: list[str]


def describe(weights: Path) -> Described:
    """Read the settings of alignn that stand beside its weights.

    Raises:
        ConfigError: there are none, or the model has parts that are not built here.
    """
    path = weights.parent / SETTINGS
    if not path.is_file():
        fix = f"put the {SETTINGS} of the same training beside {weights.name}"
        raise ConfigError(f"alignn's settings are needed to know what {weights.name} is", str(path), fix)
    given = open_dialect("alignn").read([str(path)])
    sheet = Sheet(weights.parent.absolute())
    model(given, sheet)
    factor = given["target_multiplication_factor"]
    if factor not in (None, 1.0):
        what = f"got {factor}: this model's numbers are multiplied by it"
        raise given.wrong("target_multiplication_factor", what, "retrain it here")
    if sheet.lost:
        raise ConfigError("\n".join(f"{given.places.get(r.key, path)}: {r.key}: {r.why}" for r in sheet.lost))
    aims = _aims(given)
    return Described(_settings(given, sheet, path), aims, list(_warnings(given, aims)), _notes(sheet))


def elements_of(words: str | None, features: AtomFeatures) -> list[int]:
    """Read `--elements Si,O`; `all` stands for all elements that have features.

    Raises:
        ConfigError: there are none, or one is unknown.
    """
    names = [word.strip() for word in (words or "").split(",") if word.strip()]
    fix = "name those of the training data, for example --elements Si,O; or all"
    if not names:
        raise ConfigError(
            "neither weights nor settings of alignn say which elements it was trained on", "--elements", fix
        )
    if names == [EVERY]:
        return [z for z in range(1, LAST + 1) if _has_features(z, features)]
    try:
        return sorted({number(name) for name in names})
    except ForgeError as error:
        raise ConfigError(str(error), "--elements", fix) from None


def _has_features(z: int, kind: AtomFeatures) -> bool:
    try:
        element_features(kind, (z,))
    except ModelError:
        return False
    return True


def _settings(given: Given, sheet: Sheet, path: Path) -> AlignnSettings:
    block = {name.removeprefix("model."): line.value for name, line in sheet.lines.items() if name.startswith("model.")}
    if width := given["model.extra_features"]:
        block["extra_features"] = width
    try:
        return AlignnSettings.model_validate(block)
    except ValidationError as error:
        raise ConfigError("; ".join(e["msg"] for e in error.errors()), str(path)) from None


def _aims(given: Given) -> Aims:
    """What the networks have outputs for; a force field has an energy, any other a target."""
    energy = is_force_field(given)
    classes = given["model.classification"] or given["classification_threshold"] is not None
    kind = "class" if classes else "number"
    rows: Sequence[tuple[str, str, int, str]] = (
        (TARGET, "structure", 0 if energy else 1 if classes else given["model.output_features"], kind),
        (ADDITIONAL, "structure", given["model.additional_output_features"], "number"),
        (ATOMWISE, "atom", given["model.atomwise_output_features"], "number"),
    )
    targets = [
        Quantity(name, "", per, () if width == 1 else (width,), "", kind=kind)  # type: ignore[arg-type]
        for name, per, width, kind in rows
        if width
    ]
    width = given["model.extra_features"]
    return Aims(tuple(targets), energy=energy, features=((FEATURES, width),) if width else ())


def _warnings(given: Given, aims: Aims) -> Iterator[str]:
    most, name = given["max_neighbors"], given["model.name"]
    if given["neighbor_strategy"] in CAPPED and most:
        yield (
            f"alignn kept the {most} nearest neighbours of each atom (max_neighbors), of equally near ones any; here "
            f"all within {given['cutoff']:g} Å count. Where an atom has more, predictions are others than alignn's"
        )
    if aims.energy and given["model.use_penalty"]:
        yield (
            f"alignn pushes atoms closer than {given['model.penalty_threshold']:g} Å apart by a force that is in no "
            "energy; here the penalty is a part of the energy"
        )
    if aims.energy and given["model.use_zbl"] is None and name == "alignn_atomwise_pure":
        yield f"alignn adds a nuclear repulsion below {given['model.zbl_cutoff']:g} Å, which is left out here"
    if aims.energy and not given["model.energy_mult_natoms"]:
        yield "alignn's forces are those of the energy per atom (energy_mult_natoms: false), here of the whole energy"


def _notes(sheet: Sheet) -> list[str]:
    told = ("model.neighbor_strategy", "model.penalty_factor", "model.energy_mult_natoms")  # as warnings
    lines = {name: line for name, line in sheet.lines.items() if name.startswith("model.") and name not in told}
    return [f"{name}: {line.comment}" for name, line in lines.items() if line.comment]
