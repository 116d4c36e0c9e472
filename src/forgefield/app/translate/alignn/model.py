"""alignn: the model block."""

from __future__ import annotations

from forgefield.app.translate.alignn.losses import is_force_field
from forgefield.app.translation import Given, Remark, Sheet

LENGTHS = {"basic": 11, "atomic_number": 1, "cfid": 438, "cgcnn": 92}
SAME = (
    "alignn_layers", "gcn_layers", "hidden_features", "embedding_features", "edge_input_features",
    "triplet_input_features", "link",
)  # fmt: skip
STRATEGIES = ("k-nearest", "radius_graph", "radius_graph_jarvis")
CAPPED = ("pure_torch", "fast_graph", "torch_graph")
"""Radius graphs of 2026: the cutoff never grows, and max_neighbors limits the neighbours of an atom."""


def model(given: Given, sheet: Sheet) -> None:
    """Neighbours, features of elements, widths, cutoff function, penalty."""
    _name(given, sheet)
    _neighbours(given, sheet)
    _atom_features(given, sheet)
    for key in SAME:
        sheet.put(f"model.{key}", given[f"model.{key}"])
    _cutoff_function(given, sheet)
    _penalty(given, sheet)
    _line_graph(given, sheet)
    _forces(given, sheet)
    _of_2026(given, sheet)
    note = "alignn's sums, which jump at the cutoff; none makes energies and forces smooth"
    sheet.put("model.compat", "alignn", note)


def _name(given: Given, sheet: Sheet) -> None:
    name = given["model.name"]
    if name == "alignn_atomwise":
        return
    if name == "alignn_atomwise_pure":
        sheet.needless.append(Remark("model.name", name, "the same model, without DGL"))
        return
    if name == "alignn":
        sheet.needless.append(
            Remark("model.name", name, "alignn takes this name and never trains it; it is trained here")
        )
        return
    why = "this model is not built here; give model.name=alignn_atomwise, which differs from it, beside the file"
    sheet.lost.append(Remark("model.name", name, why))


def _neighbours(given: Given, sheet: Sheet) -> None:
    said, most = given["neighbor_strategy"], given["max_neighbors"]
    strategy = {"k_nearest": "k-nearest", **dict.fromkeys(CAPPED, "radius_graph")}.get(said, said)
    if strategy not in STRATEGIES:
        why = f"not built in alignn either, which ends with an error; there are {', '.join((*STRATEGIES, *CAPPED))}"
        sheet.lost.append(Remark("neighbor_strategy", said, why))
        strategy = "radius_graph"
    note = "alignn itself refuses the spelling k_nearest" if said == "k_nearest" else ""
    if said in CAPPED and most:
        note = f"all neighbours; of more than max_neighbors ({most}) alignn drops the farther ones, where forces jump"
    sheet.put("model.neighbor_strategy", strategy, note)
    sheet.put("model.cutoff", given["cutoff"])
    for key in ("max_neighbors", "use_canonize"):
        if strategy == "k-nearest":
            sheet.put(f"model.{key}", given[key])
        elif given.says(key):
            told = "see model.neighbor_strategy" if said in CAPPED and key == "max_neighbors" else "has an effect with"
            sheet.needless.append(Remark(key, given[key], told if "see" in told else f"{told} k-nearest only"))
    _growing_cutoff(given, sheet, said if said in CAPPED else strategy)
    within, key = given["three_body_cutoff"], "three_body_cutoff"
    if said == "pure_torch" and within is not None and given["model.alignn_layers"]:
        sheet.put(f"model.{key}", min(within, given["cutoff"]))
    elif given.says(key):
        sheet.needless.append(Remark(key, within, "has an effect with pure_torch and alignn_layers only"))
    if given.says(f"model.{key}"):
        why = "of files for LAMMPS; in training the graphs are made with the other three_body_cutoff"
        sheet.needless.append(Remark(f"model.{key}", given[f"model.{key}"], why))
    if strategy == "k-nearest" or sheet.lines.get("model.cutoff_extra"):
        why = "files for other programs are given all neighbours within the cutoff; the weights serve Python and ASE"
        grown = "" if strategy == "k-nearest" else "; with cutoff_extra: 0 torchscript may stand here"
        sheet.put("export.targets", [], why + grown)


def _growing_cutoff(given: Given, sheet: Sheet, strategy: str) -> None:
    extra, key = given["cutoff_extra"], "cutoff_extra"
    if strategy in ("k-nearest", *CAPPED) or given["model.use_cutoff_function"]:
        if given.says(key):
            why = "has an effect with radius graphs without a cutoff function only"
            sheet.needless.append(Remark(key, extra, why))
        return
    fixed = strategy == "radius_graph_jarvis"
    note = "radius_graph_jarvis always takes steps of 0.5" if fixed else "alignn notices missing trailing atoms only"
    sheet.put(f"model.{key}", 0.5 if fixed else extra, note)


def _atom_features(given: Given, sheet: Sheet) -> None:
    features, length = given["atom_features"], given["model.atom_input_features"]
    if features not in LENGTHS:
        raise given.wrong("atom_features", f"got {features!r}", f"give one of {', '.join(LENGTHS)}")
    sheet.put("model.atom_features", features)
    if given.says("model.atom_input_features") and length != LENGTHS[features]:
        why = f"{features} has {LENGTHS[features]} numbers; alignn ends with an error"
        sheet.lost.append(Remark("model.atom_input_features", length, why))


