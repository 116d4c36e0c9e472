"""XequiNet: the model block."""

from __future__ import annotations

from forgefield.app.translate.xequinet.keys import EWALD, KWARGS
from forgefield.app.translation import Given, Remark, Sheet

SAME = (
    "node_dim", "node_irreps", "embed_basis", "num_basis", "rbf_kernel", "action_blocks", "layer_norm", "charge_embed",
    "spin_embed", "hidden_dim",
)  # fmt: skip
SYMMETRIES = ("ij", "ij=ji")
MODES = ("scalar", "energy", "charges", "dipole", "polar", "spatial", "cartesian")


def model(given: Given, sheet: Sheet) -> None:
    """Architecture, cutoffs, features, outputs."""
    _name(given, sheet)
    for key in SAME:
        sheet.put(f"model.{key}", given[f"{KWARGS}.{key}"])
    if given[f"{KWARGS}.embed_basis"] != "one-hot":
        sheet.put("model.aux_basis", given[f"{KWARGS}.aux_basis"])
    elif given.says(f"{KWARGS}.aux_basis"):
        sheet.needless.append(Remark(f"{KWARGS}.aux_basis", given[f"{KWARGS}.aux_basis"], "embed_basis is one-hot"))
    _cutoff(given, sheet)
    _activation(given, sheet)
    _norm(given, sheet)
    _outputs(given, sheet)
    for key in ("node_shift", "node_scale"):
        if given.says(f"{KWARGS}.{key}"):
            why = "a start for the last layer; a shift and a scale are always measured"
            sheet.needless.append(Remark(f"{KWARGS}.{key}", given[f"{KWARGS}.{key}"], why))
    sheet.put("model.softness", 0.1, "XequiNet has 1e-6, with which forces jump where features vanish")
    electrons = {"charge_embed": "charge", "spin_embed": "multiplicity"}
    for key, name in electrons.items():
        if given[f"{KWARGS}.{key}"]:
            sheet.put(
                f"data.{name}_key", "auto", f"every structure must state it, or set data.{name}; XequiNet skips it"
            )


def _name(given: Given, sheet: Sheet) -> None:
    name = str(given["model.model_name"]).lower()
    if name not in ("xpainn", "xpainn-ewald"):
        sheet.lost.append(Remark("model.model_name", name, "ForgeField has xpainn; painn is xpainn without degree 2"))
        for key in EWALD:
            if given.says(f"{KWARGS}.{key}"):
                sheet.lost.append(Remark(f"{KWARGS}.{key}", given[f"{KWARGS}.{key}"], "belongs to xpainn-ewald"))
        return
    sheet.put("backend", "xpainn")
    if name == "xpainn-ewald":
        _ewald(given, sheet)
        return
    for key in EWALD:
        if given.says(f"{KWARGS}.{key}"):
            sheet.needless.append(Remark(f"{KWARGS}.{key}", given[f"{KWARGS}.{key}"], "belongs to xpainn-ewald"))


def _ewald(given: Given, sheet: Sheet) -> None:
    """Waves of crystals are a block of the model; those on a fixed grid, for molecules, are not taken over."""
    said = lambda key: given.says(f"{KWARGS}.{key}")  # noqa: E731
    waves = {"num_k_points": [3, 3, 3], "projection_dim": 8, "ewald_blocks": 1}
    crystals = not said("use_pbc") or bool(given[f"{KWARGS}.use_pbc"])
    if not crystals:
        why = "on a fixed grid of waves energies depend on how a molecule is turned; try a larger cutoff or coulomb"
        sheet.lost.append(Remark(f"{KWARGS}.use_pbc", False, why))
    read = {key: given[f"{KWARGS}.{key}"] for key in EWALD if said(key)}
    if crystals:
        sheet.put("model.ewald", {key: read.pop(key, usual) for key, usual in waves.items()})
    for key, value in read.items():
        if key != "use_pbc":
            of_grid = key != "ewald_output_mode"
            why = "belongs to a fixed grid of waves" if of_grid else "outputs follow the Ewald blocks"
            sheet.needless.append(Remark(f"{KWARGS}.{key}", value, why))


