"""forgefield translate --from alignn: no key is dropped, what was dead upstream is said, the loss is the same."""

import json
import random
from typing import Literal

import numpy as np
import pytest
from typer.testing import CliRunner

from forgefield.app.cli import app
from forgefield.app.run import load_run
from forgefield.app.translate.alignn.keys import KEYS
from forgefield.app.translate.alignn.splitting import lists_of
from forgefield.app.translated_text import render
from forgefield.app.translation import open_dialect, translate
from forgefield.core.catalog import Catalog, Entry
from forgefield.core.errors import ConfigError
from forgefield.core.settings import Settings
from forgefield.core.units import factor


class Alignn(Settings):
    """The keys of the architecture, where this version does not have it yet."""

    cutoff: float = 5.0
    neighbor_strategy: Literal["radius_graph", "radius_graph_jarvis", "k-nearest"] = "radius_graph"
    max_neighbors: int = 12
    use_canonize: bool = True
    cutoff_extra: float = 0.0
    backtracking: bool = True
    lighten_edges: bool = False
    atom_features: str = "cgcnn"
    alignn_layers: int = 2
    gcn_layers: int = 2
    edge_input_features: int = 80
    triplet_input_features: int = 40
    embedding_features: int = 64
    hidden_features: int = 64
    use_cutoff_function: bool = True
    multiply_cutoff: bool = True
    inner_cutoff: float | None = None
    exponent: int = 5
    use_penalty: bool = True
    penalty_factor: float = 0.1
    penalty_threshold: float = 1.0
    energy_mult_natoms: bool = True
    link: str = "identity"
    extra_features: int | None = None
    three_body_cutoff: float | None = None
    compat: str = "none"


