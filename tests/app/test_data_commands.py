"""forgefield data info, split, stats, sae, view: what is shown, written and refused."""

import json

import ase.io
import numpy as np
import pytest
from typer.testing import CliRunner
from water import write_water

from forgefield.app.data_cli import app
from forgefield.data.energy_file import read_energies


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def water(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_water(tmp_path / "water.xyz", 30, atoms=True)


def test_info_tells_what_is_there(water):
    code, out, _ = run("info", water)
    assert code == 0
    for text in (
        "extxyz",
        "32",
        "1 to 3 per structure",
        "H 61, O 31",
        "H2O 30",
        "energy, forces (30 of 32)",
        "H 1, O 1",
    ):
        assert text in out, text
    code, out, _ = run("info", water, "--json")
    found = json.loads(out)
    assert (found["structures"], found["elements"], found["formats"]) == (32, {"H": 61, "O": 31}, ["extxyz"])
    assert found["labels"] == {"energy": 32, "forces": 30}


def test_info_says_what_looks_wrong_and_what_was_asked(tmp_path):
    path = write_water(tmp_path / "bohr.xyz", 10, scale=1.89)
    code, out, err = run("info", path)
    assert code == 0
    assert "positions in bohr" in err
    _, out, err = run("info", path, "--set", "data.length_unit=bohr")
    assert "length bohr" in out
    assert "energy eV (not stated)" in out
    assert "forces eV/bohr (not stated)" in " ".join(out.split())
    assert "positions in bohr" not in err


def test_info_of_formats_and_mistakes(tmp_path):
    code, out, _ = run("info", "--formats")
    assert code == 0
    assert "extxyz" in out
    for words in ((tmp_path / "no.xyz",), ("--json",)):
        code, _, err = run("info", *words)
        assert code == 2
        assert "Traceback" not in err
        assert err.count("error:") == 1
    code, _, err = run("info", tmp_path / "x.xyz", "--set", "train.lr=1")
    assert code == 2


def test_split_writes_what_a_run_takes(water):
    code, out, _ = run("split", water, "--val", "0.2", "--test", "5", "--seed", "3")
    assert code == 0
    assert "split.json" in out
    found = json.loads((water.parent / "split.json").read_text())
    assert [len(found[name]) for name in ("train", "val", "test")] == [21, 6, 5]
    assert {0, 1} <= set(found["train"])
    code, _, err = run("split", water)
    assert (code, "already" in err) == (2, True)
    code, out, _ = run("split", water, "--by", "composition", "--force")
    assert code == 2
    code, _, err = run("split", water, "--val", "2.5", "--force")
    assert (code, "data.split.val" in err) == (2, True)


def test_stats_are_those_of_a_run(water):
    code, out, _ = run("stats", water, "--cutoff", "3")
    assert code == 0
    assert "2.00 on average" in out
    assert "-2040.0" in out
    code, out, _ = run("stats", water, "--json", "--e0", "{H: -14, O: -2000}", "--cutoff", "3")
    assert json.loads(out)["reference_energies"]["default"] == {"1": -14.0, "8": -2000.0}


def test_stats_of_labels_that_are_no_energies(tmp_path):
    rows = [f'2\nProperties=species:S:1:pos:R:3 gap={k}.5 mu="0 0 {k}"\nH 0 0 0\nH 0 0 0.{7 + k}\n' for k in (0, 1, 2)]
    (tmp_path / "a.xyz").write_text("".join(rows))
    gap = "data.targets={gap: {key: gap, per: structure, components: 1, unit: eV}}"
    code, out, err = run("stats", tmp_path / "a.xyz", "--set", gap, "--set", "data.dipole_key=mu")
    assert code == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "gap 1.5 0.8165" in lines
    assert any(line.startswith("dipole 0 0 0 ") for line in lines)  # it turns with the structure
    assert "1.00 on average" in out
    assert "Reference energies" not in out
    code, _, err = run("stats", tmp_path / "a.xyz")
    assert (code, "no energies" in err) == (2, True)


def test_info_names_what_may_be_a_label_that_is_missing(tmp_path):
    (tmp_path / "a.xyz").write_text("2\nProperties=species:S:1:pos:R:3 E_energy=1\nH 0 0 0\nH 0 0 0.7\n")
    code, out, err = run("info", tmp_path / "a.xyz")
    assert code == 0
    assert "Names that may be theirs: E_energy: --set data.energy_key=E_energy" in " ".join(err.split())
    assert "nearest atoms at 1.13 of the sum of covalent radii" in " ".join(out.split())
    code, _, err = run("info", tmp_path)
    assert (code, "name what it holds: a.xyz" in err) == (2, True)


def test_info_of_a_virial_and_of_units_that_follow(tmp_path):
    text = '2\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 energy=1 virial="{}"\n{}'
    text = text.format("1 0 0 0 1 0 0 0 1", "H 0 0 0 0 0 1\nH 0 0 0.7 0 0 -1\n")
    (tmp_path / "a.xyz").write_text(text)
    _, out, _ = run("info", tmp_path / "a.xyz", "--set", "data.energy_unit=Ha", "--set", "data.length_unit=Ang")
    told = " ".join(out.split())
    assert "energy Ha, length Ang, forces Ha/Ang (as energy and length), virial Ha (as the energy)" in told


def test_sae_is_fitted_written_and_explained(water, tmp_path):
    code, out, err = run("sae", water, "--out", "sae.yaml")
    assert code == 0
    assert "H, O cannot be told apart" in err
    found = read_energies(tmp_path / "sae.yaml")
    energies = [atoms.get_potential_energy() for atoms in ase.io.read(water, ":") if len(atoms) > 1]
    assert 2 * found["1"] + found["8"] == pytest.approx(np.mean(energies), abs=0.05)
    code, out, err = run("sae", water, "--given", "H=-14", "--percentiles", "0", "100")
    assert code == 0
    assert "30 of 30 structures" in out
    assert "-2047." in out
    assert "cannot be told apart" not in err
    for words in (
        ("--percentiles", "98", "2"),
        ("--by", "colour"),
        ("--given", "H"),
        ("--given", "H=-1", "--given", "O=-2"),
    ):
        code, _, err = run("sae", water, *words)
        assert code == 2, words
        assert "Fix" in err


def test_sae_of_each_fidelity(tmp_path):
    frames = []
    for name, shift in (("low", 0.0), ("high", 5.0)):
        for k in range(1, 7):
            energy = (k % 3 + 1) * (-2.0 + shift) + (-10.0 + shift) * (k % 2 + 1)
            rows = "".join(f"H 0 0 {j}\n" for j in range(k % 3 + 1)) + "".join(f"O 0 5 {j}\n" for j in range(k % 2 + 1))
            frames.append(f"{rows.count(chr(10))}\nProperties=species:S:1:pos:R:3 energy={energy} level={name}\n{rows}")
    (tmp_path / "a.xyz").write_text("".join(frames))
    code, _, err = run("sae", tmp_path / "a.xyz", "--set", "data.fidelity_key=level", "-o", tmp_path / "sae.yaml")
    assert code == 0, err
    found = read_energies(tmp_path / "sae.yaml")
    assert found["low"] == pytest.approx({"1": -2.0, "8": -10.0})
    assert found["high"] == pytest.approx({"1": 3.0, "8": -5.0})


def test_view_is_one_page_without_network(water):
    code, out, err = run("view", water)
    assert code == 0, err
    page = (water.parent / "water.xyz.html").read_text()
    assert "water.xyz.html" in out
    for text in ("Energy per atom", "Force components", "Nearest atoms", "H-O", "Sizes", "<svg"):
        assert text in page, text
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in page
    code, _, err = run("view", water.parent / "no.xyz")
    assert code == 2
    assert "does not exist" in err
