"""ForgeField's side of benchmarks/md.py: steps of molecular dynamics with its ASE calculator.

python md_ours.py CASE.npz DTYPE BUNDLE THREADS
"""

from __future__ import annotations

import sys

from protocol import Channel, load_case, serve

CHANNEL = Channel()

import torch  # noqa: E402
from dynamics import first_atoms, start_dynamics  # noqa: E402

from forgefield.core import allocator  # noqa: E402
from forgefield.export.calculator import ForgeField  # noqa: E402
from forgefield.models.bundle import load_bundle  # noqa: E402


def main() -> None:
    case_path, dtype_name, bundle, threads = sys.argv[1:]
    allocator.tune()
    torch.set_num_threads(int(threads))
    potential = load_bundle(bundle, dtype=getattr(torch, dtype_name))
    atoms = first_atoms(load_case(case_path))
    atoms.calc = ForgeField(potential)
    run, predict = start_dynamics(atoms)
    about = {"versions": {"torch": torch.__version__}, "allocator": allocator.in_use()}
    serve(CHANNEL, {"md": run}, predict, about)


if __name__ == "__main__":
    main()
