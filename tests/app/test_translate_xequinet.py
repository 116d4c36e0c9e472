"""forgefield translate --from xequinet: no key is dropped, units of the loss, schedules and parts are kept."""

import json

import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

from forgefield.app.cli import app
from forgefield.app.run import load_run
from forgefield.app.translate.xequinet.keys import ALIASES, KEYS
from forgefield.app.translated_text import render
from forgefield.app.translation import Sheet, open_dialect, translate
from forgefield.core.catalog import Catalog, Entry
from forgefield.core.errors import ConfigError
from forgefield.core.settings import Settings
from forgefield.core.units import DEBYE, HARTREE
from forgefield.train.loss import build_term
from forgefield.train.normalization import Rows


class Xpainn(Settings):
    """The keys of the architecture, where this version does not have it yet."""

    node_dim: int = 64
    node_irreps: str = "64x0e + 32x1o + 16x2e"
    embed_basis: str = "gfn2-xtb"
    aux_basis: str = "aux56"
    num_basis: int = 20
    rbf_kernel: str = "bessel"
    cutoff: float = 5.0
    cutoff_fn: str = "polynomial"
    action_blocks: int = 3
    activation: str = "silu"
    layer_norm: bool = True
    softness: float = 0.1
    charge_embed: bool = False
    spin_embed: bool = False
    output_modes: list[str] | None = None
    hidden_dim: int = 64
    hidden_irreps: str | None = None
    conservation: bool = True
    magnitude: bool = False
    isotropic: bool = False


