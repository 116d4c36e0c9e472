"""Every mistake is one line: place, key as written, what was given, what is expected."""

import pytest
from water import GOOD, write_run

from forgefield.app.run import load_run
from forgefield.core.errors import ConfigError


def message(folder, text, **options):
    with pytest.raises(ConfigError) as caught:
        load_run(write_run(folder, text), **options)
    return str(caught.value).replace(str(folder) + "/", "")


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("  leraning_rate: 3", "run.yaml:15:3: train.leraning_rate: unknown key. Did you mean 'lr'? It expects"),
        ("  learning_rate: 3", "Did you mean 'lr'? It expects a number > 0 (initial learning rate)"),
        ("  lrr: 3", "Did you mean 'lr'?"),
        ("  xyzzy: 3", "train.xyzzy: unknown key. Known here: accum_steps"),
        ("  lr: fast", "train.lr: got the text 'fast', expected a number > 0"),
        ("  lr: -1", "train.lr: got -1, expected a number > 0"),
        ("  lr: true", "train.lr: got true, expected a number > 0"),
        ("  lr:", "train.lr: got nothing (null), expected a number > 0"),
        ("  lr: [1]", "train.lr: got the list [1], expected a number"),
        ("  lr: {a: 1}", "train.lr: got a block of keys, expected a number"),
        ("  batch_size: 2.5", "train.batch_size: got 2.5, expected a whole number >= 1"),
        ("  optimizer: adamm", "did you mean 'adam'? There are: adam, adamw, lbfgs"),
        ("  freeze: heads", "train.freeze: got the text 'heads', expected one of head_only, base, or null"),
        ("  betas: [0.9]", "train.betas: got the list [0.9], expected a list of a number and a number"),
        ("  transform: {mod: x}", "run.yaml:15:15: train.transform.mod: unknown key. Did you mean 'mode'?"),
        ("  use_core: true", "train.use_core: there is only one trainer here"),
        ("  config_yml: a.yml", "train.config_yml: is reserved for backends that train in their own interpreter"),
        ("  patience: 1\n  plateau_patience: 2", "train.patience: this is another name of 'plateau_patience'"),
        ("modle: {}", "run.yaml:15:1: modle: unknown key. Did you mean 'model'?"),
        ("device: gpu", "device: got the text 'gpu', expected text such as auto, cpu, cuda[:N]"),
        ("dtype: float16", "dtype: got the text 'float16', expected one of float32, float64"),
        ("backend_python: python", "backend_python: is reserved for backends"),
        ("eval: 3", "eval: got 3, expected a block of keys (energy_only, free_atoms, correction_alone, amp, "),
        ("output: {metric_json: x}", "output.metric_json: unknown key. Did you mean 'metrics_json'?"),
        ("export: {targets: [torchscrip]}", "targets.0: no 'torchscrip' in targets. Did you mean 'torchscript'?"),
        ("model_in: m", "model_in: task train begins with new weights. Use task finetune"),
    ],
)  # fmt: skip
def test_one_mistake_in_the_file(tmp_path, added, expected):
    text = message(tmp_path, GOOD + added + "\n")
    assert expected in text
    assert len(text.splitlines()) == 1
    assert text.startswith("run.yaml:15:") or "patience" in added


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lrr=0.1", "--set train.lrr=0.1: train.lrr: unknown key. Did you mean 'lr'?"),
        ("train.lr=x", "--set train.lr=x: train.lr: got the text 'x'"),
        ("train.lr", "--set train.lr: expected key=value"),
        ("train..lr=1", "expected key=value with a dotted key"),
        ("=1", "expected key=value"),
        ("train.lr=[1", "--set train.lr=[1: not valid YAML"),
        ("runs=[]", "cannot name the list"),
        ("model.r_maxx=3", "model.r_maxx: unknown key. Did you mean 'r_max'? It expects a number > 0"),
        ("model.cutoff=3", "Did you mean 'r_max'?"),
        ("model.manifst=x", "model.manifst: unknown key. Did you mean 'manifest'?"),
        ("model.r_max=-1", "model.r_max: got -1, expected a number > 0"),
        ("model.hidden_irreps=4x2e", "model.hidden_irreps: start with 0e"),
        ("model.settings={}", "model.settings: unknown key"),
        ("backend=mcae", "backend: no 'mcae' in architectures. Did you mean 'mace'?"),
        ("backend=null", "belongs to an architecture; name it with `backend:`"),
        ("task=trian", "expected one of train, finetune, resume, evaluate, infer, export (what to do). Did you mean"),
        ("task=backend", "task: 'backend' is reserved"),
        ("data.train=3", "data.train: got 3, expected a path, a block with a path, or a list of such"),
        ("data.train=[a, 3]", "data.train.1: got 3, expected a path, a block with a path, or a list of such"),
        ("data.trian=a", "data.trian: unknown key. Did you mean 'train'?"),
        ("data.e0={H: x}", "data.e0.H: got the text 'x'"),
        ("data.e0=least_square", "'least_square' is not one of auto, isolated, least_squares"),
        ("data.train_indices.max_sample=3", "data.train_indices.max_sample: unknown key. Did you mean 'max_samples'?"),
        ("model.export={dir: d, weights_name: w}", "model.export.weights_name: the files of a bundle have fixed names"),
        ("model_in={path: a, manifest: b}", "give one of manifest, path and source; got 2"),
        ("model_in={path: a, weihts: b}", "model_in.weihts: unknown key. Did you mean 'weights'?"),
        ("model.weights=w", "model.weights: weights alone do not describe a model"),
        ("name=", "name: got nothing (null), expected text"),
    ],
)  # fmt: skip
def test_one_mistake_in_an_override(tmp_path, override, expected):
    text = message(tmp_path, GOOD, overrides=[override])
    assert expected in text
    assert text.startswith("--set") or "backend=null" in override


