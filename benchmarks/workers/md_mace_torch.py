"""mace-torch's side of benchmarks/md.py: steps of molecular dynamics with its ASE calculator, in its own interpreter.

python md_mace_torch.py CASE.npz DTYPE MODEL THREADS
"""

from __future__ import annotations

import sys
import warnings

from protocol import Channel, load_case, malloc_library, serve

CHANNEL = Channel()
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from dynamics import first_atoms, start_dynamics  # noqa: E402
from mace import __version__  # noqa: E402
from mace.calculators import MACECalculator  # noqa: E402


def main() -> None:
    case_path, dtype_name, model, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    atoms = first_atoms(load_case(case_path))
    atoms.calc = MACECalculator(model_paths=model, device="cpu", default_dtype=dtype_name)
    run, predict = start_dynamics(atoms)
    about = {"versions": {"mace-torch": __version__, "torch": torch.__version__}, "allocator": malloc_library()}
    serve(CHANNEL, {"md": run}, predict, about)


if __name__ == "__main__":
    main()
