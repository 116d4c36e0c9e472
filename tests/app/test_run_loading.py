"""What load_run accepts, fills in, and writes back."""

import json
from pathlib import Path

import pytest
from water import GOOD, write_run

from forgefield.app.run import config_of, load_run, save_resolved
from forgefield.core.errors import ConfigError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


LIST = """\
backend: mace
data: {train: train.xyz, batch_size: 7}
train: {lr: 0.1, patience: 3}
runs:
- name: one
  task: train
  run_dir: runs/one
  train: {epochs: 3}
- name: two
  id: second
  task: finetune
  model_in: runs/one
  run_dir: runs/two
  data: {train: [b.xyz, c.xyz]}
"""


def test_a_run_is_frozen_with_absolute_paths(tmp_path):
    (config,) = load_run(write_run(tmp_path))
    assert (config.name, config.task, config.backend) == ("first", "train", "mace")
    assert config.run_dir == tmp_path / "runs/first"
    assert config.data.train == (tmp_path / "train.xyz",)
    assert config.model.settings.r_max == 3.0
    assert config.train.epochs == 3
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"


def test_paths_are_taken_from_the_files_folder(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    text = GOOD.replace("train.xyz", "../data/a.xyz").replace("runs/first", "~/x")
    (config,) = load_run(Path(write_run(tmp_path / "deep", text)).relative_to(tmp_path))
    assert config.data.train == (tmp_path / "data/a.xyz",)
    assert config.run_dir == Path.home() / "x"


def test_paths_typed_on_the_command_line_are_taken_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    path = write_run(tmp_path / "deep")
    typed = ["run_dir=runs/mine", "data.val=[v.xyz]", "data.e0=iso.xyz", "data.src=s.lmdb"]
    (config,) = load_run(path, overrides=typed)
    assert (config.run_dir, config.data.val) == (tmp_path / "runs/mine", (tmp_path / "v.xyz",))
    assert (config.data.e0, config.data.lmdb) == (tmp_path / "iso.xyz", (tmp_path / "s.lmdb",))
    assert config.data.train == (tmp_path / "deep/train.xyz",)


@pytest.mark.parametrize(("e0", "expected"), [("auto", "auto"), ("iso.xyz", "PATH"), ("{H: -13.6}", {"H": -13.6})])
def test_reference_energies_are_a_word_values_or_a_file(tmp_path, e0, expected):
    (config,) = load_run(write_run(tmp_path), overrides=[f"data.e0={e0}"])
    assert config.data.e0 == (tmp_path / "iso.xyz" if expected == "PATH" else expected)


@pytest.mark.parametrize(
    ("alias", "read"),
    [
        ("train.patience=4", lambda c: c.train.plateau_patience == 4),
        ("train.target_keys=dft", lambda c: c.train.head_key == "dft"),
        ("train.head=dft", lambda c: c.train.head_key == "dft"),
        ("data.path=e.lmdb", lambda c: c.data.lmdb[0].name == "e.lmdb"),
        ("data.src=e.lmdb", lambda c: c.data.lmdb[0].name == "e.lmdb"),
        ("mode=train", lambda c: c.task == "train"),
        ("id=x", lambda c: c.id == "x"),
    ],
)
def test_aliases(tmp_path, alias, read):
    (config,) = load_run(write_run(tmp_path), overrides=[alias])
    assert read(config)


def test_model_aliases_name_the_weights(tmp_path):
    text = "task: evaluate\nmodel: {manifest: m/manifest.json, path: w.safetensors}\ndata: {test: t.xyz}\nrun_dir: r\n"
    (config,) = load_run(write_run(tmp_path, text))
    assert config.model.weights == tmp_path / "w.safetensors"
    assert config.start == tmp_path / "m/manifest.json"


def test_model_in_as_a_mapping(tmp_path):
    text = "task: evaluate\nmodel_in: {manifest: m/manifest.json, weights: w}\ndata: {test: t.xyz}\nrun_dir: r\n"
    (config,) = load_run(write_run(tmp_path, text))
    assert (config.model_in, config.model.weights) == (tmp_path / "m/manifest.json", tmp_path / "w")


def test_a_list_of_runs_shares_the_keys_beside_it(tmp_path):
    one, two = load_run(write_run(tmp_path, LIST))
    assert (one.train.lr, one.train.epochs, one.train.plateau_patience) == (0.1, 3, 3)
    assert (two.train.lr, two.train.epochs) == (0.1, 100)
    assert (two.data.batch_size, [p.name for p in two.data.train]) == (7, ["b.xyz", "c.xyz"])


@pytest.mark.parametrize(
    ("names", "found"),
    [("one", ["one"]), ("second", ["two"]), (["two", "one"], ["one", "two"]), (None, ["one", "two"])],
)
def test_runs_are_chosen_by_name_or_id(tmp_path, names, found):
    assert [c.name for c in load_run(write_run(tmp_path, LIST), names)] == found


def test_a_run_that_is_not_chosen_may_be_broken(tmp_path):
    assert load_run(write_run(tmp_path, LIST.replace("task: finetune", "task: nonsense")), "one")[0].name == "one"


def test_an_unknown_run_lists_the_names(tmp_path):
    with pytest.raises(ConfigError, match=r"--run oen: no such run. Did you mean 'one'\? There are: one, two"):
        load_run(write_run(tmp_path, LIST), "oen")


def test_overrides_are_yaml_and_win_over_aliases(tmp_path):
    path = write_run(tmp_path, GOOD + "  patience: 9\n")
    (config,) = load_run(path, overrides=["train.plateau_patience=4", "data.train=[a, b]", "train.ema_decay=null"])
    assert config.train.plateau_patience == 4
    assert config.data.train == (tmp_path / "a", tmp_path / "b")
    assert config.train.ema_decay is None


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("backend: mace\nrun_dir: r\ndata: {train: a}\n", "train"),
        ("model_in: m\nrun_dir: r\ndata: {test: a}\n", "evaluate"),
        ("model: {manifest: m}\noutput: {dir: o}\ndata: {lmdb: a}\n", "evaluate"),
    ],
)
def test_the_task_is_filled_in_where_only_one_is_meant(tmp_path, text, task):
    assert load_run(write_run(tmp_path, text))[0].task == task


