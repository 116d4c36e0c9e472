"""Regenerate tests/golden/dispersion: D3(BJ) and D4 by the Fortran programs s-dftd3 and dftd4.

    python scripts/oracle/dispersion.py                   environment in .oracle/dispersion, then the files
    python scripts/oracle/dispersion.py --python PYTHON   use an interpreter that has dftd3 and dftd4

Energies are in Hartree, gradients in Hartree/Bohr, virials (derivatives by strain) in Hartree, positions in Bohr.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
METHODS = ("pbe", "b3lyp", "wb97m", "wb97x", "b2plyp", "hf", "tpss", "revpbe")
D4_METHODS = ("pbe", "b3lyp", "tpss")


def structures() -> dict:
    """Molecules and distorted crystals by name, as ASE's Atoms."""
    import numpy as np
    from ase import Atoms
    from ase.build import bulk, graphene, molecule

    chosen = {name: molecule(name) for name in ("C6H6", "CH3CH2OH", "SiH4", "C2H6CHOH", "SO2", "AlCl3")}
    pair = molecule("H2O") + molecule("H2O")
    pair.positions[3:] += (2.9, 0.4, 0.1)
    chosen["water_dimer"] = pair
    chosen["lone_atom"] = Atoms("Ar", positions=[(0.0, 0.0, 0.0)])
    chosen["gold_complex"] = Atoms(
        "AuPPFeU", positions=[(0, 0, 0), (2.2, 0, 0.3), (-2.3, 0.4, 0), (0, 2.7, 0), (0, 0, 3)]
    )
    chosen["silicon"] = bulk("Si", "diamond", 5.43, cubic=True)
    chosen["salt"] = bulk("NaCl", "rocksalt", 5.64)
    chosen["copper"] = bulk("Cu", "fcc", 3.61)
    sheet = graphene(vacuum=None)
    sheet.cell[2] = (0.3, 0.2, 3.4)
    sheet.pbc = True
    chosen["graphite"] = sheet
    generator = np.random.default_rng(11)
    for atoms in chosen.values():
        atoms.positions += generator.normal(0.0, 0.05, atoms.positions.shape)
        if atoms.pbc.any():
            atoms.set_cell(atoms.cell[:] @ (np.eye(3) + generator.normal(0.0, 0.02, (3, 3))), scale_atoms=True)
    return chosen


def compute(folder: Path) -> None:
    """Run both programs on all structures and write structures.npz, expected.npz and meta.json."""
    import dftd3.interface
    import dftd4.interface
    import numpy as np
    from ase.units import Bohr

    given, found = {}, {}
    for name, atoms in structures().items():
        periodic = bool(atoms.pbc.all())
        numbers, positions = atoms.numbers, atoms.positions / Bohr
        cell = np.array(atoms.cell) / Bohr if periodic else None
        given[f"{name}/numbers"], given[f"{name}/positions"] = numbers, positions
        given[f"{name}/cell"] = np.zeros((3, 3)) if cell is None else cell
        pbc = np.ones(3, bool) if periodic else None
        for method in METHODS:
            model = dftd3.interface.DispersionModel(numbers, positions, cell, pbc)
            param = dftd3.interface.RationalDampingParam(method=method, atm=False)
            keep(found, f"d3/{method}/{name}", model.get_dispersion(param, grad=True))
        for method in D4_METHODS if name != "gold_complex" else ():
            model = dftd4.interface.DispersionModel(numbers, positions, lattice=cell, periodic=pbc)
            keep(
                found,
                f"d4/{method}/{name}",
                model.get_dispersion(dftd4.interface.DampingParam(method=method), grad=True),
            )
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "structures.npz", **given)
    np.savez_compressed(folder / "expected.npz", **found)
    meta = {
        "versions": {name: version(name) for name in ("dftd3", "dftd4", "numpy", "ase")},
        "units": "Hartree, Bohr",
        "cutoffs": {"d3": {"pairs": 60.0, "coordination numbers": 40.0}, "d4": "the program's"},
        "three_body": {"d3": False, "d4": True},
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


def keep(found: dict, key: str, result: dict) -> None:
    """Store one result."""
    found[f"{key}/energy"], found[f"{key}/gradient"] = result["energy"], result["gradient"]
    found[f"{key}/virial"] = result["virial"]


def make_environment(place: Path) -> Path:
    """Create a virtual environment with the pinned packages, unless it is complete, and return its python."""
    python, done, pins = place / "bin" / "python", place / "complete", HERE / "dispersion.txt"
    if not (done.exists() and done.read_text() == pins.read_text()):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(pins)], check=True)
        done.write_text(pins.read_text())
    return python


def main() -> None:
    """Read the command line and compute, here or in the environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", type=Path, help="interpreter that has both; default: make an environment")
    parser.add_argument("--target", type=Path, default=ROOT / "tests" / "golden" / "dispersion")
    parser.add_argument("--here", action="store_true", help="compute in this interpreter")
    options = parser.parse_args()
    if options.here:
        compute(options.target)
        return
    python = options.python or make_environment(ROOT / ".oracle" / "dispersion")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [str(python), str(Path(__file__).resolve()), "--here", "--target", str(options.target.resolve())]
    raise SystemExit(subprocess.run(command, env=environment).returncode)


if __name__ == "__main__":
    main()
