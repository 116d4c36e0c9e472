"""What AIMNet2mult takes where its files say nothing: its own train.yaml is laid under the user's, block by block."""

TRAIN = """\
fidelity_offset: 200
use_fidelity_readouts: true
data:
  fidelity_datasets: {}
  fidelity_weights: {}
  val_fidelity_datasets: null
  sae: {energy: {files: {}, mode: linreg}}
  val_fraction: 0.01
  separate_val: true
  ddp_load_full_dataset: false
  x: [coord, numbers, charge, mult]
  y: [energy, forces, charges, spin_charges]
  samplers:
    train:
      kwargs: {batch_size: 32, batch_mode: atoms, shuffle: true, batches_per_epoch: 100, sampling_strategy: weighted}
    val:
      kwargs: {batch_size: 64, batch_mode: atoms, shuffle: false, batches_per_epoch: -1, sampling_strategy: uniform}
  loaders:
    train: {num_workers: 0, pin_memory: true}
    val: {num_workers: 0, pin_memory: true}
loss:
  class: aimnet2mult.train.loss.MTLoss
  kwargs:
    components:
      energy: {fn: aimnet2mult.train.loss.energy_loss_fn, weight: 1.0}
      forces:
        {fn: aimnet2mult.train.loss.peratom_loss_fn, weight: 0.2, kwargs: {key_true: forces, key_pred: forces}}
      charges:
        {fn: aimnet2mult.train.loss.peratom_loss_fn, weight: 0.05, kwargs: {key_true: charges, key_pred: charges}}
      spin_charges:
        fn: aimnet2mult.train.loss.peratom_loss_fn
        weight: 0.05
        kwargs: {key_true: spin_charges, key_pred: spin_charges}
optimizer:
  class: torch.optim.RAdam
  force_train: []
  force_no_train: []
  kwargs: {lr: 1.0e-4, weight_decay: 1.0e-8}
  param_groups:
    embeddings: {re: afv.weight, lr: 5.0e-5, weight_decay: 0.0}
    shifts: {re: '.*.atomic_shift.shifts.weight$', weight_decay: 0.0}
scheduler: null
trainer: {epochs: 10}
checkpoint: {dirname: checkpoints, filename_prefix: '${run_name}', save_best: false, kwargs: {n_saved: 2}}
wandb:
  init: {name: '${run_name}', mode: online, entity: null, project: '${project_name}', notes: null}
"""
MODEL = """\
class: aimnet2mult.models.aimnet2.AIMNet2
kwargs:
  nfeature: 16
  d2features: true
  ncomb_v: 12
  hidden: [[512, 380], [512, 380], [512, 380, 380]]
  aim_size: 256
  aev: {rc_s: 5.0, nshifts_s: 16}
  num_charge_channels: 2
  outputs:
    energy_mlp:
      class: aimnet2mult.modules.Output
      kwargs:
        n_in: 256
        n_out: 1
        key_in: aim
        key_out: energy
        mlp: {activation_fn: torch.nn.GELU, last_linear: true, hidden: [128, 128]}
    atomic_shift: {class: aimnet2mult.modules.AtomicShift, kwargs: {key_in: energy, key_out: energy}}
    atomic_sum: {class: aimnet2mult.modules.AtomicSum, kwargs: {key_in: energy, key_out: energy}}
    lrcoulomb: {class: aimnet2mult.modules.LRCoulomb, kwargs: {key_in: charges, key_out: energy}}
"""