CONFIG = {
    "model": {"model_name": "xpainn", "model_kwargs": {"node_dim": 32, "node_irreps": "32x0e + 16x1o"}},
    "data": {"db_path": "data", "targets": ["energy", "forces"], "batch_size": 4},
    "trainer": {"run_name": "first", "lossfn": "mae", "losses_weight": {"energy": 1.0, "forces": 100.0},
                "max_epochs": 20, "warmup_epochs": 2},
}  # fmt: skip


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Settings of the architecture, if it is not there."""
    names, entry = Catalog.names, Catalog.entry

    def absent(catalog):
        return catalog.package == "forgefield.models.architectures" and "xpainn" not in names(catalog)

    monkeypatch.setattr(Catalog, "names", lambda c: sorted([*names(c), *(["xpainn"] if absent(c) else [])]))
    monkeypatch.setattr(
        Catalog, "entry", lambda c, n: Entry(Xpainn, object) if n == "xpainn" and absent(c) else entry(c, n)
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "split.json").write_text(json.dumps({"train": list(range(30)), "valid": [30, 31], "test": []}))
    return tmp_path


def sheet_of(folder, *words, **changes):
    """Translate the settings with keys written over them; __ stands for the dot."""
    content = json.loads(json.dumps(CONFIG))
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = content
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    with (folder / "config.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(content, file)
    dialect = open_dialect("xequinet")
    given = dialect.read(["config.yaml", *words])
    sheet = translate(dialect, given, folder)
    return given, sheet, render(dialect, given, sheet)


def values(folder, *words, **changes):
    _, sheet, _ = sheet_of(folder, *words, **changes)
    return {key: line.value for key, line in sheet.lines.items()}


def run_of(folder, *words, **changes):
    """Return the run that the written text loads as."""
    _, _, text = sheet_of(folder, *words, **changes)
    (folder / "run.yaml").write_text(text)
    (run,) = load_run(folder / "run.yaml")
    return run


def lost(folder, *words, **changes):
    _, sheet, _ = sheet_of(folder, *words, **changes)
    return {remark.key: remark.why for remark in sheet.lost}


def needless(folder, *words, **changes):
    _, sheet, _ = sheet_of(folder, *words, **changes)
    return {remark.key: remark.why for remark in sheet.needless}


def test_a_plain_run(folder):
    run = run_of(folder)
    assert (run.backend, run.name, run.run_dir) == ("xpainn", "first", folder / "first")
    train = run.train
    assert (train.energy_weight, train.force_weight, train.loss_energy) == (1.0, 100.0, "mae")
    assert train.energy_normalization == "total"
    assert (train.lr, train.scheduler, train.T_max, train.epochs) == (5e-4, "cosine", None, 20)
    assert (train.warmup, train.warmup_steps) == ("linear", 2 * 7)  # 30 // 4 updates an epoch
    assert (train.optimizer, train.weight_decay, train.amsgrad) == ("adamw", 0.01, False)
    assert (train.ema_decay, train.max_grad_norm, train.drop_last) == (None, None, True)
    assert run.model.settings.node_dim == 32
    assert run.model.settings.cutoff_fn == "cosine"


@pytest.mark.parametrize(
    ("kind", "power", "beta"),
    [("mae", 1, None), ("L2", 2, None), ("smoothl1", 1, HARTREE), ("MatLoss", 1, None)],
)
def test_weights_of_other_units_give_the_same_loss(folder, kind, power, beta):
    """The loss of an error of 0.1 Ha, and of 0.1 Ha/Å, is the same number on both sides."""
    run = run_of(folder, trainer__lossfn=kind, model__default_units={"energy": "Hartree", "pos": "Angstrom"})
    train = run.train
    assert train.energy_weight == pytest.approx(1.0 / HARTREE**power)
    assert train.force_weight == pytest.approx(100.0 / HARTREE**power)
    if beta:
        assert train.smooth_l1_beta == pytest.approx({"energy": beta, "forces": beta, "stress": beta})
    for error in (0.1, 3.0):  # Ha; below and above the end of the square
        theirs = {
            "mae": error,
            "L2": error**2,
            "smoothl1": error**2 / 2 if error < 1 else error - 0.5,
            "MatLoss": 2 * error,
        }[kind]
        d, b = error * HARTREE, beta or 1.0
        ours = {"mae": d, "L2": d**2, "smoothl1": d**2 / (2 * b) if d < b else d - b / 2, "MatLoss": d + (d**2) ** 0.5}[
            kind
        ]
        assert train.energy_weight * ours == pytest.approx(theirs)


def test_matloss_is_mean_absolute_plus_root_mean_square_error(folder):
    """The loss of a batch, on both sides from the same errors in Ha, Ha/Å and Debye."""
    units = {"energy": "Ha", "pos": "Angstrom", "dipole": "Debye"}
    weights = {"energy": 1.0, "forces": 100.0, "dipole": 2.0}
    run = run_of(folder, trainer__lossfn="matloss", trainer__losses_weight=weights, model__default_units=units,
                 model__model_kwargs__output_modes=["energy", "dipole"])  # fmt: skip
    train = run.train
    assert {train.loss_energy, train.loss_force, train.targets["dipole"].loss} == {"mae_plus_rmse"}
    errors = {"energy": [0.1, -0.3], "forces": [0.2, 0.0, -0.4, 0.1, 0.1, 0.3], "dipole": [1.0, -2.0, 0.5, 0, 0.1, 0.2]}
    scales = {"energy": HARTREE, "forces": HARTREE, "dipole": DEBYE}
    ours = {"energy": train.energy_weight, "forces": train.force_weight, "dipole": train.targets["dipole"].weight}
    for name, parts in errors.items():
        d = torch.tensor(parts, dtype=torch.float64)
        theirs = weights[name] * (d.abs().mean() + d.square().mean().sqrt())
        term = build_term(name, "mae_plus_rmse", "total" if name != "forces" else None)
        rows = torch.ones(len(d) // term.quantity.width)
        rows = Rows(rows.bool(), rows, torch.arange(len(rows)), rows.long(), len(rows))
        difference = scales[name] * d.reshape(-1, term.quantity.width)
        count = term.loss.count(rows, term.quantity.width)
        means = [value / count for value in term.loss.sums(difference, rows)]
        assert float(ours[name] * term.loss.value(means)) == pytest.approx(float(theirs), rel=1e-12), name


def test_smooth_errors_of_targets_keep_their_unit(folder):
    weights = {"energy": 1.0, "virial": 0.5, "dipole": 2.0}
    units = {"energy": "Ha", "pos": "Angstrom", "dipole": "Debye"}
    run = run_of(folder, trainer__lossfn="smoothl1", trainer__losses_weight=weights, model__default_units=units)
    beta = run.train.smooth_l1_beta
    assert (beta["virial"], beta["dipole"]) == (pytest.approx(HARTREE), pytest.approx(DEBYE))
    assert run.train.targets["dipole"].weight == pytest.approx(2.0 / DEBYE)


def test_kinds_of_energies_and_targets(folder):
    weights = {"energy/atom": 2.0, "forces": 1.0, "virial": 0.5, "atomic_charges": 3.0, "polar": 1.0, "scalar": 1.0}
    found = values(folder, trainer__losses_weight={**weights, "stress": 4.0})
    assert (found["train.energy_weight"], found["train.energy_normalization"]) == (2.0, "per_atom")
    assert found["train.stress_weight"] == 4.0
    assert found["train.targets"] == {
        "virial": {"weight": 0.5, "loss": "mae", "normalization": "total"},
        "charges": {"weight": 3.0, "loss": "mae"},
        "polarizability": {"weight": 1.0, "loss": "mae"},
        "scalar": {"weight": 1.0, "loss": "mae"},
    }
    assert found["data.targets"] == {"scalar": {"key": "scalar", "per": "structure"}}
    both = lost(folder, trainer__losses_weight={"energy": 1.0, "energy/atom": 2.0})
    assert "a second loss of the energy" in both["trainer.losses_weight.energy/atom"]
    assert (
        "no property of that name" in lost(folder, trainer__losses_weight={"homo": 1.0})["trainer.losses_weight.homo"]
    )
    with pytest.raises(ConfigError, match="losses_weight: is empty"):
        values(folder, trainer__losses_weight={})


def test_parts_of_other_names_and_limits(folder):
    assert values(folder)["data.train"] == "data"
    (folder / "data" / "mine.json").write_text(json.dumps({"train": [0, 1], "valid": [2], "test": [3]}))
    found = values(folder, data__split="mine")
    assert found["data.train"] == {"path": "data", "select": "mine:train"}
    assert found["data.test"] == {"path": "data", "select": "mine:test"}
    few = values(folder, data__max_num_sample=10)
    assert few["data.train_indices"] == {"max_samples": 10}
    assert few["data.val"] == {"path": "data", "select": "split:valid"}
    assert "data.test" not in few  # the part is empty
    assert few["train.warmup_steps"] == 2 * (10 // 4)
    assert "data.max_num_samples" in needless(folder, data__max_num_samples=10_000_000)


def test_base_labels(folder, monkeypatch):
    monkeypatch.setattr(Sheet, "knows", lambda sheet, path: True)
    monkeypatch.setattr("forgefield.app.translated_text.own_default", lambda path, backend: object())
    found = values(folder, data__base_targets=["base_energy", "base_forces", "base_dipole"])
    assert found["model.baseline"] == {"method": "labels", "targets": ["dipole"]}
    assert found["export.targets"] == []
    monkeypatch.setattr(Sheet, "knows", lambda sheet, path: False)
    assert "data.base_targets" in lost(folder, data__base_targes=["base_energy"])
    with pytest.raises(ConfigError, match="'base_x' is no base label"):
        values(folder, data__base_targets=["base_x"])


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("cosine", {"T_max": 5}, {"scheduler": "cosine", "T_max": 5}),
        ("cosine_annealing_warm_restarts", {"T_0": 4, "T_mult": 2}, {"scheduler": "cosine_restarts", "T_0": 4}),
        ("reduce_on_plateau", {"factor": 0.5, "patience": 3}, {"lr_factor": 0.5, "plateau_patience": 3}),
        ("step", {}, {"scheduler": "step", "step_size": 4, "gamma": 0.1}),
        ("exponential", {"gamma": 0.99}, {"scheduler": "exponential", "gamma": 0.99}),
        ("linear_decay", {}, {"scheduler": "linear", "T_max": None}),
        (None, {}, {"scheduler": None}),
    ],
)  # fmt: skip
def test_schedules(folder, name, options, wanted):
    run = run_of(folder, trainer__lr_scheduler=name, trainer__lr_scheduler_kwargs=options)
    for key, value in wanted.items():
        assert getattr(run.train, key) == value


def test_warm_ups(folder):
    found = values(folder, trainer__warmup_scheduler="exponential")
    assert (found["train.warmup"], found["train.warmup_steps"]) == ("exponential", 7)
    assert values(folder, trainer__warmup_scheduler="RAdam")["train.warmup"] == "radam"
    assert "train.warmup" not in values(folder, trainer__warmup_scheduler=None)
    (folder / "data" / "split.json").unlink()
    assert "updates of an epoch are not known" in lost(folder)["trainer.warmup_scheduler"]


def test_early_stops_are_in_our_units(folder):
    stops = {
        "energy": {"metric": "rmse", "patience": 5, "threshold": 0.1},
        "forces": {"lower_bound": 0.01},
        "dipole": {},
    }
    found = values(folder, trainer__early_stoppings=stops, trainer__early_stopping_mode="or",
                   model__default_units={"energy": "Ha", "pos": "Angstrom"})  # fmt: skip
    energy, forces = found["train.early_stops"]
    assert (energy["metric"], energy["patience"], energy["threshold"]) == (
        "energy_rmse",
        5,
        pytest.approx(0.1 * HARTREE),
    )
    assert forces == {"metric": "forces_mae", "lower_bound": pytest.approx(0.01 * HARTREE)}
    assert found["train.early_stop_mode"] == "any"
    assert run_of(folder, trainer__early_stoppings={"forces": {"patience": 3}}).train.early_stops[0].patience == 3


@pytest.mark.parametrize(
    ("change", "key", "word"),
    [
        ({"model__model_name": "painn"}, "model.model_name", "ForgeField has xpainn"),
        ({"model__model_kwargs__activation": "relu"}, "model.model_kwargs.activation", "kink"),
        ({"model__model_kwargs__cutoff_fn": "flat"}, "model.model_kwargs.cutoff_fn", "broken in XequiNet"),
        ({"model__model_kwargs__norm_type": "batch"}, "model.model_kwargs.norm_type", "layer_norm"),
        ({"data__cutoff": 4.0}, "data.cutoff", "neighbours would enter with a jump"),
        ({"data__default_dtype": "float16"}, "data.default_dtype", "train.amp"),
        ({"trainer__ckpt_file": "x.pt"}, "trainer.ckpt_file", "not taken over"),
        ({"trainer__finetune_modules": ["weight"]}, "trainer.finetune_modules", "'weight': no word for whole"),
        ({"trainer__optimizer_kwargs": {"foreach": True}}, "trainer.optimizer_kwargs.foreach", "no such key"),
        ({"trainer__lr_scheduler_kwargs": {"verbose": True}}, "trainer.lr_scheduler_kwargs.verbose", "no such key"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(folder, change, key, word):
    assert word in lost(folder, **change)[key]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trainer__lossfn": "x"}, "lossfn: got 'x'"),
        ({"trainer__optimizer": "lion"}, "optimizer: got 'lion'"),
        ({"trainer__lr_scheduler": "x"}, "lr_scheduler: got 'x'"),
        ({"trainer__warmup_scheduler": "x"}, "warmup_scheduler: got 'x'"),
        ({"trainer__early_stopping_mode": "xor"}, "early_stopping_mode: got 'xor'"),
        ({"model__model_kwargs__output_modes": ["energies"]}, "'energies' is no output"),
        ({"trainer__epochs": 3}, "trainer.epochs: XequiNet has no such key. Did you mean"),
    ],
)
def test_wrong_values_are_one_message(folder, change, words):
    with pytest.raises(ConfigError, match=words):
        values(folder, **change)


def test_outputs_and_other_spellings(folder):
    found = values(folder, model__model_kwargs__output_mode="energy", model__model_kwargs__magnitude=True)
    assert found["model.output_modes"] == ["energy"]
    assert "model.magnitude" not in found
    charges = values(folder, model__model_kwargs__output_modes=["energy", "atomic_charges"],
                     model__model_kwargs__conservation=False)  # fmt: skip
    assert (charges["model.output_modes"], charges["model.conservation"]) == (["energy", "charges"], False)
    with pytest.raises(ConfigError, match="the same as"):
        values(folder, model__model_kwargs__output_mode="energy", model__model_kwargs__output_modes=["energy"])


def test_ewald_is_a_block_of_the_model(folder):
    run = run_of(folder, model__model_name="xpainn-ewald", model__model_kwargs__num_k_points=[2, 2, 1])
    assert run.backend == "xpainn"
    block = run.model.settings.ewald
    assert (block.num_k_points, block.projection_dim, block.ewald_blocks) == ((2, 2, 1), 8, 1)
    told = lost(folder, model__model_name="xpainn-ewald", model__model_kwargs__use_pbc=False)
    assert "how a molecule is turned" in told["model.model_kwargs.use_pbc"]


def test_molecular_dynamics_is_named_as_such(folder):
    told = needless(folder, md={"ensembles": [{"ensemble": "nvt"}], "model_file": "model.pt"})
    assert "molecular dynamics" in told["md"]


def test_every_key_is_told_of(folder):
    """All keys at once: nothing may be forgotten."""
    other = {"text": "x", "whole": 3, "number": 6.0, "number or none": 0.5, "truth": True, "list": None}
    known = {
        "model.model_name": "xpainn-ewald", "data.default_dtype": "float64", "trainer.lossfn": "MSE",
        "trainer.optimizer": "RAdam", "trainer.warmup_scheduler": "untuned_linear", "trainer.lr_scheduler": "cosine",
        "trainer.early_stopping_mode": "or", "trainer.losses_weight": {"energy": 1.0},
        "model.model_kwargs.output_modes": ["energy"], "md": {"dt": 1.0},
    }  # fmt: skip
    content: dict = {}
    for name, key in KEYS.items():
        *path, last = name.split(".")
        inner = content
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = known.get(name, other[key.kind])
    (folder / "config.yaml").write_text(json.dumps(content))
    dialect = open_dialect("xequinet")
    translate(dialect, dialect.read(["config.yaml"]), folder)  # raises where a key is neither read nor remarked upon
    assert all(name in KEYS for name in ALIASES.values())


def test_the_command_line(folder):
    sheet_of(folder)
    call = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}).invoke
    result = call(app, ["translate", "--from", "xequinet", "config.yaml", "trainer.max_epochs=7", "--out", "run.yaml"])
    assert result.exit_code == 0, result.stderr
    (run,) = load_run("run.yaml")
    assert run.train.epochs == 7
    text = (folder / "run.yaml").read_text()
    assert "0.995, its code null" in text
    result = call(app, ["translate", "--from", "xequinet", "config.yaml", "data.cutoff=4", "--out", "other.yaml"])
    assert result.exit_code == 2
    assert "data.cutoff: smaller than the model's 5" in result.stderr


def test_the_symmetry_of_tensors(folder):
    asked = {"trainer__losses_weight": {"cartesian": 1.0}, "model__model_kwargs__output_modes": ["cartesian"]}
    key = "model__model_kwargs__symmetry"
    tensor = {"key": "cartesian", "per": "structure", "components": 9, "rotates": "tensor"}
    assert values(folder, **asked)["data.targets"] == {"cartesian": {**tensor, "symmetric": False}}
    assert values(folder, **asked, **{key: "ij=ji"})["data.targets"] == {"cartesian": tensor}
    assert not run_of(folder, **asked, **{key: "ij"}).data.targets["cartesian"].symmetric
    why = lost(folder, **asked, **{key: "ijk=jik"}, model__model_kwargs__order=3)
    assert "nine components" in why["model.model_kwargs.symmetry"]
    assert "order 2" in why["model.model_kwargs.order"]
    assert (
        "16 of each degree"
        in needless(folder, **asked, model__model_kwargs__hidden_channels=8)["model.model_kwargs.hidden_channels"]
    )
    assert "output cartesian only" in needless(folder, **{key: "ij"})["model.model_kwargs.symmetry"]