FORCE_FIELD = {
    "dataset": "user_data", "neighbor_strategy": "radius_graph", "cutoff": 4.0, "n_train": 6, "n_val": 2, "n_test": 1,
    "epochs": 3, "batch_size": 2, "learning_rate": 0.001, "filename": "first", "output_dir": "temp",
    "model": {"name": "alignn_atomwise", "graphwise_weight": 0.85, "gradwise_weight": 0.05, "stresswise_weight": 0.05},
}  # fmt: skip


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Settings of the architecture, if it is not there."""
    names, entry = Catalog.names, Catalog.entry

    def absent(catalog):
        return catalog.package == "forgefield.models.architectures" and "alignn" not in names(catalog)

    monkeypatch.setattr(Catalog, "names", lambda c: sorted([*names(c), *(["alignn"] if absent(c) else [])]))
    monkeypatch.setattr(
        Catalog, "entry", lambda c, n: Entry(Alignn, object) if n == "alignn" and absent(c) else entry(c, n)
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(folder, count=10):
    """Write id_prop.json with so many dimers."""
    atoms = {"lattice_mat": (5 * np.eye(3)).tolist(), "elements": ["Si", "Si"], "cartesian": True}
    found = []
    for k in range(count):
        coords = [[0.0, 0.0, 0.0], [0.0, 0.0, 2.0 + 0.01 * k]]
        labels = {"total_energy": -5.0 - k, "forces": [[0, 0, 0]] * 2, "stresses": [[0.0] * 3] * 3, "gap": 0.1 * k}
        found.append({"jid": f"a{k}", "atoms": {**atoms, "coords": coords}, **labels})
    (folder / "id_prop.json").write_text(json.dumps(found))


def sheet_of(folder, *words, **changes):
    content = json.loads(json.dumps(FORCE_FIELD))
    for key, value in changes.items():
        block, _, name = key.partition("__")
        (content[block] if name else content)[name or block] = value
    (folder / "config.json").write_text(json.dumps(content))
    dialect = open_dialect("alignn")
    given = dialect.read(["config.json", *words])
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


def test_a_force_field_minimises_what_alignn_does(folder):
    records(folder)
    run = run_of(folder)
    train = run.train
    assert (train.energy_weight, train.force_weight) == (0.85, 0.05)
    assert train.stress_weight == pytest.approx(0.05 * 160.21766, rel=1e-6)
    assert (train.loss_energy, train.loss_force, train.loss_stress) == ("mae", "mae", "mae")
    assert (train.energy_normalization, train.stress_normalization) == ("per_atom", "total")
    assert run.data.energy_key == "total_energy"
    # the same number as alignn's: mean |dE/n| + mean |dF| + mean |d sigma in GPa|
    error = {"energy": 0.3, "stress": 0.002}
    ours = 0.85 * error["energy"] / 2 + train.stress_weight * error["stress"]
    assert ours == pytest.approx(0.85 * 0.15 + 0.05 * error["stress"] / factor("stress", "GPa"))


def test_the_parts_are_those_of_alignn(folder):
    records(folder)
    found = values(folder)
    assert found["data.indices"] == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert found["data.split"] == {"method": "random", "val": [6, 7], "test": [8]}
    found = values(folder, n_train=None, n_val=None, n_test=None)  # 0.8, 0.1, 0.1
    assert "data.indices" not in found
    assert found["data.split"] == {"method": "random", "val": [8], "test": [9]}
    found = values(folder, n_train=None, n_val=None, n_test=None, keep_data_order=False, random_seed=7)
    order = list(range(10))
    random.seed(123)  # alignn's parts do not follow random_seed
    random.shuffle(order)
    assert found["data.split"] == {"method": "random", "val": [order[8]], "test": [order[9]]}
    assert lists_of(10, 6, 2, 1, ordered=True) == ([0, 1, 2, 3, 4, 5], [7, 8], [9])
    rest = values(folder, n_train=None, n_val=None, n_test=None, train_ratio=None, val_ratio=0.2, test_ratio=0.2)
    assert rest["data.split"] == {"method": "random", "val": [6, 7], "test": [8, 9]}
    with pytest.raises(ConfigError, match="9 to train on, 2 to validate on and 1 to test on, of 10 structures"):
        values(folder, n_train=9)


def test_structures_without_a_target_are_left_out_as_there(folder):
    records(folder)
    content = json.loads((folder / "id_prop.json").read_text())
    content[1]["total_energy"], content[9]["total_energy"] = "na", None
    (folder / "id_prop.json").write_text(json.dumps(content))
    _, sheet, _ = sheet_of(folder, n_train=4, n_val=2, n_test=1)
    assert sheet.lines["data.indices"].value == [0, 2, 3, 4, 6, 7, 8]
    assert "2 have no number as total_energy" in sheet.lines["data.indices"].comment


def test_the_split_reaches_the_data(folder):
    from forgefield.data.parts import open_training

    records(folder)
    data = open_training(run_of(folder).data)
    energies = [[float(s.labels["energy"]) / 2 for s in part] for part in (data.train, data.val, data.test)]
    assert energies == [[-5, -6, -7, -8, -9, -10], [-12, -13], [-14]]


def test_without_the_data_sizes_are_kept(folder):
    found = values(folder)
    assert found["data.split"] == {"method": "random", "val": 2, "test": 1}
    assert "not found" not in str(found["data.train"])


def test_dead_keys_work_and_can_be_left_dead(folder):
    found = values(folder, n_early_stopping=5, scheduler="onecycle")
    assert found["train.scheduler"] == "one_cycle"
    assert found["train.early_stops"] == [{"metric": "loss", "patience": 5}]
    dead = values(folder, "published=true", n_early_stopping=5)
    assert dead["train.scheduler"] is None
    assert "train.early_stops" not in dead
    _, sheet, text = sheet_of(folder, criterion="mse", warmup_steps=100)
    assert "alignn drove an optimizer with it that was thrown away" in " ".join(text.replace("#", "").split())
    assert {"criterion", "warmup_steps"} <= {remark.key for remark in sheet.needless}


def test_keys_of_2026(folder):
    run = run_of(folder, model__name="alignn_atomwise_pure", neighbor_strategy="pure_torch", three_body_cutoff=3.0,
                 use_amp=True, lr_total_epochs=9)  # fmt: skip
    assert (run.model.settings.neighbor_strategy, run.model.settings.three_body_cutoff) == ("radius_graph", 3.0)
    assert (run.train.amp, run.train.T_max) == ("bfloat16", 9.0)
    assert run.model.settings.penalty_factor == 0.5  # the pure model's default
    assert "alignn drops the farther ones" in sheet_of(folder, neighbor_strategy="fast_graph")[2]
    assert "alignn drops" not in sheet_of(folder, neighbor_strategy="fast_graph", max_neighbors=None)[2]
    assert "of files for LAMMPS" in needless(folder, model__three_body_cutoff=3.0)["model.three_body_cutoff"]
    own = needless(folder, model__name="alignn_atomwise_pure")["model.use_zbl"]
    assert "alignn adds a nuclear repulsion below 0.9 Å" in own
    assert "model.use_zbl" not in needless(folder)
    assert (
        "not built here"
        in lost(folder, model__name="alignn_atomwise_pure_smooth", model__use_atomref=True)["model.name"]
    )
    assert values(folder, model__name="alignn", model__gradwise_weight=0)["model.hidden_features"] == 256
    assert "edge-gated" in lost(folder, model__conv_type="t_alignn")["model.conv_type"]
    assert "model.use_zbl" in lost(folder, model__use_zbl=True)


def test_the_config_that_alignn_writes_beside_its_results(folder):
    """There every key stands, with null where nothing was given."""
    run = run_of(folder, model__use_zbl=None, gpu_memory_fraction=None, lr_total_epochs=None, n_early_stopping=None,
                 classification_threshold=None, three_body_cutoff=None, neighbor_strategy="pure_torch",
                 resume_checkpoint=False, read_existing=False, deterministic=False)  # fmt: skip
    assert run.model.settings.three_body_cutoff is None
    with pytest.raises(ConfigError, match="use_amp: got None, expected true or false"):
        values(folder, use_amp=None)


def test_weights_of_alignn_are_no_start(folder):
    why = lost(folder, restart_model_path="best_model.pt")["restart_model_path"]
    assert "forgefield import FILE --program alignn" in why


def test_a_property_has_no_energy(folder):
    records(folder)
    run = run_of(folder, "target_key=gap", model__calculate_gradient=False, target_multiplication_factor=2.0)
    assert (run.train.energy_weight, run.train.force_weight, run.train.stress_weight) == (0.0, 0.0, 0.0)
    assert run.data.targets["target"].key == "gap"
    assert (run.train.targets["target"].weight, run.train.targets["target"].loss) == (1.7, "mae")
    several = run_of(folder, "target_key=dos", model__gradwise_weight=0.0, model__stresswise_weight=0.0,
                     model__output_features=300)  # fmt: skip
    assert several.data.targets["target"].components == 300
    (folder / "id_prop.json").unlink()
    (folder / "id_prop.csv").write_text("a.vasp,1.0\n")
    assert (
        values(folder, model__gradwise_weight=0.0, model__stresswise_weight=0.0)["data.targets"]["target"]["key"]
        == "target"
    )


def test_the_table_says_how_many_targets_there_are(folder):
    (folder / "id_prop.csv").write_text("a.vasp,1.0,2.0,3.0\n")
    found = values(folder, model__calculate_gradient=False)  # output_features is 1; alignn counts too
    assert found["data.targets"]["target"] == {"key": "target", "per": "structure", "components": 3}
    assert "data.energy_key" not in found
    with pytest.raises(ConfigError, match=r"got 0.5, but id_prop.csv has 3 targets in a line"):
        values(folder, model__calculate_gradient=False, classification_threshold=0.5)
    records(folder)  # of both files alignn reads this one
    found = values(folder, model__calculate_gradient=False, model__output_features=2)
    assert found["data.targets"]["target"] == {"key": "total_energy", "per": "structure", "components": 2}
    assert [found[f"data.{name}_key"] for name in ("energy", "forces", "stress")] == [None] * 3


def test_no_file_is_asked_for_that_none_can_hold(folder):
    assert values(folder)["export.targets"] == []  # cutoff_extra
    assert values(folder, neighbor_strategy="k-nearest")["export.targets"] == []
    assert "export.targets" not in values(folder, model__use_cutoff_function=True)
    assert "export.targets" not in values(folder, neighbor_strategy="pure_torch")


def test_stresses_without_a_weight_are_not_read(folder):
    assert values(folder, model__stresswise_weight=0.0)["data.stress_key"] is None


def test_classes(folder):
    run = run_of(folder, "target_key=gap", classification_threshold=0.3, model__calculate_gradient=False,
                 model__output_features=2)  # fmt: skip
    assert run.data.targets["target"].threshold == 0.3
    assert run.data.targets["target"].components == 1
    assert run.train.targets["target"].weight == 0.85
    assert (
        values(folder, model__classification=True, model__calculate_gradient=False)["data.targets"]["target"][
            "threshold"
        ]
        == 0.5
    )
    assert "classification_threshold" in lost(folder, classification_threshold=0.3)


def test_targets_of_atoms_and_further_ones(folder):
    found = values(folder, "atomwise_key=magmoms", model__atomwise_output_features=1, model__atomwise_weight=0.5,
                   model__additional_output_features=400, model__additional_output_weight=0.1,
                   model__extra_features=6)  # fmt: skip
    assert found["data.targets"] == {
        "atomwise": {"key": "magmoms", "per": "atom"},
        "additional": {"key": "additional_output", "per": "structure", "components": 400},
    }
    assert found["train.targets"] == {
        "atomwise": {"weight": 0.5, "loss": "mae"},
        "additional": {"weight": 0.1, "loss": "mae"},
    }
    assert (found["model.extra_features"], found["data.features"]) == (6, {"extra_features": "extra_features"})
    unused = needless(folder, model__atomwise_output_features=1, model__atomwise_weight=0.0)
    assert {"model.atomwise_output_features", "model.atomwise_weight"} <= set(unused)


def test_the_model(folder):
    found = values(folder)
    assert found["model.use_cutoff_function"] is False
    assert found["model.cutoff_extra"] == 3.0
    assert "model.inner_cutoff" not in found
    assert found["model.compat"] == "alignn"
    nearest = values(folder, neighbor_strategy="k_nearest", max_neighbors=8, use_canonize=False)
    assert (nearest["model.neighbor_strategy"], nearest["model.max_neighbors"]) == ("k-nearest", 8)
    assert nearest["model.use_canonize"] is False
    assert "model.cutoff_extra" not in nearest
    cut = values(folder, model__use_cutoff_function=True, model__inner_cutoff=6.0)
    assert (cut["model.multiply_cutoff"], cut["model.inner_cutoff"]) == (False, 4.0)
    light = values(folder, model__lighten_edges=True, model__backtracking=True)
    assert (light["model.lighten_edges"], light["model.backtracking"]) == (True, False)
    assert values(folder, neighbor_strategy="radius_graph_jarvis")["model.cutoff_extra"] == 0.5
    assert values(folder, model__energy_mult_natoms=False)["model.energy_mult_natoms"] is True


@pytest.mark.parametrize(
    ("change", "key", "word"),
    [
        ({"neighbor_strategy": "voronoi"}, "neighbor_strategy", "not built in alignn either"),
        ({"model__name": "ealignn_atomwise"}, "model.name", "alignn_atomwise"),
        ({"model__grad_multiplier": 1}, "model.grad_multiplier", "derivatives of the energy"),
        ({"model__stress_multiplier": 2}, "model.stress_multiplier", "derivatives of the energy"),
        ({"dataset": "dft_3d"}, "dataset", "root_dir"),
        ({"dtype": "float16"}, "dtype", "train.amp"),
        ({"optimizer": "lamb"}, "optimizer", "adamw and sgd"),
        ({"model__atom_input_features": 1}, "model.atom_input_features", "92 numbers"),
        ({"model__graphwise_weight": 0, "model__gradwise_weight": 0, "model__stresswise_weight": 0},
         "model.graphwise_weight", "alignn trains nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(folder, change, key, word):
    assert word in lost(folder, **change)[key]


def test_every_key_is_told_of(folder):
    """All keys at once, each with another value than the default: nothing may be forgotten."""
    other = {"text": "x", "whole": 3, "number": 0.5, "number or none": 0.2, "truth": True, "list": []}
    known = {
        "atom_features": "basic", "neighbor_strategy": "radius_graph", "criterion": "l1", "optimizer": "sgd",
        "scheduler": "step", "dtype": "float64", "dataset": "user_data", "device": "cpu", "model.name": "alignn",
    }  # fmt: skip
    for gradient in (True, False):
        content: dict = {"model": {}}
        for name, key in KEYS.items():
            value = known.get(name, (not key.default) if key.kind == "truth" else other[key.kind])
            block, _, last = name.rpartition(".")
            (content["model"] if block else content)[last] = value
        content["model"]["calculate_gradient"] = gradient
        (folder / "config.json").write_text(json.dumps(content))
        dialect = open_dialect("alignn")
        given = dialect.read(["config.json"])
        translate(dialect, given, folder)  # raises where a key is neither read nor remarked upon


def call(*words):
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [str(w) for w in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_command_line(folder):
    records(folder)
    sheet_of(folder)
    code, out, _ = call("translate", "--from", "alignn", "config.json", "epochs=7", "--out", "run.yaml")
    assert code == 0
    assert "Written to run.yaml" in out
    (run,) = load_run("run.yaml")
    assert (run.train.epochs, run.run_dir, run.backend) == (7, folder / "temp" / "first", "alignn")
    assert str(run.data.train[0]) == str(folder)
    code, _, err = call("translate", "--from", "alignn", "config.json", "epoch=7", "--out", "other.yaml")
    assert (code, "Did you mean 'epochs'?" in err) == (2, True)
    code, _, err = call(
        "translate", "--from", "alignn", "config.json", "neighbor_strategy=voronoi", "--out", "other.yaml"
    )
    assert (code, "neighbor_strategy: not built in alignn either" in err) == (2, True)
    code, _, err = call("translate", "--from", "alignn", "config.json", "config.json", "--out", "other.yaml")
    assert (code, "alignn has one settings file" in err) == (2, True)
