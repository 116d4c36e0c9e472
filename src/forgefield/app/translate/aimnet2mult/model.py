"""AIMNet2mult: model.yaml, whose class paths are recognised by their text and never imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forgefield.app.translate.aimnet2mult.losses import last
from forgefield.app.translate.aimnet2mult.reading import Settings
from forgefield.app.translation import Remark, Sheet

OUTPUTS = "model.kwargs.outputs"
SAME = ("nfeature", "d2features", "ncomb_v", "hidden", "aim_size", "num_charge_channels")
AEV = ("rc_s", "nshifts_s", "rmin", "eta_s", "shifts_s", "rc_v", "nshifts_v", "eta_v", "shifts_v")
REQUIRED = ("nfeature", "d2features", "ncomb_v", "hidden", "aim_size")
FIXED: dict[str, dict[str, Any]] = {
    "Output": {"n_out": 1, "key_in": "aim", "key_out": "energy", "mlp.last_linear": True, "mlp.bias": True,
               "mlp.activation_fn": "GELU", "mlp.weight_init_fn": "xavier_normal_"},
    "AtomicShift": {"key_in": "energy", "key_out": "energy", "requires_grad": True, "reduce_sum": False},
    "AtomicSum": {"key_in": "energy", "key_out": "energy"},
    "LRCoulomb": {"key_in": "charges", "key_out": "energy"},
    "DFTD3": {"key_in": None, "key_out": "energy"},
    "Dipole": {"key_in": "charges", "key_out": "dipole"},
    "Quadrupole": {"key_in": "charges", "key_out": "quadrupole"},
}  # fmt: skip
"""Arguments of the outputs that have one value here; another one has no counterpart."""
INSTEAD = {
    "SRRep": "the nearest is model.physics: {zbl: {}}",
    "D3TS": "the nearest is model.physics: {d3: {functional: ...}}",
    "DispParam": "the nearest is model.physics: {d3: {functional: ...}}",
}


def model(given: Settings, sheet: Sheet) -> None:
    """Shape of the network, then its outputs."""
    name = given.get("model.class", "")
    if last(name) != "AIMNet2":
        sheet.lost.append(Remark("model.class", name, "ForgeField translates aimnet2mult.models.aimnet2.AIMNet2"))
    for key in REQUIRED:
        if not given.has(f"model.kwargs.{key}"):
            raise given.wrong(f"model.kwargs.{key}", "is not given; AIMNet2 demands it")
    for key in SAME:
        if given.has(f"model.kwargs.{key}"):
            sheet.put(f"model.{key}", given[f"model.kwargs.{key}"])
    aev = {key: given.get(f"model.kwargs.aev.{key}") for key in AEV if given.has(f"model.kwargs.aev.{key}")}
    if aev:
        sheet.put("model.aev", aev)
    for key in ("model.kwargs.max_z", *(f"model.kwargs.aev.{key}" for key in AEV)):
        if given.says(key) and not given.has(key):
            sheet.needless.append(Remark(key, None, "null is its default"))
    if given.says("model.kwargs.max_z"):
        why = "tables have the elements of the training data, no empty rows"
        sheet.needless.append(Remark("model.kwargs.max_z", given["model.kwargs.max_z"], why))
    _outputs(given, sheet)


def _outputs(given: Settings, sheet: Sheet) -> None:
    found: dict[str, list[str]] = {}
    for name in given.names(OUTPUTS):
        path = given.get(f"{OUTPUTS}.{name}.class", "")
        kind = last(path)
        found.setdefault(kind, []).append(name)
        if kind not in FIXED:
            why = INSTEAD.get(kind, f"the outputs known here are {', '.join(FIXED)}")
            sheet.lost.append(Remark(f"{OUTPUTS}.{name}.class", path, why))
            sheet.needless += [Remark(k, given.get(k), "see its class") for k in _arguments(given, name)]
        elif len(found[kind]) > 1:
            sheet.lost.append(Remark(f"{OUTPUTS}.{name}.class", path, f"a second {kind}"))
            sheet.needless += [Remark(k, given.get(k), "see its class") for k in _arguments(given, name)]
    _physics(given, sheet, found)
    for kind, names in found.items():
        if kind in WRITERS:
            WRITERS[kind](given, sheet, f"{OUTPUTS}.{names[0]}.kwargs")
        if kind in FIXED:
            _fixed(given, sheet, names[0], kind)
    for kind in ("Output", "AtomicSum"):
        if kind not in found:
            sheet.lost.append(Remark(OUTPUTS, list(found), f"has no {kind}, without which there is no energy"))
    if "AtomicShift" not in found:
        sheet.put("train.force_no_train", [r"readout\.shifts$"], "no AtomicShift: shifts begin at 0 and stay there")


def _arguments(given: Settings, name: str) -> list[str]:
    return [key for key in given.below(f"{OUTPUTS}.{name}") if not key.endswith(f"{name}.class")]


def _readout(given: Settings, sheet: Sheet, block: str) -> None:
    sheet.put("model.energy_hidden", [width for width in given.get(f"{block}.mlp.hidden", []) if width > 0])
    size, inputs = given["model.kwargs.aim_size"], given.get(f"{block}.n_in")
    if inputs is not None and inputs != size:
        raise given.wrong(f"{block}.n_in", f"got {inputs}, but aim_size is {size}")


def _shift(given: Settings, sheet: Sheet, block: str) -> None:
    for key in ("num_types", "dtype"):
        if given.says(f"{block}.{key}"):
            why = "shifts are there for the elements of the data, in the precision of the model; they begin at 0"
            sheet.needless.append(Remark(f"{block}.{key}", given.get(f"{block}.{key}"), why))


def _moment(given: Settings, sheet: Sheet, block: str) -> None:
    if given.get(f"{block}.center_coord", False):
        sheet.put("model.moments_about", "mass", "center_coord: true")


def _fixed(given: Settings, sheet: Sheet, name: str, kind: str) -> None:
    """Compare the arguments that have one value here."""
    block = f"{OUTPUTS}.{name}.kwargs"
    for word, value in FIXED[kind].items():
        key = f"{block}.{word}"
        if not given.says(key):
            given.read.add(key)
            continue
        got = given[key]
        same = last(str(got)) == value if isinstance(value, str) else got == value
        if same or value is None:
            sheet.needless.append(Remark(key, got, "so it is here"))
        else:
            sheet.lost.append(Remark(key, got, f"it is {value} in our AIMNet2"))
    for key in _arguments(given, name):
        if key not in given.read:
            sheet.lost.append(Remark(key, given.get(key), f"{kind} has no such argument in this translation"))


def _physics(given: Settings, sheet: Sheet, found: dict[str, list[str]]) -> None:
    """Coulomb and D3 terms, which stand among the outputs there."""
    terms: dict[str, Any] = {}
    notes: list[str] = []
    if "LRCoulomb" in found:
        terms["coulomb"] = _coulomb(given, f"{OUTPUTS}.{found['LRCoulomb'][0]}.kwargs", notes)
    if "DFTD3" in found:
        block = f"{OUTPUTS}.{found['DFTD3'][0]}.kwargs"
        words = [word for word in ("s6", "s8", "a1", "a2") if given.has(f"{block}.{word}")]
        terms["d3"] = {word: given.get(f"{block}.{word}") for word in words}
        notes.append(
            "DFTD3 sums all pairs there, those within 20 Å here; it is for labels that include dispersion: "
            "say so in data.fidelities"
        )
    _unread(given, sheet, found)
    if terms:
        sheet.put("model.physics", terms, "; ".join(notes))


def _coulomb(given: Settings, block: str, notes: list[str]) -> dict[str, Any]:
    method = given.get(f"{block}.method", "simple")
    if method not in ("simple", "dsf", "ewald"):
        raise given.wrong(f"{block}.method", f"got {method!r}, expected simple, dsf or ewald")
    term = {"method": method, "short_range_cutoff": given.get(f"{block}.rc", 4.6)}
    alpha, reach = given.get(f"{block}.dsf_alpha"), given.get(f"{block}.dsf_rc")
    if method == "dsf":
        term |= {"dsf_alpha": 0.2 if alpha is None else alpha, "cutoff": 15.0 if reach is None else reach}
    if method == "simple":
        notes.append("simple sums all pairs there, those within 50 Å here")
    if method == "ewald":
        notes.append("ewald is for crystals, of many structures at once here")
    return term


def _unread(given: Settings, sheet: Sheet, found: dict[str, list[str]]) -> None:
    """Name the arguments that another method of LRCoulomb would read."""
    for name in found.get("LRCoulomb", [])[:1]:
        method = given.get(f"{OUTPUTS}.{name}.kwargs.method", "simple")
        for word in ("dsf_alpha", "dsf_rc"):
            key = f"{OUTPUTS}.{name}.kwargs.{word}"
            if given.says(key) and method != "dsf":
                sheet.needless.append(Remark(key, given[key], f"method: {method} does not read it"))


WRITERS: dict[str, Callable[[Settings, Sheet, str], None]] = {
    "Output": _readout, "AtomicShift": _shift, "Dipole": _moment, "Quadrupole": _moment,
}  # fmt: skip
