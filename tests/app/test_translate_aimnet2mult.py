"""forgefield translate --from aimnet2mult: no key is dropped, what was dead upstream is said, the result is valid."""

import json
import sys

import pytest
from typer.testing import CliRunner

from forgefield.app.cli import app
from forgefield.app.run import load_run
from forgefield.app.translate.aimnet2mult.keys import KEYS, pattern_of
from forgefield.app.translate.aimnet2mult.parameters import DECAYS, pairs
from forgefield.app.translated_text import render
from forgefield.app.translation import open_dialect, translate
from forgefield.core.catalog import Catalog, Entry
from forgefield.core.errors import ConfigError
from forgefield.core.settings import Settings
from forgefield.train.groups import NEVER_DECAY

TRAIN = """\
run_name: first
project_name: levels
data:
  fidelity_datasets: {0: dft.h5, 1: ccsd.h5}
  sae: {energy: {files: {0: sae_fid0.yaml, 1: sae_fid1.yaml}}}
"""
TRAINER = "data.samplers.train.kwargs"
VALIDATOR = "data.samplers.val.kwargs"
COMPONENTS = "loss.kwargs.components"
OUTPUTS = "model.kwargs.outputs"
PLATEAU = "ignite.handlers.param_scheduler.ReduceLROnPlateauScheduler"
COSINE = "ignite.handlers.param_scheduler.CosineAnnealingScheduler"


class Aev(Settings):
    rc_s: float = 5.0
    nshifts_s: int = 16
    rmin: float = 0.8


class Aimnet2(Settings):
    aev: Aev = Aev()
    nfeature: int = 16
    d2features: bool = True
    ncomb_v: int = 12
    hidden: tuple[tuple[int, ...], ...] = ((512, 380), (512, 380), (512, 380, 380))
    aim_size: int = 256
    energy_hidden: tuple[int, ...] = (128, 128)
    num_charge_channels: int = 1
    moments_about: str = "origin"


class Coulomb(Settings):
    method: str = "simple"
    cutoff: float | None = None
    short_range_cutoff: float = 4.6
    dsf_alpha: float = 0.2


STAND_INS = {"forgefield.models.architectures": {"aimnet2": Aimnet2}, "forgefield.models.physics": {"coulomb": Coulomb}}


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    """Settings of parts that this version may not have yet."""
    names, entry = Catalog.names, Catalog.entry

    def absent(catalog):
        return [name for name in STAND_INS.get(catalog.package, {}) if name not in names(catalog)]

    def found(catalog, name):
        return Entry(STAND_INS[catalog.package][name], object) if name in absent(catalog) else entry(catalog, name)

    monkeypatch.setattr(Catalog, "names", lambda catalog: sorted([*names(catalog), *absent(catalog)]))
    monkeypatch.setattr(Catalog, "entry", found)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yaml").write_text(TRAIN)
    (tmp_path / "model.yaml").write_text(json.dumps(MODEL))
    (tmp_path / "sae_fid0.yaml").write_text("1: -13.58\n6: -1029.4\n8: -2041.7\n")
    (tmp_path / "sae_fid1.yaml").write_text("1: -13.5\n6: -1029.0\n8: -2041.0\n")
    return tmp_path


MODEL = {
    "class": "aimnet2mult.models.aimnet2.AIMNet2",
    "kwargs": {
        "nfeature": 16, "d2features": True, "ncomb_v": 12, "hidden": [[512, 380], [512, 380], [512, 380, 380]],
        "aim_size": 256, "num_charge_channels": 2, "aev": {"rc_s": 5.0, "nshifts_s": 16},
        "outputs": {
            "energy_mlp": {
                "class": "aimnet2mult.modules.Output",
                "kwargs": {
                    "n_in": 256, "n_out": 1, "key_in": "aim", "key_out": "energy",
                    "mlp": {"activation_fn": "torch.nn.GELU", "hidden": [128, 128], "last_linear": True},
                },
            },
            "atomic_shift": {"class": "aimnet2mult.modules.AtomicShift",
                             "kwargs": {"key_in": "energy", "key_out": "energy"}},
            "atomic_sum": {"class": "aimnet2mult.modules.AtomicSum",
                           "kwargs": {"key_in": "energy", "key_out": "energy"}},
            "lrcoulomb": {"class": "aimnet2mult.modules.LRCoulomb",
                          "kwargs": {"key_in": "charges", "key_out": "energy", "method": "simple", "rc": 4.6}},
        },
    },
}  # fmt: skip