def test_every_mistake_is_listed_once_with_its_own_line(tmp_path):
    text = GOOD.replace("r_max: 3.0", "r_max: x").replace("epochs: 3", "epochs: 0\n  lrr: 1")
    lines = message(tmp_path, text + "dtype: half\n").splitlines()
    assert [line.split(": ")[0] for line in sorted(lines)] == [
        "run.yaml:14:3",
        "run.yaml:15:3",
        "run.yaml:16:1",
        "run.yaml:8:3",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "run.yaml: the file is empty"),
        ("# nothing", "the file is empty"),
        ("- a", "expected a block of keys such as `task: train`"),
        ("runs: 3", "run.yaml:1:1: runs: expected a list of runs"),
        ("runs: []", "expected a list of runs"),
        ("runs: [3]", "each entry must be a block of keys"),
        ("runs: [{runs: []}]", "a run cannot hold a list of runs"),
        ("runs: [{name: a}, {name: a}]", "two runs are named 'a'"),
        ("runs: [{}, {}]", "two runs are named 'run'"),
        ("task: train\nrun_dir: r\ndata: {train: a}", "backend: required to train. There are: aimnet2, alignn, "),
        ("task: train\nbackend: mace\nrun_dir: r", "data.train: required by task train"),
        ("task: train\nbackend: mace\ndata: {train: a}", "run_dir: required by task train"),
        ("task: finetune\nrun_dir: r\ndata: {train: a}", "model_in: required by task finetune"),
        ("task: resume\ndata: {train: a}", "run_dir: required by task resume"),
        ("task: evaluate\nmodel_in: m\nrun_dir: r", "data.test: required by task evaluate"),
        ("task: infer\nmodel_in: m\ndata: {test: t}", "output.dir: required by task infer without run_dir"),
        ("task: export\nmodel_in: m", "run_dir: required by task export"),
        ("task: export\nrun_dir: m", "model_in: required by task export"),
        ("task: evaluate\ndata: {train: a, test: b}\nrun_dir: r", "Write `task: train` to train a new one"),
        ("model_in: m\ndata: {train: a}\nrun_dir: r", "task: required here: finetune, resume, evaluate, infer"),
        (
            "task: evaluate\nrun_dir: r\ndata: {test: t}\nmodel_in: m\nmodel: {manifest: n}",
            "model_in: model.manifest is given too",
        ),
    ],
)  # fmt: skip
def test_what_the_blocks_demand_of_each_other(tmp_path, text, expected):
    assert expected in message(tmp_path, text)


def test_two_new_runs_cannot_share_a_folder(tmp_path):
    run = "{name: %s, task: train, backend: mace, run_dir: r, data: {train: a}}"
    text = f"runs: [{run % 'a'}, {run % 'b'}]"
    assert "runs 'a' and 'b' have the same run_dir" in message(tmp_path, text)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("{match: a, lrfactor: 2}", "train.param_groups.0.lrfactor: unknown key. Did you mean 'lr_factor'?"),
        ("{match: a, lr: -1}", "train.param_groups.0.lr: got -1, expected a number > 0"),
        ("{lr: 1}", "train.param_groups.0.match: this key is required"),
    ],
)
def test_keys_inside_a_list(tmp_path, group, expected):
    text = f"task: train\nbackend: mace\nrun_dir: r\ndata: {{train: a}}\ntrain: {{param_groups: [{group}]}}"
    assert expected in message(tmp_path, text)