def _cutoff(given: Given, sheet: Sheet) -> None:
    cutoff, of_data = given[f"{KWARGS}.cutoff"], given["data.cutoff"]
    sheet.put("model.cutoff", cutoff)
    if of_data < cutoff:
        why = f"smaller than the model's {cutoff:g}: neighbours would enter with a jump; set {KWARGS}.cutoff"
        sheet.lost.append(Remark("data.cutoff", of_data, why))
    elif given.says("data.cutoff"):
        sheet.needless.append(Remark("data.cutoff", of_data, "graphs are built with the model's cutoff"))
    name = given[f"{KWARGS}.cutoff_fn"]
    if name == "flat":
        why = "broken in XequiNet, and without an end at the cutoff; use polynomial or cosine"
        sheet.lost.append(Remark(f"{KWARGS}.cutoff_fn", name, why))
        name = "polynomial"
    sheet.put(
        "model.cutoff_fn", name, "forces have a kink at the cutoff; polynomial has none" if name == "cosine" else ""
    )


def _activation(given: Given, sheet: Sheet) -> None:
    name = given[f"{KWARGS}.activation"]
    if name in ("relu", "leakyrelu"):
        sheet.lost.append(Remark(f"{KWARGS}.activation", name, "it has a kink, so that forces jump; silu or softplus"))
        name = "silu"
    sheet.put("model.activation", name)


def _norm(given: Given, sheet: Sheet) -> None:
    """`norm_type: layer` stands in one example of the documentation; the code has `layer_norm`."""
    name, key = given[f"{KWARGS}.norm_type"], f"{KWARGS}.norm_type"
    if name is None:
        return
    if name == "layer":
        sheet.needless.append(Remark(key, name, "XequiNet's code has layer_norm: true instead, as here"))
    else:
        sheet.lost.append(Remark(key, name, "there is layer_norm: true or false"))


def _outputs(given: Given, sheet: Sheet) -> None:
    key = f"{KWARGS}.output_modes"
    given_modes = given[key]
    modes = given_modes if isinstance(given_modes, list) else [given_modes]
    modes = ["charges" if mode == "atomic_charges" else str(mode) for mode in modes]
    strange = [mode for mode in modes if mode not in MODES]
    if strange:
        raise given.wrong(key, f"{strange[0]!r} is no output", f"known: {', '.join(MODES)}")
    note = "" if isinstance(given_modes, list) else "XequiNet reads a single name letter by letter and fails"
    sheet.put("model.output_modes", modes, note)
    needs = {"conservation": "charges", "magnitude": "dipole", "isotropic": "polar", "hidden_irreps": None}
    for name, mode in needs.items():
        said = f"{KWARGS}.{name}"
        if not given.says(said):
            continue
        if mode is None or mode in modes:
            sheet.put(f"model.{name}", given[said])
        else:
            sheet.needless.append(Remark(said, given[said], f"has an effect with the output {mode} only"))
    _cartesian(given, sheet, "cartesian" in modes)


def _cartesian(given: Given, sheet: Sheet, predicted: bool) -> None:
    """Note what XequiNet says of tensors; `symmetry` is taken up with the target, in `losses`."""
    for name in ("order", "symmetry", "hidden_channels"):
        key = f"{KWARGS}.{name}"
        if not given.says(key):
            continue
        value = given[key]
        if not predicted:
            sheet.needless.append(Remark(key, value, "has an effect with the output cartesian only"))
        elif name == "hidden_channels":
            why = "channels of its products of features; here model.hidden_irreps, 16 of each degree unless set"
            sheet.needless.append(Remark(key, value, why))
        elif name == "order" and value != 2:
            why = "data.targets has tensors of order 2, and vectors (rotates: vector)"
            sheet.lost.append(Remark(key, value, why))
        elif name == "symmetry" and str(value).replace(" ", "") not in SYMMETRIES:
            why = "a tensor here has nine components, or (ij=ji) is symmetric"
            sheet.lost.append(Remark(key, value, why))
