"""init writes a run.yaml that fits the data and that check passes."""

import numpy as np
import pytest
from typer.testing import CliRunner
from water import MOLECULE, frame, write_water

from forgefield.app.cli import app
from forgefield.app.portrait import look_at, warnings
from forgefield.app.run import load_run
from forgefield.app.suggestion import suggest
from forgefield.data.dataset import open_dataset


@pytest.fixture
def init(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        runner = CliRunner(env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"})
        return runner.invoke(app, ["init", *map(str, words)])

    return call


def seen(path):
    return list(warnings(look_at(open_dataset(path))))


def test_it_writes_a_file_that_loads_and_checks(init, tmp_path):
    write_water("train.xyz", 30, atoms=True)
    write_water("test.xyz", 5, seed=1)
    result = init("train.xyz", "--test", "test.xyz", "--name", "water", "--run-dir", "runs/x")
    assert result.exit_code == 0, result.stderr
    assert "30, 0 of them periodic" in result.stdout
    (config,) = load_run("run.yaml")
    assert (config.name, config.run_dir, config.backend) == ("water", tmp_path / "runs/x", "mace")
    assert (config.data.train, config.data.test) == ((tmp_path / "train.xyz",), (tmp_path / "test.xyz",))
    assert (config.data.e0, config.train.stress_weight, config.train.force_weight) == ("isolated", 0.0, 100.0)
    checked = CliRunner().invoke(app, ["check", "run.yaml"])
    assert checked.exit_code == 0, checked.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.yaml", "test.xyz", "train.xyz"]


def test_paths_are_written_as_the_file_sees_them(init, tmp_path):
    write_water("train.xyz")
    (tmp_path / "deep").mkdir()
    assert init("train.xyz", "--out", "deep/run.yaml").exit_code == 0
    assert "train: ../train.xyz" in (tmp_path / "deep/run.yaml").read_text()
    assert load_run("deep/run.yaml")[0].data.train == (tmp_path / "train.xyz",)


def test_names_that_yaml_would_misread_are_quoted(init, tmp_path):
    write_water("1: a #b.xyz")
    assert init("1: a #b.xyz", "--name", "null").exit_code == 0
    (config,) = load_run("run.yaml")
    assert (config.data.train, config.name) == ((tmp_path / "1: a #b.xyz",), "null")


def test_a_file_that_is_there_stays(init, tmp_path):
    write_water("train.xyz")
    (tmp_path / "run.yaml").write_text("mine")
    result = init("train.xyz")
    assert (result.exit_code, (tmp_path / "run.yaml").read_text()) == (2, "mine")
    assert "the file is there already" in result.stderr
    assert init("train.xyz", "--force").exit_code == 0


def test_without_forces_their_weight_is_zero(init):
    write_water("train.xyz", forces=False)
    result = init("train.xyz")
    assert result.exit_code == 0
    assert load_run("run.yaml")[0].train.force_weight == 0
    assert "no frame has forces" in result.stderr


def test_nothing_to_learn_is_an_error_that_names_what_is_there(init, tmp_path):
    write_water("train.xyz", energy=False, forces=False)
    text = (tmp_path / "train.xyz").read_text().replace("pbc=", "U0=-3.0 pbc=")
    (tmp_path / "train.xyz").write_text(text)
    result = init("train.xyz")
    assert result.exit_code == 2
    assert "no frame has an energy, forces or a stress under a usual name" in result.stderr
    assert not (tmp_path / "run.yaml").exists()


def test_a_missing_file_or_unknown_unit_is_one_message(init):
    assert "does not exist" in init("nope.xyz").stderr
    write_water("train.xyz")
    result = init("train.xyz", "--energy-unit", "hartrees")
    assert result.exit_code == 2
    assert "energy_unit" in result.stderr


def test_units_given_are_kept(init):
    write_water("train.xyz", scale=1.8897)
    assert init("train.xyz", "--length-unit", "bohr").exit_code == 0
    assert load_run("run.yaml")[0].data.length_unit == "bohr"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scale": 1.8897}, "positions in bohr?"),
        ({"scale": 0.1}, "positions in nm?"),
        ({"force_scale": 50.0}, "forces are large"),
        ({"force_scale": 1e-6}, "forces are all but zero"),
        ({"energy": False}, "no frame has energy"),
    ],
)
def test_signs_of_wrong_units(tmp_path, options, expected):
    found = seen(write_water(tmp_path / "a.xyz", **options))
    assert any(expected in text for text in found), found
    assert len(found) == 1


def test_right_data_raise_no_warning(tmp_path):
    assert seen(write_water(tmp_path / "a.xyz", atoms=True)) == []


def test_energies_in_hartree_are_noticed(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("".join(frame(MOLECULE, -76.4 + 0.001 * k, np.full((3, 3), 0.01)) for k in range(5)))
    assert any("Hartree" in text for text in seen(path))


def test_energies_per_atom_are_noticed(tmp_path):
    random = np.random.default_rng(0)
    text = ""
    for n in (1, 2, 3, 4, 5, 6):
        positions = np.concatenate([MOLECULE + 3.0 * k for k in range(n)])
        text += frame(positions, -5.0 + random.normal(0, 1e-3), np.full((3 * n, 3), 0.3), symbols="OHH" * n)
    (tmp_path / "a.xyz").write_text(text)
    assert any("per atom" in line for line in seen(tmp_path / "a.xyz"))
    total = text.replace("energy=-", "energy=-1")  # now of one size whatever the number of atoms: still per atom
    (tmp_path / "b.xyz").write_text(total)
    assert any("per atom" in line for line in seen(tmp_path / "b.xyz"))


def solid(n, a, stress):
    grid = np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)]) * a
    cell = " ".join(str(2 * a if i == j else 0.0) for i in range(3) for j in range(3))
    random = np.random.default_rng(0)
    text = ""
    for _ in range(n):
        positions = grid + random.normal(0, 0.05, (8, 3))
        forces = random.normal(0, 1.0, (8, 3))
        values = " ".join(f"{x:.6f}" for x in (np.eye(3) * stress).ravel())
        one = frame(positions, -40.0, forces, f'stress="{values}" Lattice="{cell}"', ["Cu"] * 8)
        text += one.replace('pbc="F F F"', 'pbc="T T T"')
    return text


def test_stress_gets_a_weight_and_dense_data_a_smaller_cutoff(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text(solid(40, 1.9, 0.01))
    portrait = look_at(open_dataset(path))
    chosen = suggest(portrait)
    assert portrait.n_periodic == 40
    assert chosen.stress_weight in (1e3, 1e4, 1e5)
    assert portrait.neighbors[chosen.r_max][1] <= 70
    assert chosen.r_max < 5.0
    path.write_text(solid(4, 2.5, 30.0))
    assert any("stresses are large" in text for text in warnings(look_at(open_dataset(path))))


@pytest.mark.parametrize(("n", "batch"), [(8, 1), (60, 2), (1000, 32)])
def test_small_data_get_small_batches(tmp_path, n, batch):
    assert suggest(look_at(open_dataset(write_water(tmp_path / "a.xyz", n)))).batch_size == batch
