"""A run whose Coulomb energy is of charges that come with the data, from the file to the ASE calculator."""

import numpy as np
import pytest
from ase.io import read, write

import forgefield
from forgefield.core.errors import DataError
from forgefield.export.calculator import ForgeField


def test_charges_of_a_column_are_trained_with(settings, data, tmp_path):
    frames = read(data / "train.xyz", ":")
    for k, atoms in enumerate(frames):
        atoms.set_array("q", 0.1 * np.sin(np.arange(len(atoms)) + k))
    write(tmp_path / "q.xyz", frames)
    keys = {
        "data__train": str(tmp_path / "q.xyz"), "data__test": [], "export__targets": [], "train__epochs": 1,
        "model__physics": {"coulomb": {"method": "dsf", "charges": "given"}},
    }  # fmt: skip
    with pytest.raises(DataError, match=r"charge of each atom.*data\.charges_key"):
        forgefield.run(settings(tmp_path / "lacks", **keys), quiet=True)
    forgefield.run(settings(tmp_path / "run", data__charges_key="q", **keys), quiet=True)
    assert "coulomb: computed once" in (tmp_path / "run" / "events.jsonl").read_text()
    atoms, found = max(frames, key=len).copy(), []
    atoms.calc = ForgeField.load(tmp_path / "run" / "artifacts")
    for factor in (1.0, 2.0):
        atoms.set_initial_charges(factor * atoms.arrays["q"])
        found.append(atoms.get_potential_energy())
        (predicted,) = forgefield.predict(tmp_path / "run", atoms.copy())
        assert predicted.energy == pytest.approx(found[-1], abs=1e-4)  # float32
    assert abs(found[1] - found[0]) > 1e-3
