"""The code blocks of docs/artifact.md run as they stand."""

import re
import shutil
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "artifact.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
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


def test_the_table_names_every_file(artifact):
    text = PAGE.read_text(encoding="utf-8")
    for path in artifact.folder.iterdir():
        assert f"`{path.name}`" in text
