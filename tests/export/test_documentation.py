"""The code blocks of docs/artifact.md run as they stand."""

import re
import shutil
import warnings
from pathlib import Path

import pytest

from forgefield.export.artifact import TARGETS, export_artifacts

PAGE = Path(__file__).parent.parent.parent / "docs" / "artifact.md"
FOUND = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
COMPILED = [block for block in FOUND if "model.pt2" in block]
BLOCKS = [block for block in FOUND if block not in COMPILED]
PRINTS = ["-4", "torch.Size([9, 3])", "'forces': 'eV/Å'", "torchscript 7"]


def test_there_are_snippets_for_ase_torchscript_and_the_certificate():
    assert len(BLOCKS) == len(PRINTS)


@pytest.mark.parametrize("k", range(len(BLOCKS)))
def test_snippet_runs(k, artifact, tmp_path, monkeypatch, capsys):
    shutil.copytree(artifact.folder, tmp_path / "artifacts")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        exec(compile(BLOCKS[k], f"{PAGE.name}[{k}]", "exec"), {"__name__": "snippet"})
    assert PRINTS[k] in capsys.readouterr().out


@pytest.mark.slow
def test_snippet_of_the_compiled_package_runs(make_potential, sample, tmp_path, monkeypatch, capsys):
    small = {"hidden_irreps": "2x0e", "max_ell": 1, "correlation": 1, "radial_mlp": [4], "num_interactions": 1}
    export_artifacts(
        make_potential(**small), tmp_path / "artifacts", targets=["aotinductor"], provenance={}, sample=sample
    )
    monkeypatch.chdir(tmp_path)
    (block,) = COMPILED
    exec(compile(block, f"{PAGE.name}[compiled]", "exec"), {"__name__": "snippet"})
    assert "torch.Size([9, 3])" in capsys.readouterr().out


@pytest.mark.parametrize("name", TARGETS.names())
def test_the_table_names_every_target(name):
    entry = TARGETS.entry(name)
    assert f"`{entry.build(entry.settings()).filename}`" in PAGE.read_text(encoding="utf-8")


def test_the_table_names_every_file(artifact):
    text = PAGE.read_text(encoding="utf-8")
    for path in artifact.folder.iterdir():
        assert f"`{path.name}`" in text
