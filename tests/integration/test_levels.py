"""Several levels of theory in one model: trained together, told apart, handed out one by one."""

import json

import numpy as np
import pytest
from ase.io import read

import forgefield
from forgefield.app.checkup import Checkup
from forgefield.app.run import config_of
from forgefield.core.errors import ForgeError
from forgefield.export.calculator import ForgeField

QUICK = {"train__epochs": 1}
SHIFT = 7.0  # eV per atom between the two levels


@pytest.fixture(scope="module")
def two_levels(data, tmp_path_factory):
    """The molecules at a high level, and again at a low one whose energies lie higher; each with its free atoms."""
    folder = tmp_path_factory.mktemp("levels")
    lines = (data / "train.xyz").read_text().splitlines(keepends=True)
    (folder / "high.xyz").write_text("".join(lines))
    moved = []
    for k, line in enumerate(lines):
        if "energy=" in line:
            n = int(lines[k - 1])
            words = [f"energy={float(w[7:]) + SHIFT * n!r}" if w.startswith("energy=") else w for w in line.split(" ")]
            line = " ".join(words)
        moved.append(line if line.endswith("\n") else line + "\n")
    (folder / "low.xyz").write_text("".join(moved))
    return folder


def sources(folder):
    return [{"path": str(folder / f"{name}.xyz"), "fidelity": name} for name in ("high", "low")]


