"""Make the environment of a reference code and regenerate the golden numbers in tests/golden.

    python scripts/oracle mace                         environment in .oracle/mace, then all golden files
    python scripts/oracle mace --python PYTHON         use an interpreter that has mace-torch already
    python scripts/oracle mace --only forward --case heads
    python scripts/oracle mace --data DIR              choose the training frames anew from DIR
    python scripts/oracle aimnet                       the same for aimnet: .oracle/aimnet, tests/golden/aimnet
    python scripts/oracle alignn                       the same for alignn

Without --data the training frames that lie in tests/golden are used again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def make_environment(code: str, place: Path, torch_index: str | None) -> Path:
    """Create a virtual environment with the pinned packages, unless it is complete, and return its python."""
    python = place / "bin" / "python"
    done = place / "complete"
    pins = HERE / f"{code}.txt"
    if done.exists() and done.read_text() == pins.read_text():
        return python
    print(f"installing the reference code into {place}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet"]
    torch_pin = next(line for line in pins.read_text().splitlines() if line.startswith("torch=="))
    index = ["--index-url", torch_index] if torch_index else []
    subprocess.run([*install, *index, torch_pin], check=True)  # first: others would choose a build of it
    subprocess.run([*install, "-r", str(pins)], check=True)
    done.write_text(pins.read_text())
    return python


def run_script(python: Path, script: str, arguments: list[str], folder: Path) -> None:
    """Run one of the neighbouring scripts in the environment and stop at its first failure."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [str(python), str(HERE / script), str(folder), *arguments]
    if subprocess.run(command, env=environment).returncode:
        raise SystemExit(f"{script} failed; the files in {folder} may be incomplete")


def main() -> None:
    """Read the command line, make the environment, write the files."""
    parser = argparse.ArgumentParser(prog="scripts/oracle", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("code", choices=("mace", "aimnet", "alignn"), help="which reference code")
    parser.add_argument("--python", type=Path, help="interpreter that has it; default: make one")
    parser.add_argument("--place", type=Path, help="where to make it; default .oracle/CODE")
    parser.add_argument("--torch-index", help="package index to take torch from, as for a CPU-only build")
    parser.add_argument("--only", choices=("environment", "forward", "training"))
    parser.add_argument("--case", action="append", help="only this forward case; may be repeated")
    parser.add_argument("--data", type=Path, help="folder with 3bpa/ and mlearn_Si/")
    parser.add_argument("--target", type=Path, default=ROOT / "tests" / "golden")
    options = parser.parse_args()
    place = options.place or ROOT / ".oracle" / options.code
    python = options.python or make_environment(options.code, place, options.torch_index)
    chosen = [word for name in options.case or [] for word in ("--case", name)]
    if options.code != "mace":
        if options.only in (None, "forward"):
            run_script(python, f"{options.code}_forward.py", chosen, options.target / options.code)
        return
    if options.only in (None, "forward"):
        run_script(python, "forward.py", chosen, options.target / "mace")
    if options.only in (None, "training") and not options.case:
        data = ["--data", str(options.data.resolve())] if options.data else []
        run_script(python, "training.py", data, options.target / "training")


if __name__ == "__main__":
    main()
