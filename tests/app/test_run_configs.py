"""The example files load, and every setting is documented."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgefield.app.reference import missing_descriptions, render_reference
from forgefield.app.run import load_run

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("examples/*.yaml")])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads(path):
    assert load_run(path)


def test_there_are_examples():
    assert len(EXAMPLES) >= 6


def test_every_setting_has_a_description():
    assert missing_descriptions() == []


def test_the_reference_page_is_current():
    page = ROOT / "docs" / "run-yaml.md"
    assert page.read_text(encoding="utf-8") == render_reference(), "run scripts/make_reference"


def test_the_reference_page_names_every_block():
    text = render_reference()
    for key in ("`train.lr`", "`data.e0`", "`model.r_max`", "`model.manifest`", "`output.metrics_json`", "`run_dir`"):
        assert f"| {key} |" in text


def test_help_needs_no_torch():
    code = (
        "import sys\n"
        "from forgefield.app.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code in (0, None)\n"
        "heavy = {'torch', 'ase', 'e3nn', 'pydantic', 'ruamel.yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, env=env)
