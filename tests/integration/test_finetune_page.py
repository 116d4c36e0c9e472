"""The commands, files and Python of docs/finetune.md work as they stand, only with fewer epochs and frames."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forgefield.app.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "finetune.md").read_text(encoding="utf-8")
FOUND = re.findall(r"```(sh|yaml|python)\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [line for kind, text in FOUND if kind == "sh" for line in text.splitlines()]
SMALL = ["--set", "model.hidden_irreps=4x0e + 4x1o", "--set", "model.max_ell=1", "--set", "model.correlation=2"]


def test_the_page_has_commands_of_every_section():
    assert [shlex.split(line)[1] for line in COMMANDS] == [
        "finetune", "check", "run", "evaluate", "evaluate", "train", "finetune", "resume",
    ]  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with a few frames of the examples; the current folder."""
    for name, most in (("3bpa/train.xyz", 24), ("3bpa/test_300K.xyz", 2), ("ethanol/train.xyz", 20),
                       ("ethanol/test.xyz", 2)):  # fmt: skip
        lines, k = (ROOT / "examples" / name).read_text().splitlines(keepends=True), 0
        for _ in range(most):
            k += int(lines[k]) + 2
        (tmp_path / "examples" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "examples" / name).write_text("".join(lines[:k]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def carry_out(line: str) -> str:
    """Run a command of the page; a model that is made anew is small, and no training is long."""
    words = shlex.split(re.sub(r"--epochs (\d)0", r"--epochs \1", line))[1:]
    words += SMALL if words[0] == "train" else []
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, words)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.output


def test_the_page_runs(project, capsys):
    carry_out("forgefield train --data examples/3bpa/train.xyz --epochs 10 --out runs/demo")
    for kind, text in FOUND:
        if kind == "yaml":
            name = re.match(r"# (\S+)\n", text)
            assert name is not None
            (project / name[1]).write_text(text.replace("epochs: 20", "epochs: 2"))
        elif kind == "sh":
            said = [" ".join(carry_out(line).split()) for line in text.splitlines()]
            for line, output in zip(text.splitlines(), said, strict=True):
                if " finetune " in line or " run " in line:
                    assert "every one accounted for" in output
                if "--add-elements" in line:
                    assert "N from C" in output
        else:
            exec(compile(text, "finetune.md", "exec"), {"__name__": "snippet"})
            assert float(capsys.readouterr().out.split()[-1]) < -4000
    assert os.path.isfile("runs/both/report.html")
    shutil.rmtree(project / "runs")


def test_the_example_data_are_what_their_page_says():
    from ase.io import read

    for name in ("train", "test"):
        frames = read(ROOT / "examples" / "ethanol" / f"{name}.xyz", ":")
        assert len(frames) == 100
        assert {atoms.get_chemical_formula() for atoms in frames} == {"C2H6O"}
        assert all(-4212 < atoms.get_potential_energy() < -4205 for atoms in frames)
