"""Small data for the tests of configuration and command line: water molecules with a harmonic label."""

from pathlib import Path

import numpy as np

GOOD = """\
name: first
task: train
backend: mace
run_dir: runs/first
data:
  train: train.xyz
model:
  r_max: 3.0
  hidden_irreps: 4x0e + 4x1o
  max_ell: 1
  correlation: 2
  radial_mlp: [8]
train:
  epochs: 3
"""
MOLECULE = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def frame(positions, energy=None, forces=None, extra="", symbols="OHH"):
    columns = "species:S:1:pos:R:3" + (":forces:R:3" if forces is not None else "")
    label = f"energy={energy!r} " if energy is not None else ""
    rows = []
    for k, symbol in enumerate(symbols):
        numbers = [*positions[k], *(forces[k] if forces is not None else ())]
        rows.append(" ".join([symbol, *(f"{x:.8f}" for x in numbers)]))
    return f'{len(rows)}\nProperties={columns} {label}{extra} pbc="F F F"\n' + "\n".join(rows) + "\n"


def springs(positions):
    """Energy and forces of springs between the atoms."""
    energy, forces = -2076.0, np.zeros((3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        vector = positions[j] - positions[i]
        length = float(np.linalg.norm(vector))
        stretch = length - float(np.linalg.norm(MOLECULE[j] - MOLECULE[i]))
        energy += 20.0 * stretch**2
        forces[j] -= 40.0 * stretch * vector / length
        forces[i] += 40.0 * stretch * vector / length
    return energy, forces


def write_water(path, n=8, *, seed=0, scale=1.0, energy=True, forces=True, force_scale=1.0, atoms=False):
    """Write `n` distorted water molecules; `scale` stretches positions, `force_scale` the forces."""
    random = np.random.default_rng(seed)
    text = ""
    if atoms:
        for symbol, value in (("H", -13.6), ("O", -2040.0)):
            text += frame(np.zeros((1, 3)), value, None, "config_type=IsolatedAtom", symbol)
    for _ in range(n):
        shift = random.normal(0.0, 0.05, (3, 3))
        energy_value, pull = springs(MOLECULE + shift)
        text += frame(
            (MOLECULE + shift) * scale, energy_value if energy else None, pull * force_scale if forces else None
        )
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def write_run(folder, text=GOOD, name="run.yaml"):
    path = Path(folder) / name
    path.write_text(text, encoding="utf-8")
    return path