def _cutoff_function(given: Given, sheet: Sheet) -> None:
    used, multiply = given["model.use_cutoff_function"], given["model.multiply_cutoff"]
    lighten = given["model.lighten_edges"]
    sheet.put("model.use_cutoff_function", used, "" if used else "energies and forces jump where a neighbour enters")
    if used:
        note = "" if multiply else "its value takes the distance's place in the Gaussians, as in alignn"
        sheet.put("model.multiply_cutoff", multiply, note)
        sheet.put("model.exponent", given["model.exponent"])
    if used or lighten:
        inner = given["model.inner_cutoff"]
        wide = inner > given["cutoff"]
        note = "alignn's is beyond the cutoff, where no neighbours are" if wide else ""
        sheet.put("model.inner_cutoff", min(inner, given["cutoff"]), note)
    for key in ("multiply_cutoff", "exponent", "inner_cutoff"):
        name = f"model.{key}"
        if given.says(name) and name not in sheet.lines:
            sheet.needless.append(Remark(name, given[name], "has an effect with use_cutoff_function only"))


def _penalty(given: Given, sheet: Sheet) -> None:
    used = given["model.use_penalty"]
    sheet.put("model.use_penalty", used)
    if used:
        note = "in alignn it changed forces only, by batch size too much; here it is a part of the energy"
        sheet.put("model.penalty_factor", given["model.penalty_factor"], note)
        sheet.put("model.penalty_threshold", given["model.penalty_threshold"])
        return
    for key in ("model.penalty_factor", "model.penalty_threshold"):
        if given.says(key):
            sheet.needless.append(Remark(key, given[key], "has an effect with use_penalty only"))


def _line_graph(given: Given, sheet: Sheet) -> None:
    lighten, back = given["model.lighten_edges"], given["model.backtracking"]
    if not given["model.alignn_layers"]:
        for key in ("model.lighten_edges", "model.backtracking"):
            if given.says(key):
                sheet.needless.append(Remark(key, given[key], "there are no alignn_layers, hence no angles"))
        return
    sheet.put("model.lighten_edges", lighten)
    note = "a bond and its reverse are no angle with lighten_edges, as in alignn" if lighten and back else ""
    sheet.put("model.backtracking", back and not lighten, note)


def _of_2026(given: Given, sheet: Sheet) -> None:
    """Kinds of convolutions and a repulsion of newer versions."""
    for key, usual in (("model.conv_type", "alignn"), ("model.num_heads", 1)):
        if given[key] != usual:
            sheet.lost.append(Remark(key, given[key], "only edge-gated convolutions (alignn) are built here"))
        elif given.says(key):
            sheet.needless.append(Remark(key, given[key], "edge-gated convolutions, as here"))
    _repulsion(given, sheet)


def _repulsion(given: Given, sheet: Sheet) -> None:
    used, within = given["model.use_zbl"], given["model.zbl_cutoff"]
    alone = "model.physics: {zbl: {form: lammps, inner: A, outer: B}} is set by hand"
    if used:
        sheet.lost.append(Remark("model.use_zbl", True, f"alignn's ends at zbl_cutoff; here {alone}"))
        return
    automatic = used is None and given["model.name"] == "alignn_atomwise_pure" and is_force_field(given)
    why = f"alignn adds a nuclear repulsion below {within:g} Å to force fields; here {alone}"
    for key in ("model.use_zbl", "model.zbl_cutoff"):
        if given.says(key) or (automatic and key == "model.use_zbl"):
            sheet.needless.append(Remark(key, given[key], why if automatic else "no nuclear repulsion"))


def _forces(given: Given, sheet: Sheet) -> None:
    """Factors of forces and stresses, which are those of the energy here."""
    for key, right in (("model.grad_multiplier", -1.0), ("model.stress_multiplier", 1.0)):
        if given[key] != right:
            why = (
                "forces and stresses are always the derivatives of the energy; change the labels' sign or unit instead"
            )
            sheet.lost.append(Remark(key, given[key], why))
        elif given.says(key):
            sheet.needless.append(Remark(key, given[key], "forces are minus the derivative of the energy"))
    if given.says("model.force_mult_natoms"):
        why = "forces are those of the whole energy; true multiplies alignn's by the atoms of the batch"
        sheet.needless.append(Remark("model.force_mult_natoms", given["model.force_mult_natoms"], why))
    if given.says("model.remove_torque"):
        why = "belongs to ealignn_atomwise; forces of an energy have no torque"
        sheet.needless.append(Remark("model.remove_torque", given["model.remove_torque"], why))
    whole = given["model.energy_mult_natoms"]
    if not is_force_field(given):
        if given.says("model.energy_mult_natoms"):
            why = "of a property alignn's output stays as it is; here too"
            sheet.needless.append(Remark("model.energy_mult_natoms", whole, why))
        return
    note = "" if whole else "false made alignn's forces those of the energy per atom; here of the whole"
    sheet.put("model.energy_mult_natoms", True, note)