def test_resume_starts_from_its_own_checkpoint(tmp_path):
    (config,) = load_run(write_run(tmp_path), overrides=["task=resume"])
    assert config.model_in == tmp_path / "runs/first/checkpoints/last"
    (trained,) = load_run(write_run(tmp_path))
    assert config.model.settings == trained.model.settings


def test_null_switches_off_and_an_empty_block_means_defaults(tmp_path):
    text = GOOD.split("train:\n  epochs")[0] + "train:\neval:\n"
    (config,) = load_run(write_run(tmp_path, text))
    assert config.train.epochs == 100
    assert load_run(write_run(tmp_path), overrides=["train.scheduler=null"])[0].train.scheduler is None
    assert load_run(write_run(tmp_path), overrides=["data.test=null"])[0].data.test == ()


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("train.scheduler=null", "train.ema_decay=null", "data.e0={H: -13.6, O: -2040}", "id=x"),
        ("data.train_indices={max_samples: 5, shuffle: true}", "export.targets=[]", "train.betas=[0.8, 0.9]"),
        ("task=resume",),
        ("task=finetune", "model_in=m", "model={}"),
        ("task=evaluate", "model_in=m", "data.test=[x, y]", "output.metrics_csv=null", "model.export.dir=out"),
    ],
)
def test_the_resolved_copy_reads_back_equal(tmp_path, overrides):
    (config,) = load_run(write_run(tmp_path), overrides=overrides)
    path = save_resolved(config, tmp_path / "elsewhere")
    assert path.name == "run.resolved.yaml"
    (again,) = load_run(path)
    assert again == config
    assert save_resolved(again, tmp_path / "third").read_text() == path.read_text()


def test_values_of_python_make_a_run(tmp_path):
    values = {"task": "train", "backend": "mace", "run_dir": Path("r"), "data": {"train": [Path("a.xyz")]}}
    config = config_of(values, tmp_path, ["train.lr=0.5"])
    assert (config.run_dir, config.data.train, config.train.lr) == (tmp_path / "r", (tmp_path / "a.xyz",), 0.5)


def test_settings_beside_a_bundle_must_be_the_bundles(tmp_path):
    manifest = {"backend": "mace", "settings": {"r_max": 4.0, "max_ell": 2}}
    (tmp_path / "m").mkdir()
    (tmp_path / "m/manifest.json").write_text(json.dumps(manifest))
    text = "task: evaluate\nbackend: mace\nmodel_in: m\nrun_dir: r\ndata: {test: t}\nmodel: {r_max: %s}\n"
    (config,) = load_run(write_run(tmp_path, text % "4.0"))
    assert config.model.settings.r_max == 4.0
    with pytest.raises(ConfigError, match=r"run.yaml:6:9: model.r_max: 5.0 here, but 4.0 in .*m, which decides"):
        load_run(write_run(tmp_path, text % "5.0"))
