"""Keys of mace-torch that become none of ours, each with the reason."""

from __future__ import annotations

from forgefield.app.translation import Given, Remark, Sheet

NEEDLESS = {
    **dict.fromkeys(
        ("work_dir", "log_dir", "model_dir", "checkpoints_dir", "results_dir", "downloads_dir", "wandb_dir"),
        "everything stands in run_dir",
    ),
    **dict.fromkeys(("plot", "plot_frequency", "plot_interaction_e"), "report.html has the plots"),
    "error_table": "MAE and RMSE of all quantities are always reported",
    "log_level": "decisions and departures are always told",
    "distributed": "start the run with torchrun or srun to use several processes",
    "launcher": "start the run with torchrun or srun to use several processes",
    "avg_num_neighbors": "measured on the training data, as mace-torch does by default",
    "compute_stress": "energies, forces and stress are always predicted",
    "compute_forces": "energies, forces and stress are always predicted",
    "multi_processed_test": "files are read as they are",
    "pin_memory": "batches are made where they are needed",
    "atomic_numbers": "the elements are those of the training data",
    "skip_evaluate_heads": "every head is evaluated",
    "keep_checkpoints": "the best and the last checkpoint are kept",
    "save_all_checkpoints": "the best and the last checkpoint are kept",
    "restart_latest": "forgefield resume RUN_DIR continues a run, exactly",
    "save_cpu": "bundles load on every device",
    "dry_run": "forgefield check --dry-run does that",
    **dict.fromkeys(("enable_cueq", "only_cueq", "enable_oeq"), "kernels of our own are used where they can be"),
    "wandb_log_hypers": "the whole train block is logged",
    "amsgrad": "mace-torch always uses amsgrad, whatever this key says; so does this run",
    **dict.fromkeys(
        ("dipole_key", "polarizability_key", "charges_key", "elec_temp_key", "total_spin_key", "total_charge_key"),
        "MACE of energies and forces does not read it",
    ),
    **dict.fromkeys(("beta1_schedulefree", "beta2_schedulefree"), "only the schedulefree optimizer reads it"),
    **dict.fromkeys(("dipole_weight", "swa_dipole_weight"), "only losses of dipoles read it"),
    **dict.fromkeys(("polarizability_weight", "swa_polarizability_weight"), "only losses of polarizabilities read it"),
}
"""Nothing is lost with these."""

POLAR = (
    "kspace_cutoff_factor", "atomic_multipoles_max_l", "atomic_multipoles_smearing_width", "field_feature_max_l",
    "field_feature_widths", "field_feature_norms", "num_recursion_steps", "field_si",
    "include_electrostatic_self_interaction", "add_local_electron_energy", "quadrupole_feature_corrections",
    "return_electrostatic_potentials", "field_norm_factor", "fixedpoint_update_config", "field_readout_config",
)  # fmt: skip
TUNING = (
    "pseudolabel_replay", "pseudolabel_replay_compute_stress", "foundation_filter_elements", "multiheads_finetuning",
    "foundation_head", "weight_pt_head", "real_pt_data_ratio_threshold", "num_samples_pt", "force_mh_ft_lr",
    "subselect_pt", "filter_type_pt", "allow_random_padding_pt", "pt_train_file", "pt_valid_file",
    "foundation_model_elements", "foundation_model_kwargs", "foundation_model_readout",
)  # fmt: skip

LOST = {
    "edge_irreps": "our MACE has no edge features of their own",
    "use_edge_irreps_first": "our MACE has no edge features of their own",
    "use_embedding_readout": "our MACE has no readout of the embedding",
    "embedding_specs": "our MACE has no embedding of charge, spin or temperature",
    "use_so3": "our MACE has features of natural parity only",
    "apply_cutoff": "our MACE always applies the cutoff to the radial basis",
    "compute_avg_num_neighbors": "the number of neighbours is always measured on the training data",
    "mean": "the shift is measured on the training data",
    "std": "the scale is measured on the training data",
    "statistics_file": "statistics are measured on the training data",
    "scaling": "the scale is the root mean square of the forces (rms_forces_scaling)",
    "les_arguments": "there is no latent Ewald summation",
    "compute_polarizability": "our MACE predicts energies, forces and stress",
    "compute_atomic_dipole": "our MACE predicts energies, forces and stress",
    "test_dir": "name the files in data.test, in a format that ForgeField reads",
    "keep_isolated_atoms": "frames of one free atom give reference energies and are not trained on",
    "heads": "write `head` into the frames and name all files in data.train",
    "config_type_weights": "structures have one weight; write config_weight into the frames",
    "gate": "our MACE has silu in its readout",
    "freeze": "counted layers cannot be frozen; see train.freeze",
    "lora": "there is no low-rank adaptation",
    "lbfgs": "mace-torch restarts from its best checkpoint with L-BFGS; that is a second run here",
    "foundation_model": "make a bundle of it with `forgefield import`, then write task: finetune and model_in: BUNDLE",
    "lr_params_factors": "parts of the model cannot have rates of their own in this translation",
}
"""These change the result where they are not at mace-torch's default."""


def remark(given: Given, sheet: Sheet) -> None:
    """Put every key that becomes none of ours onto the sheet, with its reason."""
    found = dict(NEEDLESS)
    found |= dict.fromkeys(POLAR, "only PolarMACE reads it")
    found |= dict.fromkeys(("lora_rank", "lora_alpha"), "only lora reads it")
    if given["foundation_model"] is None:
        found |= dict.fromkeys(TUNING, "only fine-tuning of a foundation model reads it")
    for name, why in found.items():
        if given.says(name):
            sheet.needless.append(Remark(name, given[name], why))
    lost = dict(LOST)
    if given["foundation_model"] is not None:
        lost |= dict.fromkeys(TUNING, "part of fine-tuning a foundation model; see the finetune task")
    for name, why in lost.items():
        if not given.says(name):
            continue
        if _same(given, name):
            sheet.needless.append(Remark(name, given[name], "at its default; nothing to say"))
        else:
            sheet.lost.append(Remark(name, given[name], why))


def _same(given: Given, name: str) -> bool:
    """Say whether a key has its default, or a value that means the same."""
    value = given[name]
    if name == "freeze" and value == 0:
        return True
    same = "".join(str(value).split()) == "".join(str(given.defaults[name]).split())
    return same or (value is None) or str(value).lower() in ("none", "{}")