@pytest.fixture(scope="module")
def run_of_two(settings, two_levels, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "two"
    config = settings(
        root, data__train=sources(two_levels), data__test=[], data__sampling={"high": 1, "low": 3},
        data__accept=["duplicates", "leaked_duplicates", "leaked_near_duplicates", "near_duplicates"],
        data__fidelities={"high": {"dispersion": "included"}, "low": {"dispersion": "absent"}},
        export__fidelity="each", model__fidelity={"embedding": "added"}, **QUICK,
    )  # fmt: skip
    forgefield.run(config, quiet=True)
    return root


def test_levels_have_reference_energies_and_errors_of_their_own(run_of_two):
    manifest = json.loads((run_of_two / "checkpoints" / "best" / "manifest.json").read_text())
    assert manifest["heads"] == ["high", "low"]
    assert manifest["fidelity"] == {"readouts": True, "embedding": "added"}
    assert manifest["labels_dispersion"] == {"high": "included", "low": "absent"}
    energies = manifest["reference_energies"]
    for element, value in energies["high"].items():
        assert energies["low"][element] - value == pytest.approx(SHIFT, abs=1e-9)
    metrics = json.loads((run_of_two / "evaluation" / "val" / "metrics.json").read_text())
    assert {"high", "low"} <= set(metrics["by_head"])
    page = (run_of_two / "report.html").read_text()
    for title in ("Validation force error by level", "Validation energy error by level"):
        card = page.split(title, 1)[1].split("</svg>", 1)[0]
        assert "high" in card
        assert "low" in card


def test_each_level_is_an_artifact_of_its_own(run_of_two, two_levels):
    atoms = read(two_levels / "high.xyz", 10)
    energies = {}
    for name in ("high", "low"):
        folder = run_of_two / "artifacts" / name
        assert json.loads((folder / "manifest.json").read_text())["heads"] == [name]
        atoms.calc = ForgeField.load(folder, device="cpu")
        energies[name] = atoms.get_potential_energy()
    both = ForgeField.load(run_of_two / "checkpoints" / "best", device="cpu", head="low")
    atoms.calc = both
    assert atoms.get_potential_energy() == pytest.approx(energies["low"], abs=1e-9)
    assert energies["low"] - energies["high"] == pytest.approx(SHIFT * len(atoms), rel=0.05)


def export(run_of_two, out, **asked):
    forgefield.run({
        "task": "export", "model_in": str(run_of_two / "checkpoints" / "best"), "run_dir": str(out), "device": "cpu",
        "export": {"dir": ".", **asked},
    }, quiet=True)  # fmt: skip


def test_one_level_is_exported_by_name(run_of_two, tmp_path):
    export(run_of_two, tmp_path / "low", fidelity="low")
    assert json.loads((tmp_path / "low" / "manifest.json").read_text())["heads"] == ["low"]
    with pytest.raises(ForgeError, match=r"no level 'lo'.*high, low"):
        export(run_of_two, tmp_path / "lo", fidelity="lo")
    assert not (tmp_path / "lo" / "manifest.json").exists()


def test_dispersion_is_not_added_to_labels_that_hold_it(run_of_two, tmp_path):
    with pytest.raises(ForgeError, match="labels of high include dispersion"):
        export(run_of_two, tmp_path / "x", fidelity="high", dispersion="pbe")
    with pytest.raises(ForgeError, match="one dispersion for 2 levels"):
        export(run_of_two, tmp_path / "x", dispersion="pbe")


def test_an_export_states_what_the_training_did_not(settings, data, tmp_path):
    """What labels hold may be said at export, not otherwise than the model knows; a dispersed model exports again."""
    forgefield.run(settings(tmp_path / "run", data__test=[], **QUICK), quiet=True)
    start = {"task": "export", "model_in": str(tmp_path / "run"), "device": "cpu"}
    asked = {"dir": ".", "dispersion": "pbe"}
    with pytest.raises(ForgeError, match=r"nothing says.*data\.fidelities: {default: {dispersion: included}}"):
        forgefield.run({**start, "run_dir": str(tmp_path / "a"), "export": asked}, quiet=True)
    absent = {"fidelities": {"default": {"dispersion": "absent"}}}
    forgefield.run({**start, "run_dir": str(tmp_path / "a"), "export": asked, "data": absent}, quiet=True)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["labels_dispersion"] == {"default": "absent"}
    assert list(manifest["physics"]) == ["d3"]
    again = {**start, "model_in": str(tmp_path / "a"), "run_dir": str(tmp_path / "b"), "export": {"dir": "."}}
    forgefield.run(again, quiet=True)
    wrong = {"fidelities": {"default": {"dispersion": "included"}}}
    with pytest.raises(ForgeError, match="the model was made with absent"):
        forgefield.run({**again, "run_dir": str(tmp_path / "c"), "data": wrong}, quiet=True)
    tuned = settings(tmp_path / "d", task="finetune", model_in=str(tmp_path / "a"), data__test=[], **QUICK)
    del tuned["model"], tuned["backend"]
    with pytest.raises(ForgeError, match="whose labels lack dispersion"):
        forgefield.run(tuned, quiet=True)


def test_a_level_that_nothing_trained_is_named_and_left_out(settings, two_levels, tmp_path, capsys):
    """Training structures of one level only: the other, which validation data name, is not a level of the model."""
    config = settings(
        tmp_path / "run", data__train=sources(two_levels)[:1], data__val=sources(two_levels)[1:], data__test=[],
        data__accept=["leaked_duplicates", "leaked_near_duplicates"], **QUICK,
    )  # fmt: skip
    with pytest.raises(ForgeError, match="'low'"):
        forgefield.run(config, quiet=True)


def test_a_level_is_added_later_from_the_one_that_is_there(settings, data, two_levels, tmp_path):
    first = settings(tmp_path / "first", data__train=sources(two_levels)[:1], data__test=[], **QUICK)
    forgefield.run(first, quiet=True)
    config = settings(
        tmp_path / "second", task="finetune", model_in=str(tmp_path / "first"), data__train=sources(two_levels)[1:],
        data__test=[], finetune={"head": "low", "copy_head": "high"}, **QUICK,
    )  # fmt: skip
    del config["model"], config["backend"]
    forgefield.run(config, quiet=True)
    manifest = json.loads((tmp_path / "second" / "artifacts" / "manifest.json").read_text())
    assert manifest["heads"] == ["high", "low"]
    record = json.loads((tmp_path / "second" / "run.json").read_text())
    assert record["untrained_heads"] == ["high"]


def test_names_of_levels_that_do_not_exist_are_told(settings, two_levels, tmp_path):
    config = settings(
        tmp_path / "run", data__train=sources(two_levels), data__test=[],
        data__fidelities={"hihg": {"dispersion": "included"}}, **QUICK,
    )  # fmt: skip
    with pytest.raises(ForgeError, match=r"'hihg'.*high, low"):
        forgefield.run(config, quiet=True)
    assert np.all([not p.name.startswith("artifacts") for p in tmp_path.rglob("*")])


@pytest.mark.parametrize("names", [("dft", "DFT"), ("wb97x-d", "wB97X_D")])
def test_names_of_levels_that_are_alike_are_refused(settings, two_levels, tmp_path, names):
    files = [{**one, "fidelity": name} for one, name in zip(sources(two_levels), names, strict=True)]
    config = settings(tmp_path / "run", data__train=files, data__test=[], **QUICK)
    with pytest.raises(ForgeError, match=rf"'{max(names)}'|'{min(names)}'.*two levels"):
        forgefield.run(config, quiet=True)


def test_a_level_as_a_correction_to_another(settings, two_levels, tmp_path):
    """Trained, resumed and handed out level by level; the base alone is a network without the correction."""
    given = {
        "data__train": sources(two_levels), "data__test": [], "export__fidelity": "each",
        "data__accept": ["duplicates", "leaked_duplicates", "leaked_near_duplicates", "near_duplicates"],
        "model__fidelity": {"base": "low"},
    }  # fmt: skip
    root = tmp_path / "corrected"
    forgefield.run(settings(root, **given, **QUICK), quiet=True)
    forgefield.run(settings(root, **given, task="resume", train__epochs=2), quiet=True)
    atoms = read(two_levels / "high.xyz", 10)
    apart = {}
    for name in ("high", "low"):
        folder = root / "artifacts" / name
        assert (folder / "model.torchscript.pt").is_file()
        forces = []
        whole = ForgeField.load(root / "checkpoints" / "best", device="cpu", head=name)
        for calculator in (ForgeField.load(folder, device="cpu"), whole):
            atoms.calc = calculator
            forces.append(atoms.get_forces())
        assert np.abs(forces[0] - forces[1]).max() < 1e-5
        apart[name] = forces[0]
    assert np.abs(apart["high"] - apart["low"]).max() > 1e-3


@pytest.mark.parametrize(
    ("fidelity", "levels", "message"),
    [
        ({"base": "lower"}, 2, "no training structure belongs to"),
        ({"base": "high"}, 1, "no level but 'high'"),
        ({"base": "low", "embedding": "elements"}, 2, "one network for all levels"),
    ],
)
def test_a_base_that_is_none_is_refused(settings, two_levels, tmp_path, fidelity, levels, message):
    given = {"data__train": sources(two_levels)[:levels], "data__test": [], "model__fidelity": fidelity}
    with pytest.raises(ForgeError, match=message):
        forgefield.run(settings(tmp_path / "run", **given, **QUICK), quiet=True)


def test_check_says_so_too(settings, two_levels, tmp_path):
    given = {"data__train": sources(two_levels), "data__test": [], "model__fidelity": {"base": "lower"}}
    found = Checkup(config_of(settings(tmp_path / "run", **given, **QUICK))).examine()
    assert any("no training structure belongs to" in row.text for row in found if row.state == "error")
