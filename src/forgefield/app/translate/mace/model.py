"""mace-torch: the shape of the model."""

from __future__ import annotations

from forgefield.app.translation import Given, Remark, Sheet, literal

KINDS = {
    "RealAgnosticInteractionBlock": "plain",
    "RealAgnosticResidualInteractionBlock": "residual",
    "RealAgnosticDensityInteractionBlock": "density",
    "RealAgnosticDensityResidualInteractionBlock": "density_residual",
}
SAME = {
    "r_max": "r_max", "radial_type": "radial_type", "num_radial_basis": "num_radial_basis",
    "num_cutoff_basis": "num_polynomial_cutoff", "pair_repulsion": "pair_repulsion", "max_ell": "max_ell",
    "correlation": "correlation", "num_interactions": "num_interactions", "MLP_irreps": "mlp_irreps",
    "use_last_readout_only": "use_last_readout_only", "use_reduced_cg": "use_reduced_cg",
    "use_agnostic_product": "use_agnostic_product",
}  # fmt: skip
CHANNELS, DEGREE = 128, 1  # of mace-torch, where neither irreps nor these are given


def model(given: Given, sheet: Sheet) -> None:
    """Settings of the architecture."""
    kind = given["model"]
    if kind not in ("MACE", "ScaleShiftMACE"):
        sheet.lost.append(Remark("model", kind, "ForgeField has MACE of energies and forces"))
    for theirs, ours in SAME.items():
        sheet.put(f"model.{ours}", given[theirs])
    sheet.put("model.hidden_irreps", _hidden(given))
    sheet.put("model.distance_transform", str(given["distance_transform"]).lower())
    sheet.put("model.radial_mlp", literal(given, "radial_MLP"))
    _interactions(given, sheet, plain_first=kind == "MACE")


def _hidden(given: Given) -> str:
    """Channels and degrees, as mace-torch settles them: num_channels and max_L win if all three are given."""
    irreps, channels, degree = given["hidden_irreps"], given["num_channels"], given["max_L"]
    if irreps is not None and (channels is None or degree is None):
        return str(irreps)
    channels = CHANNELS if channels is None else channels
    degree = DEGREE if degree is None else degree
    return " + ".join(f"{channels}x{l}{'eo'[l % 2]}" for l in range(degree + 1))


def _interactions(given: Given, sheet: Sheet, *, plain_first: bool) -> None:
    first, later = given["interaction_first"], given["interaction"]
    comment = ""
    if plain_first:
        comment = "model: MACE has no shift of the energies in mace-torch; here one is measured, as in ScaleShiftMACE"
        if KINDS.get(first) not in ("plain", "density"):
            said = f"interaction_first: {first} is not used there: " if given.says("interaction_first") else ""
            first = "RealAgnosticInteractionBlock"
            comment = f"{said}model: MACE of mace-torch begins with a plain interaction; {comment}"
    for name, value, note in (("interaction_first", first, comment), ("interaction", later, "")):
        if value in KINDS:
            sheet.put(f"model.{name}", KINDS[value], note)
        else:
            sheet.lost.append(Remark(name, value, f"our MACE has {', '.join(KINDS)}"))
