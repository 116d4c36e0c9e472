"""The keys of XequiNet's config.yaml, with the defaults of its code."""

from __future__ import annotations

from typing import Any

from forgefield.app.translation import Key, Kind


def _keys(start: str, kind: Kind, **defaults: Any) -> dict[str, Key]:
    return {f"{start}.{name}": Key(kind, default) for name, default in defaults.items()}


KWARGS = "model.model_kwargs"
EWALD = (
    "use_pbc", "projection_dim", "ewald_blocks", "num_k_points", "k_cutoff", "delta_k", "num_k_basis", "k_offset",
    "ewald_output_mode",
)  # fmt: skip
KEYS: dict[str, Key] = {
    **_keys("model", "text", model_name="xpainn"),
    **_keys("model", "list", default_units={"energy": "eV", "pos": "Angstrom"}),
    **_keys(KWARGS, "text", node_irreps="128x0e + 64x1o + 32x2e", embed_basis="gfn2-xtb", aux_basis="aux56",
            rbf_kernel="bessel", cutoff_fn="cosine", activation="silu", hidden_irreps=None, norm_type=None,
            symmetry="ij"),
    **_keys(KWARGS, "whole", node_dim=128, num_basis=20, action_blocks=3, hidden_dim=64, hidden_channels=32, order=2),
    **_keys(KWARGS, "number", cutoff=5.0),
    **_keys(KWARGS, "list", output_modes=["energy"], node_shift=0.0, node_scale=1.0, **dict.fromkeys(EWALD)),
    **_keys(KWARGS, "truth", layer_norm=True, charge_embed=False, spin_embed=False, conservation=True,
            magnitude=False, isotropic=False),
    **_keys("data", "text", db_path="./", split="split", default_dtype="float32"),
    **_keys("data", "number", cutoff=5.0),
    **_keys("data", "list", targets=[], base_targets=None, node_scale=False, node_shift=False),
    **_keys("data", "whole", max_num_samples=1_000_000, batch_size=64, valid_batch_size=64),
    **_keys("trainer", "text", run_name="xequinet", ckpt_file=None, lossfn="smoothl1", optimizer="AdamW",
            warmup_scheduler="linear", lr_scheduler="cosine_annealing", early_stopping_mode="and", save_dir="./",
            log_file="loss.log"),
    **_keys("trainer", "truth", resume=False),
    **_keys("trainer", "list", finetune_modules=None, losses_weight={}, optimizer_kwargs={}, lr_scheduler_kwargs={},
            early_stoppings=None),
    **_keys("trainer", "number", max_lr=5e-4, min_lr=0.0, warmup_epochs=10),
    **_keys("trainer", "number or none", ema_decay=None, grad_clip=None),
    **_keys("trainer", "whole", best_k=1, log_steps=50, log_epochs=1, max_epochs=300, seed=None, num_workers=0),
    "md": Key("list", None),
}  # fmt: skip
ALIASES = {
    f"{KWARGS}.output_mode": f"{KWARGS}.output_modes",
    "data.max_num_sample": "data.max_num_samples",
    "data.base_targes": "data.base_targets",
}
"""Other spellings of its documentation."""
