"""The keys of alignn's config.json, with the defaults of its code, and the arguments of train_alignn.py."""

from __future__ import annotations

from typing import Any

from forgefield.app.translation import Key, Kind


def _keys(kind: Kind, **defaults: Any) -> dict[str, Key]:
    return {name: Key(kind, default) for name, default in defaults.items()}


def _model(kind: Kind, **defaults: Any) -> dict[str, Key]:
    return {f"model.{name}": key for name, key in _keys(kind, **defaults).items()}


ARGUMENTS: dict[str, Key] = {
    **_keys("text", root_dir=None, target_key="total_energy", force_key="forces", stresswise_key="stresses",
            atomwise_key="forces", additional_output_key="additional_output", id_key="jid", file_format="poscar",
            restart_model_path=None),
    **_keys("truth", published=False),
}  # fmt: skip
"""Words beside the file: those of train_alignn.py, and `published=true`, which keeps what was dead in alignn dead."""

KEYS: dict[str, Key] = {
    **ARGUMENTS,
    **_keys("text", version="NA", dataset="dft_3d", target="exfoliation_energy", id_tag="jid", atom_features="cgcnn",
            neighbor_strategy="k-nearest", criterion="mse", optimizer="adamw", scheduler="onecycle", dtype="float32",
            filename="sample", output_dir=".", device=None),
    **_keys("number", cutoff=8.0, cutoff_extra=3.0, weight_decay=0.0, learning_rate=1e-2),
    **_keys("number or none", train_ratio=0.8, val_ratio=0.1, test_ratio=0.1, target_multiplication_factor=None,
            classification_threshold=None),
    **_keys("whole", max_neighbors=12, n_train=None, n_val=None, n_test=None, epochs=300, batch_size=64,
            warmup_steps=2000, random_seed=123, num_workers=4, n_early_stopping=None),
    **_keys("truth", use_canonize=True, compute_line_graph=True, keep_data_order=True, progress=True,
            log_tensorboard=False, store_outputs=True, write_checkpoint=True, write_predictions=True,
            distributed=False, data_parallel=False, normalize_graph_level_loss=False,
            standard_scalar_and_pca=False, pin_memory=False, save_dataloader=False, use_lmdb=True),
    **_model("text", name="alignn_atomwise", link="identity"),
    **_model("whole", alignn_layers=2, gcn_layers=2, hidden_features=64, embedding_features=64,
             edge_input_features=80, triplet_input_features=40, output_features=1, atom_input_features=1,
             atomwise_output_features=0, additional_output_features=0, extra_features=0, exponent=5),
    **_model("number", graphwise_weight=1.0, gradwise_weight=1.0, stresswise_weight=0.0, atomwise_weight=0.0,
             additional_output_weight=0.0, grad_multiplier=-1.0, stress_multiplier=1.0, penalty_factor=0.1,
             penalty_threshold=1.0, inner_cutoff=3.0),
    **_model("truth", calculate_gradient=True, add_reverse_forces=True, energy_mult_natoms=True,
             force_mult_natoms=False, batch_stress=True, use_penalty=True, use_cutoff_function=False,
             multiply_cutoff=False, lg_on_fly=True, include_pos_deriv=False, zero_inflated=False,
             classification=False, lighten_edges=False, backtracking=True, remove_torque=True),
    # of 2026
    **_keys("number or none", gpu_memory_fraction=None, three_body_cutoff=3.5),
    **_keys("truth", use_amp=False, ddp_find_unused_parameters=False, resume_checkpoint=False, deterministic=False,
            read_existing=False),
    **_keys("whole", lr_total_epochs=None),
    **_model("truth", use_zbl=None),
    **_model("number", zbl_cutoff=0.9, three_body_cutoff=3.5),
    **_model("text", conv_type="alignn"),
    **_model("whole", num_heads=1),
    # of models that are not built here, and of the one that alignn takes and does not train
    **_model("whole", num_classes=2),
    **_model("number", radial_cutoff=None, smooth_cutoff_coeff=None),
    **_model("text", radial_basis=None, angular_basis=None),
    **_model("truth", radial_learnable=None, angular_learnable=None, use_atomref=None, mlp_first=None),
}  # fmt: skip
OF_MODELS: dict[str, dict[str, Any]] = {
    "alignn": {"alignn_layers": 4, "gcn_layers": 4, "hidden_features": 256, "atom_input_features": 92},
    "alignn_atomwise_pure": {"penalty_factor": 0.5},
}
"""Defaults of the model block that are others for other models."""
ALIASES: dict[str, str] = {}
NEEDLESS = {
    "version": "the version of alignn",
    "id_tag": "structures are named by file and record",
    "id_key": "structures are named by file and record",
    "compute_line_graph": "line graphs are always made where the model needs them",
    "pin_memory": "batches are handed over as the device needs them",
    "save_dataloader": "it served debugging; data.split and run.json say what was trained on",
    "use_lmdb": "graphs are made anew from the structures; alignn took an old cache without a word",
    "write_checkpoint": "the best and the last checkpoint are always kept",
    "write_predictions": "predictions of validation and test always stand in evaluation/",
    "store_outputs": "without effect in alignn; predictions always stand in evaluation/",
    "progress": "without effect in alignn; here train.progress_bar",
    "log_tensorboard": "without effect in alignn; here tensorboard/ is written by default (train.loggers)",
    "distributed": "several processes are started by torchrun or srun",
    "data_parallel": "without effect in alignn; several processes are started by torchrun or srun",
    "normalize_graph_level_loss": "without effect in alignn; here train.energy_normalization",
    "ddp_find_unused_parameters": "several processes are started by torchrun or srun, without DistributedDataParallel",
    "gpu_memory_fraction": "train.max_atoms and train.max_edges limit batches",
    "read_existing": "no cache of graphs is read",
    "deterministic": "on the CPU results always repeat to the last digit",
    "resume_checkpoint": "a run is continued by `forgefield resume RUN_DIR`, or the same command again",
    "target": "a name of JARVIS; of your own data, target_key says which",
    "file_format": "formats are recognised by what is in the files",
    "model.zero_inflated": "without effect in alignn",
    "model.num_classes": "alignn has two",
    **{
        f"model.{key}": "of alignn_atomwise_pure_smooth"
        for key in (
            "radial_cutoff",
            "smooth_cutoff_coeff",
            "radial_basis",
            "angular_basis",
            "radial_learnable",
            "angular_learnable",
            "use_atomref",
            "mlp_first",
        )
    },
    "model.lg_on_fly": "forces always hold the share of the angles (in alignn only with true)",
    "model.include_pos_deriv": "the same forces; alignn's code for it is wrong across cell boundaries",
    "model.batch_stress": "stresses are those of each structure (false is wrong by 2 in alignn, and for batches)",
    "model.add_reverse_forces": "forces are always those of the energy (false gives half of them in alignn)",
}
"""Keys that need nothing here, and why."""