def call(*words):
    result = CliRunner(env={"COLUMNS": "150", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [str(w) for w in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def words(keys):
    return [f"{key}={json.dumps(value)}" for key, value in keys.items() if not key.startswith("model.")]


def sheet_of(folder, **keys):
    """Translate the files with keys written over them; `model.` keys go into model.yaml."""
    model = json.loads(json.dumps(MODEL))
    for key, value in keys.items():
        if key.startswith("model."):
            *path, last = key.split(".")[1:]
            inner = model
            for part in path:
                inner = inner.setdefault(part, {})
            inner[last] = value
    (folder / "model.yaml").write_text(json.dumps(model))
    dialect = open_dialect("aimnet2mult")
    given = dialect.read(["train.yaml", "model.yaml", *words(keys)])
    sheet = translate(dialect, given, folder)
    return given, sheet, render(dialect, given, sheet)


def values(folder, **keys):
    _, sheet, text = sheet_of(folder, **keys)
    (folder / "run.yaml").write_text(text)
    load_run("run.yaml")
    return {path: line.value for path, line in sheet.lines.items()}, sheet


def lost(sheet):
    return {remark.key: remark.why for remark in sheet.lost}


# ------------------------------------------------------------------------------------------------ the whole of a recipe


def test_the_recipe_of_the_documentation(folder):
    """One command with both files and its key=value words; the result passes check's validation, with two levels."""
    more = ["data.fidelity_weights.0=3", "data.fidelity_weights.1=1", "run_name=second"]
    result = call("translate", "--from", "aimnet2mult", "train.yaml", "model.yaml", *more)
    assert result.exit_code == 0, result.stderr
    run = load_run("run.yaml")[0]
    assert (run.name, run.backend, run.task) == ("second", "aimnet2", "train")
    assert [(str(s.path.name), s.fidelity) for s in run.data.train] == [("dft.h5", "fid0"), ("ccsd.h5", "fid1")]
    assert run.data.sampling == {"fid0": 3.0, "fid1": 1.0}
    assert run.data.e0 == {
        "fid0": {"H": -13.58, "C": -1029.4, "O": -2041.7}, "fid1": {"H": -13.5, "C": -1029.0, "O": -2041.0},
    }  # fmt: skip
    assert run.model.fidelity.model_dump() == {"readouts": True, "embedding": "elements"}
    assert (run.data.val_fraction, run.data.split.method) == (0.01, "random")
    train = run.train
    assert (train.same_size, train.same_fidelity, train.max_atoms, train.batch_size) == (True, True, 32, None)
    assert (train.cycle_steps, train.max_updates, train.max_grad_norm, train.ema_decay) == (100, 1000, 1.0, None)
    assert (train.optimizer, train.lr, train.scheduler, train.amsgrad) == ("radam", 1e-4, None, True)
    assert train.missing_labels == "mask"
    text = (folder / "run.yaml").read_text()
    assert text.startswith("# Translated from train.yaml and model.yaml, settings of AIMNet2mult.")
    said = " ".join(line.strip(" #") for line in text.splitlines())
    assert "fidelity_weights: dead upstream" in said
    assert "the level fid0, fid1" in said


def test_weights_of_the_loss_sum_to_one(folder):
    weights = {"energy": 1.0, "forces": 0.5, "charges": 0.25, "spin_charges": 0.25}
    found, sheet = values(folder, **{f"{COMPONENTS}.{name}.weight": weight for name, weight in weights.items()})
    assert (found["train.energy_weight"], found["train.force_weight"]) == (0.5, 0.25)
    assert found["train.targets"] == {"charges": {"weight": 0.125}, "spin_charges": {"weight": 0.125}}
    assert found["train.energy_normalization"] == "sqrt_atoms"
    assert "normalises its weights" in sheet.lines["train.energy_weight"].comment


def test_the_loss_has_the_numbers_of_theirs(folder):
    """Their formulas written down here: mean of dE^2 / sqrt(N), mean of squares over all components of forces."""
    import torch

    from forgefield.core.quantities import QUANTITIES
    from forgefield.train.loss import build_term
    from forgefield.train.normalization import Rows, counted, weighted

    found, _ = values(folder, **{f"{COMPONENTS}.forces.weight": 0.5, "data.y": ["energy", "forces"]})
    natoms = torch.tensor([5, 5, 5])
    energy = torch.tensor([[0.3], [-0.2], [0.7]], dtype=torch.float64)
    forces = torch.linspace(-1, 1, 45, dtype=torch.float64).reshape(15, 3)
    total = 1.0 + 0.5 + 0.05 + 0.05  # all components count in the sum, those without labels too
    wanted = 1.0 / total * (energy.squeeze(1) ** 2 / natoms.double().sqrt()).mean() + 0.5 / total * (forces**2).mean()
    ours = 0.0
    for quantity, difference, key in (("energy", energy, "energy"), ("forces", forces, "force")):
        term = build_term(quantity, "mse", found.get(f"train.{key}_normalization", "per_atom"))
        n = len(difference)
        of = torch.arange(3) if n == 3 else torch.arange(3).repeat_interleave(5)
        rows = Rows(torch.ones(n, dtype=torch.bool), torch.ones(n, dtype=torch.float64), of, natoms[of], 3)
        rows = weighted(rows, QUANTITIES[quantity], term.normalization)
        if quantity == "energy":
            assert counted(rows, None, QUANTITIES[quantity], term.normalization) is rows
        part = term.loss.sums(difference, rows)[0] / term.loss.count(rows, difference.shape[1])
        ours += found[f"train.{key}_weight"] * part
    assert float(ours) == pytest.approx(float(wanted), rel=1e-12)


def test_one_level_is_a_plain_model(folder):
    (folder / "train.yaml").write_text(
        "run_name: one\ndata: {fidelity_datasets: {0: dft.h5}, sae: {energy: {file: a.yaml}}}"
    )
    found, sheet = values(folder, fidelity_offset=0)
    assert found["data.train"] == "dft.h5"
    assert "model.fidelity" not in found
    assert "train.same_fidelity" not in found
    assert found["data.e0"] == "least_squares"
    assert found["data.e0_percentiles"] == [2.0, 98.0]
    assert "a.yaml not found from here" in sheet.lines["data.e0"].comment


# ----------------------------------------------------------------------------------------------- what was dead upstream


@pytest.mark.parametrize(
    ("keys", "path", "value"),
    [
        ({"data.fidelity_weights.0": 2.0, "data.fidelity_weights.1": 1.0}, "data.sampling", {"fid0": 2.0, "fid1": 1.0}),
        ({"data.val_fidelity_datasets.1": "v.h5"}, "data.val", [{"path": "v.h5", "fidelity": "fid1"}]),
        ({"data.loaders.train.num_workers": 3}, "train.num_workers", 3),
        ({"optimizer.force_no_train": ["afv"]}, "train.force_no_train", [r"^architecture\.embedding$"]),
        ({"optimizer.force_train": ["energy_mlp"]}, "train.force_train",
         [r"^architecture\.readout\.(weights|biases)\."]),
        ({"optimizer.grad_clip.max_norm": 0.4}, "train.max_grad_norm", 0.4),
    ],
)  # fmt: skip
def test_dead_keys_have_an_effect_now(folder, keys, path, value):
    found, sheet = values(folder, **keys)
    assert found[path] == value
    assert "dead upstream" in sheet.lines[path].comment


def test_other_dead_keys_are_said_to_be_dead(folder):
    _, sheet, _ = sheet_of(folder, **{
        "data.loaders.val.num_workers": 2, "data.loaders.train.pin_memory": True, "log_frequency.train": 10,
        "wandb.log_frequency.val": 500,
    })  # fmt: skip
    why = {remark.key: remark.why for remark in sheet.needless}
    for key in ("data.loaders.val.num_workers", "data.loaders.train.pin_memory", "log_frequency.train"):
        assert "dead upstream" in why[key]
    assert "set no interval of validation upstream" in why["wandb.log_frequency.val"]


# ------------------------------------------------------------------------------------------------------------- mappings


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({f"{TRAINER}.batch_mode": "molecules", f"{TRAINER}.batch_size": 64},
         {"train.batch_size": 64, "train.max_atoms": None}),
        ({f"{TRAINER}.batches_per_epoch": -1, "trainer.epochs": 7}, {"train.epochs": 7, "train.cycle_steps": None}),
        ({f"{VALIDATOR}.batch_mode": "molecules", f"{VALIDATOR}.batch_size": 9}, {"data.batch_size": 9}),
        ({f"{TRAINER}.sampling_strategy": "uniform", "data.fidelity_weights.0": 2.0}, {"data.sampling": None}),
        ({"log_frequency.val": 500}, {"train.validate_every": "500 updates"}),
        ({"val_frequency.mode": "epochs", "val_frequency.every": 3}, {"train.validate_every": 3}),
        ({"val_frequency.mode": "iterations", "val_frequency.every": 3}, {"train.validate_every": "3 updates"}),
        ({"data.x": ["coord", "numbers", "charge"]}, {"data.multiplicity": 1}),
        ({"use_fidelity_readouts": False}, {"model.fidelity": {"readouts": False, "embedding": "elements"}}),
        ({"optimizer.class": "torch.optim.AdamW", "optimizer.kwargs.betas": [0.8, 0.99]},
         {"train.optimizer": "adamw", "train.betas": [0.8, 0.99], "train.amsgrad": False}),
        ({"optimizer.class": "torch.optim.SGD"}, {"train.optimizer": "sgd", "train.momentum": 0.0}),
        ({"scheduler": {"class": PLATEAU, "kwargs": {"metric_name": "val_loss", "factor": 0.9, "patience": 3}}},
         {"train.scheduler": "plateau", "train.lr_factor": 0.9, "train.plateau_patience": 3}),
        ({"scheduler": {"class": PLATEAU, "terminate_on_low_lr": 1e-7}},
         {"train.lr_factor": 0.1, "train.plateau_patience": 10, "train.terminate_on_low_lr": 1e-7}),
        ({"scheduler": {"class": COSINE, "kwargs": {"start_value": 1e-3, "end_value": 1e-6, "cycle_size": 1000}}},
         {"train.scheduler": "cosine", "train.lr": 1e-3, "train.min_lr": 1e-6, "train.scheduler_step_unit": "update"}),
        ({"scheduler": {"class": "torch.optim.lr_scheduler.StepLR", "kwargs": {"step_size": 30, "gamma": 0.5}}},
         {"train.scheduler": "step", "train.step_size": 30, "train.gamma": 0.5, "train.scheduler_step_unit": "cycle"}),
        ({"scheduler": {"class": "torch.optim.lr_scheduler.ExponentialLR", "kwargs": {"gamma": 0.95}}},
         {"train.scheduler": "step", "train.step_size": 1, "train.gamma": 0.95}),
        ({"scheduler": {"class": "torch.optim.lr_scheduler.CosineAnnealingLR", "kwargs": {"T_max": 10}}},
         {"train.scheduler": "cosine", "train.min_lr": 0.0, "train.T_max": None}),
        ({"scheduler": {"class": "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts", "kwargs": {"T_0": 2}},
          f"{TRAINER}.batches_per_epoch": -1}, {"train.scheduler": "cosine_restarts", "train.T_0": 2.0}),
        ({"checkpoint.save_best": True, "checkpoint.kwargs.n_saved": 5}, {"train.best_k": 5}),
        ({"model.kwargs.aev.rc_s": 4.8, "model.kwargs.aev.rmin": 0.5},
         {"model.aev": {"rc_s": 4.8, "nshifts_s": 16, "rmin": 0.5}}),
        ({f"{OUTPUTS}.lrcoulomb.kwargs.method": "dsf"},
         {"model.physics": {"coulomb": {"method": "dsf", "short_range_cutoff": 4.6, "dsf_alpha": 0.2,
                                        "cutoff": 15.0}}}),
        ({f"{OUTPUTS}.lrcoulomb.kwargs.method": "ewald"},
         {"model.physics": {"coulomb": {"method": "ewald", "short_range_cutoff": 4.6}}}),
        ({f"{OUTPUTS}.d.class": "aimnet2mult.modules.Dipole", f"{OUTPUTS}.d.kwargs.center_coord": True},
         {"model.moments_about": "mass"}),
        ({f"{OUTPUTS}.energy_mlp.kwargs.mlp.hidden": [64]}, {"model.energy_hidden": [64]}),
    ],
)  # fmt: skip
def test_mappings(folder, keys, wanted):
    found, sheet = values(folder, **keys)
    assert not sheet.lost
    for path, value in wanted.items():
        assert found.get(path) == value, path


def test_dispersion_among_the_outputs(folder):
    _, sheet, _ = sheet_of(folder, **{
        f"{OUTPUTS}.disp.class": "aimnet2mult.modules.DFTD3",
        f"{OUTPUTS}.disp.kwargs": {"s8": 0.3908, "a1": 0.566, "a2": 3.128, "key_out": "energy"},
    })  # fmt: skip
    assert sheet.lines["model.physics"].value["d3"] == {"s8": 0.3908, "a1": 0.566, "a2": 3.128}
    assert not sheet.lost


def test_groups_by_the_names_of_our_parameters(folder):
    found, sheet = values(folder)
    groups = [{"match": r"^architecture\.embedding$", "lr_factor": 0.5}, {"match": "."}]
    assert found["train.param_groups"] == groups
    found, _ = values(folder, **{"optimizer.param_groups.first.re": "mlps.0", "optimizer.param_groups.first.lr": 1e-3})
    assert {"match": r"^architecture\.passes\.0\.", "lr_factor": 10.0} in found["train.param_groups"]
    _, sheet, _ = sheet_of(folder, **{"optimizer.param_groups.one.re": "fidelity_readouts.1"})
    assert "some levels alone" in lost(sheet)["optimizer.param_groups.one.re"]
    (folder / "train.yaml").write_text(TRAIN.replace("1: ccsd.h5", "1: '???'"))
    assert "model.fidelity" not in sheet_of(folder)[1].lines  # a placeholder is no level


def test_names_of_parameters_are_those_of_our_model(folder):
    """The table of names against the model itself: none is left out, none is invented."""
    pytest.importorskip("forgefield.models.architectures.aimnet2")
    from forgefield.models.architecture import ArchitectureContext

    given, _, _ = sheet_of(folder)
    entry = Catalog("forgefield.models.architectures").entry("aimnet2")
    context = ArchitectureContext(elements=(1, 6, 8), heads=("fid0", "fid1"), avg_num_neighbors=5.0)
    real = entry.build(entry.settings(num_charge_channels=2), context)
    assert {here for _, here in pairs(given)} == {f"architecture.{name}" for name, _ in real.named_parameters()}
    decaying = [name for name, p in real.named_parameters() if p.ndim > 1 and not NEVER_DECAY.search(name)]
    assert decaying == [name for name, _ in real.named_parameters() if DECAYS.search(name)]


@pytest.mark.parametrize(
    ("keys", "key", "why"),
    [
        ({"loss.class": "aimnet2mult.train.loss.MTAdaWLoss"}, "loss.class", "fixed weights"),
        ({"loss.class": "os.system"}, "loss.class", "unknown loss"),
        ({"loss.kwargs.eta": 0.001}, "loss.kwargs.eta", "MTAdaWLoss"),
        ({f"{COMPONENTS}.charges.kwargs.missing_label_regularization": 0.1},
         f"{COMPONENTS}.charges.kwargs.missing_label_regularization", "not pulled to 0"),
        ({f"{COMPONENTS}.gap": {"fn": "aimnet2mult.train.loss.mse_loss_fn", "weight": 1.0,
                                "kwargs": {"key_true": "gap", "key_pred": "gap"}}}, f"{COMPONENTS}.gap", "of gap"),
        ({"data.sae.energy.mode": "logratio"}, "data.sae.energy.mode", "least_squares"),
        ({"data.separate_val": False}, "data.separate_val", "data.val"),
        ({f"{TRAINER}.shuffle": False}, f"{TRAINER}.shuffle", "train.seed"),
        ({f"{VALIDATOR}.batches_per_epoch": 5}, f"{VALIDATOR}.batches_per_epoch", "data.val_fraction"),
        ({"optimizer.class": "torch.optim.Adagrad"}, "optimizer.class", "torch.optim.AdamW"),
        ({"optimizer.force_no_train": ["backbone.*"]}, "optimizer.force_no_train", "train.freeze: head_only"),
        ({"optimizer.param_groups.embeddings.weight_decay": 0.1}, "optimizer.param_groups.embeddings.weight_decay",
         "do not decay here"),
        ({"scheduler.class": "torch.optim.lr_scheduler.CyclicLR"}, "scheduler.class", "StepLR"),
        ({"scheduler": {"class": PLATEAU, "kwargs": {"min_delta": 1e-4}}}, "scheduler.kwargs.min_delta", "torch"),
        ({"scheduler": {"class": PLATEAU, "kwargs": {"cooldown": 3}}}, "scheduler.kwargs.cooldown", "always 0"),
        ({"scheduler": {"class": COSINE, "kwargs": {"start_value": 1e-4, "end_value": 1e-6, "cycle_size": 200}}},
         "scheduler.kwargs.cycle_size", "the run has 1000"),
        ({f"{OUTPUTS}.rep.class": "aimnet2mult.modules.SRRep"}, f"{OUTPUTS}.rep.class", "zbl"),
        ({"model.class": "aimnet2mult.models.other.Net"}, "model.class", "AIMNet2"),
        ({f"{OUTPUTS}.energy_mlp.kwargs.mlp.activation_fn": "torch.nn.ReLU"},
         f"{OUTPUTS}.energy_mlp.kwargs.mlp.activation_fn", "GELU"),
        ({"trainer.epoch": 3}, "trainer.epoch", "did you mean trainer.epochs"),
    ],
)  # fmt: skip
def test_refusals_name_the_nearest(folder, keys, key, why):
    _, sheet, _ = sheet_of(folder, **keys)
    assert why in lost(sheet)[key]


def test_refusals_come_together_with_their_places(folder):
    (folder / "train.yaml").write_text(
        TRAIN + "loss: {class: aimnet2mult.train.loss.MTAdaWLoss}\ntrainer: {epoch: 3}\n"
    )
    result = call("translate", "--from", "aimnet2mult", "train.yaml")
    assert result.exit_code == 2
    assert "train.yaml:6:8: loss.class:" in result.stderr
    assert "train.yaml:7:11: trainer.epoch:" in result.stderr
    assert not (folder / "run.yaml").exists()
    assert call("translate", "--from", "aimnet2mult", "train.yaml", "--force").exit_code == 0
    assert "HAVE NO COUNTERPART" in (folder / "run.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["train.yaml", "fidelity_offset=0"], "fidelity_offset: 0 with several fidelities"),
        (["train.yaml", "data.fidelity_datasets.3=x.h5"], "without gaps"),
        (["train.yaml", "data.fidelity_weights.0=2"], "gives no weight for fidelity 1"),
        (["train.yaml", "data.fidelity_weights={0: 2, 1: 0}"], "expected a number above 0"),
        (["train.yaml", "data.x=[coord, numbers]"], "lacks charge"),
        (["train.yaml", f"{TRAINER}.batch_mode=bonds"], "expected atoms or molecules"),
        (["train.yaml", "trainer.epochs=many"], "trainer.epochs: got 'many', expected a whole number"),
        (["train.yaml", "wandb=7"], "expected a block of keys"),
        (["train.yaml", "checkpoint.dirname='${nowhere}'"], "nowhere} is not given"),
        (["train.yaml", "log_frequency.val=3", "val_frequency.every=2"], "two intervals"),
        (["train.yaml", "model.yaml", "model.yaml"], "second file of a model"),
        (["train.yaml", "optimizer.param_groups.x.re='('"], "is not a regular expression"),
        (["train.yaml", ".lr=3"], "dotted key"),
        (["run_name=x"], "names no file"),
        (["model.yaml"], "run_name: is not given"),
        (["sae_fid0.yaml", "run_name=x", "data.fidelity_datasets.1=x.h5"], "without gaps"),
        (["train.yaml", "missing.yaml"], "no such file"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message(folder, words, match):
    dialect = open_dialect("aimnet2mult")
    with pytest.raises(ConfigError, match=match):
        translate(dialect, dialect.read(words), folder)


def test_a_damaged_sae_file_is_named(folder):
    (folder / "sae_fid1.yaml").write_text("1: high\n")
    with pytest.raises(ConfigError, match=r"train.yaml:5:44: data.sae.energy.files.1: .*high"):
        sheet_of(folder)


def test_later_files_and_words_go_over_earlier_ones(folder):
    (folder / "more.yaml").write_text("trainer: {epochs: 3}\noptimizer: {kwargs: {lr: 5.0e-5}}\n")
    dialect = open_dialect("aimnet2mult")
    given = dialect.read(["train.yaml", "more.yaml", "model.yaml", "trainer.epochs=4"])
    assert (given["trainer.epochs"], given["optimizer.kwargs.lr"], given["wandb.init.name"]) == (4, 5e-5, "first")
    assert given.places["trainer.epochs"] == "trainer.epochs=4"
    assert given.places["optimizer.kwargs.lr"].startswith("more.yaml:2")


def test_class_paths_are_text(folder):
    sheet_of(folder, **{"optimizer.class": "antigravity.Fly", f"{OUTPUTS}.x.class": "antigravity.Fly"})
    assert "antigravity" not in sys.modules
    assert "aimnet2mult" not in sys.modules


# ------------------------------------------------------------------------------------------ nothing is silently dropped

KEYS_OF_E = """
run_name project_name fidelity_offset use_fidelity_readouts data.fidelity_datasets.0 data.fidelity_weights.0
data.val_fidelity_datasets.0 data.sae.energy.files.0 data.sae.energy.file data.sae.energy.mode data.val_fraction
data.separate_val data.ddp_load_full_dataset data.x data.y
data.samplers.train.kwargs.batch_size data.samplers.train.kwargs.batch_mode data.samplers.train.kwargs.shuffle
data.samplers.train.kwargs.batches_per_epoch data.samplers.train.kwargs.sampling_strategy
data.samplers.val.kwargs.batch_size data.samplers.val.kwargs.batch_mode data.samplers.val.kwargs.shuffle
data.samplers.val.kwargs.batches_per_epoch data.samplers.val.kwargs.sampling_strategy
data.loaders.train.num_workers data.loaders.train.pin_memory data.loaders.val.num_workers data.loaders.val.pin_memory
loss.class loss.kwargs.eta loss.kwargs.components.energy.fn loss.kwargs.components.energy.weight
loss.kwargs.components.energy.scale loss.kwargs.components.forces.kwargs.key_true
loss.kwargs.components.forces.kwargs.key_pred loss.kwargs.components.forces.kwargs.missing_label_regularization
optimizer.class optimizer.kwargs.lr optimizer.kwargs.weight_decay optimizer.kwargs.betas optimizer.kwargs.eps
optimizer.param_groups.embeddings.re optimizer.param_groups.embeddings.lr
optimizer.param_groups.embeddings.weight_decay optimizer.force_train optimizer.force_no_train
scheduler.class scheduler.kwargs.metric_name scheduler.kwargs.factor scheduler.kwargs.patience
scheduler.terminate_on_low_lr trainer.epochs checkpoint.dirname checkpoint.filename_prefix checkpoint.save_best
checkpoint.kwargs.n_saved checkpoint.kwargs.require_empty log_frequency.val val_frequency.mode val_frequency.every
wandb.init.name wandb.init.mode wandb.init.entity wandb.init.project wandb.init.notes wandb.watch_model.log
wandb.log_frequency.train wandb.log_frequency.val metrics.class metrics.kwargs.cfg.energy.abbr
metrics.kwargs.cfg.energy.scale metrics.kwargs.cfg.energy.peratom metrics.kwargs.cfg.energy.mult
model.class model.kwargs.nfeature model.kwargs.d2features model.kwargs.ncomb_v model.kwargs.hidden
model.kwargs.aim_size model.kwargs.aev.rc_s model.kwargs.aev.nshifts_s model.kwargs.aev.rmin
model.kwargs.aev.eta_s model.kwargs.aev.shifts_s model.kwargs.aev.rc_v model.kwargs.aev.nshifts_v
model.kwargs.aev.eta_v model.kwargs.aev.shifts_v model.kwargs.num_charge_channels model.kwargs.max_z
model.kwargs.outputs.energy_mlp.class model.kwargs.outputs.energy_mlp.kwargs.n_in
model.kwargs.outputs.energy_mlp.kwargs.mlp.hidden model.kwargs.outputs.atomic_shift.kwargs.num_types
model.kwargs.outputs.lrcoulomb.kwargs.method model.kwargs.outputs.lrcoulomb.kwargs.rc
model.kwargs.outputs.lrcoulomb.kwargs.dsf_alpha model.kwargs.outputs.lrcoulomb.kwargs.dsf_rc
"""
"""The keys of train.yaml and model.yaml, one by one, with a name in the place of those that users choose."""
OTHERS = """
optimizer.kwargs.amsgrad optimizer.kwargs.momentum optimizer.kwargs.momentum_decay optimizer.kwargs.nesterov
optimizer.kwargs.decoupled_weight_decay optimizer.grad_clip.max_norm log_frequency.train
"""
E2, MORE = KEYS_OF_E.split(), OTHERS.split()
OTHER = {
    "data.x": ["coord", "numbers", "charge"], "data.y": ["energy"], "data.sae.energy.mode": "logratio",
    "data.fidelity_weights.0": 2.0, "optimizer.class": "torch.optim.AdamW", "optimizer.kwargs.betas": [0.8, 0.9],
    "optimizer.force_train": ["afv"], "optimizer.force_no_train": ["afv"], "checkpoint.save_best": True,
    "optimizer.param_groups.embeddings.re": "mlps", "wandb.init.mode": "offline", "fidelity_offset": 300,
    "model.kwargs.hidden": [[8], [8]], "model.kwargs.aim_size": 64, "model.kwargs.num_charge_channels": 1,
    "model.kwargs.outputs.energy_mlp.class": "aimnet2mult.modules.SRRep", "model.class": "other.Net",
    "model.kwargs.outputs.energy_mlp.kwargs.n_in": 64, "model.kwargs.outputs.lrcoulomb.kwargs.method": "ewald",
    "model.kwargs.outputs.energy_mlp.kwargs.mlp.hidden": [64], "scheduler.kwargs.metric_name": "val_loss",
    "data.samplers.train.kwargs.sampling_strategy": "uniform", "data.val_fraction": 0.2,
    "val_frequency.mode": "iterations", f"{COMPONENTS}.energy.fn": "aimnet.train.loss.mse_loss_fn",
    f"{COMPONENTS}.forces.kwargs.key_true": "charges", "wandb.watch_model.log": "all", "data.sae.energy.file": "a.yaml",
}  # fmt: skip
BY_KIND = {"text": "other", "whole": 7, "number": 0.123, "number or none": 0.5, "truth": None, "list": [0.5]}
BESIDE = {
    "scheduler.": {"scheduler.class": PLATEAU}, "val_frequency.": {"val_frequency.every": 3},
    "data.samplers.train.kwargs.sampling_strategy": {"data.fidelity_weights": {"0": 1.0, "1": 2.0}},
    "checkpoint.kwargs.n_saved": {"checkpoint.save_best": True},
    "model.kwargs.aim_size": {"model.kwargs.outputs.energy_mlp.kwargs.n_in": None},
    "model.kwargs.outputs.lrcoulomb.kwargs.dsf": {"model.kwargs.outputs.lrcoulomb.kwargs.method": "dsf"},
}  # fmt: skip


def other_value(key):
    if key in OTHER:
        return OTHER[key]
    kind = KEYS[pattern_of(key, KEYS)].kind
    if kind != "truth":
        return "molecules" if key.endswith("batch_mode") else BY_KIND[kind]
    return not key.endswith(("readouts", "separate_val", "d2features", "shuffle"))


def text_or_refusal(folder, keys):
    try:
        return sheet_of(folder, **keys)[2]
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("key", [*E2, *MORE])
def test_no_key_is_silently_dropped(folder, key):
    """Each key alone: the run differs, or a comment names the key, or it is refused by its name."""
    assert pattern_of(key, KEYS) is not None
    beside = next((keys for start, keys in BESIDE.items() if key.startswith(start)), {})
    beside = {name: value for name, value in beside.items() if name != key}
    value = other_value(key)
    _, _, before = sheet_of(folder, **beside)
    after = text_or_refusal(folder, beside | {key: value})
    assert before != after
    if key not in after:
        settings = [[line.partition("  #")[0] for line in t.splitlines() if not line.startswith("#")]
                    for t in (before, after)]  # fmt: skip
        assert settings[0] != settings[1]


def test_the_list_of_keys_is_the_table():
    """Every pattern of the table stands in the list above, and the other way round."""
    assert {pattern_of(key, KEYS) for key in (*E2, *MORE)} == set(KEYS)
