"""ASE databases on a PostgreSQL server: FORGEFIELD_POSTGRESQL names one whose database may be written.

For instance postgresql://tester@127.0.0.1:5432/forge, with the packages ase-db-backends and psycopg2-binary.
"""

import importlib.util
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from forgefield.app.cli import app
from forgefield.core.errors import DataError
from forgefield.data.conversion import job_of
from forgefield.data.dataset import open_dataset, open_frames
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits
from forgefield.data.server_address import server_address, shown

ADDRESS = os.environ.get("FORGEFIELD_POSTGRESQL", "")
NONE = "FORGEFIELD_POSTGRESQL names no server, or ase-db-backends is not installed"
served = pytest.mark.skipif(not ADDRESS or importlib.util.find_spec("ase_db_backends") is None, reason=NONE)
SECRET = "postgresql://anna:secret@somewhere:5432/set"


def run(*words):
    return CliRunner().invoke(app, ["data", *map(str, words)])


@pytest.fixture
def rows():
    """Seven rows that this test wrote, marked by a key of its own; taken away again."""
    from ase.db import connect

    database, random, mark = connect(ADDRESS), np.random.default_rng(0), f"t{os.getpid()}"
    found = []
    for k in range(7):
        atoms = Atoms("H2O", random.normal(size=(3, 3)), cell=4 * np.eye(3), pbc=k % 2 == 0)
        atoms.calc = SinglePointCalculator(atoms, energy=random.normal(), forces=random.normal(size=(3, 3)))
        database.write(atoms, status="completed" if k % 3 else "failed", run=mark)
        found.append(atoms)
    yield found, mark
    database.delete([row.id for row in database.select(run=mark)])


@served
def test_rows_are_read_selected_shared_and_converted(rows, tmp_path):
    atoms, mark = rows
    frames = open_frames(Path(ADDRESS), "auto", LabelKeys(), LabelUnits(), f"run={mark}")
    assert len(frames) == 7
    for one, other in zip(atoms, [frames[k] for k in range(7)], strict=True):
        np.testing.assert_array_equal(other.positions, one.positions)
        np.testing.assert_array_equal(other.labels["forces"], one.get_forces())
        assert float(other.labels["energy"]) == one.get_potential_energy()
        assert other.pbc.tolist() == one.pbc.tolist()
    energies = [float(frames[k].labels["energy"]) for k in range(7)]
    twin = pickle.loads(pickle.dumps(frames))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda k: float(twin[k].labels["energy"]), range(7))) == energies
    chosen = f"run={mark},status=completed"
    assert len(open_frames(Path(ADDRESS), "auto", LabelKeys(), LabelUnits(), chosen)) == 4
    with pytest.raises(DataError, match="no row matches select"):
        open_frames(Path(ADDRESS), "auto", LabelKeys(), LabelUnits(), f"run={mark},status=lost")
    done = run("convert", ADDRESS, tmp_path / "s.store", "--set", f"data.select={chosen}")
    assert done.exit_code == 0, done.output
    stored = open_dataset(tmp_path / "s.store")
    assert [float(s.labels["energy"]) for s in stored] == [energies[k] for k in (1, 2, 4, 5)]
    assert "structures" in run("info", ADDRESS, "--set", f"data.select={chosen}").output


@served
@pytest.mark.parametrize("change", [("forge", "no_such_base"), (":", ":1")], ids=["no database", "no server"])
def test_what_is_not_there(change):
    host, _, base = ADDRESS.rpartition("/")
    wrong = f"{host}/no_such_base" if change[0] == "forge" else f"postgresql://127.0.0.1:1/{base}"
    with pytest.raises(DataError, match=r"cannot be read .* Fix: check the address and the rights"):
        open_dataset(wrong)


def test_passwords_are_not_shown():
    for path in (SECRET, str(Path(SECRET)), str(Path("/some/where") / Path(SECRET))):
        assert server_address(Path(path)) == SECRET
        assert shown(path) == "postgresql://somewhere:5432/set"
    assert shown("a.xyz") == "a.xyz"
    assert shown("postgres://somewhere/set") == "postgresql://somewhere/set"
    assert job_of([Path(SECRET)], {}) != job_of([Path(SECRET + "2")], {})
    assert "secret" not in run("info", SECRET).output


def test_a_server_is_not_written(tmp_path):
    (tmp_path / "a.xyz").write_text("1\nenergy=1.0\nH 0 0 0\n")
    found = run("convert", tmp_path / "a.xyz", SECRET)
    assert found.exit_code != 0
    assert "postgresql://somewhere:5432/set: is a database server, which is only read" in found.output
