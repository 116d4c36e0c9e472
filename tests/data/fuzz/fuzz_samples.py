"""One small file or folder of every registered format, and ways into its compressed or framed inside."""

import gzip
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import lmdb
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from forgefield.core.structure import Structure
from forgefield.data.store.store_writer import StoreWriter

Change = Callable[[bytes], bytes]
HERE = Path(__file__).parent
TABLE = HERE.parent / "pacemaker" / "pandas3.1_protocol4.pckl.gzip"


@dataclass(frozen=True)
class Sample:
    """How to write a format's sample to a path, and how to change what lies behind its compression or checksums."""

    write: Callable[[Path], None]
    inside: Callable[[Path, Change], None] | None = None


def random_frames(sizes=(3, 4, 3), seed=0):
    random = np.random.default_rng(seed)
    for n in sizes:
        yield {
            "numbers": random.choice([1, 6, 8], n),
            "positions": random.normal(size=(n, 3)),
            "energy": float(random.normal()),
            "forces": random.normal(size=(n, 3)),
            "cell": np.diag([7.0, 8.0, 9.0]),
        }


def write_extxyz(path):
    with path.open("w") as stream:
        for f in random_frames():
            atoms = Atoms(f["numbers"], f["positions"], cell=f["cell"], pbc=True)
            atoms.calc = SinglePointCalculator(atoms, energy=f["energy"], forces=f["forces"], stress=np.ones(6))
            atoms.info["config_type"] = "bulk"
            write(stream, atoms, format="extxyz")


def write_fairchem_lmdb(path):
    _fill_lmdb(
        path,
        {
            str(k).encode(): pickle.dumps(
                {
                    "pos": f["positions"],
                    "cell": f["cell"][None],
                    "atomic_numbers": f["numbers"].astype(float),
                    "natoms": len(f["numbers"]),
                    "y": f["energy"],
                    "force": f["forces"],
                    "fixed": np.zeros(len(f["numbers"])),
                    "tags": np.ones(len(f["numbers"]), dtype=int),
                }
            )
            for k, f in enumerate(random_frames())
        }
        | {b"length": pickle.dumps(3)},
    )


def _fill_lmdb(path, records):
    environment = lmdb.open(str(path), subdir=False, map_size=2**20, lock=False)
    with environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)
    environment.close()


def change_lmdb(path, change):
    """Change one record of an LMDB file that stays whole."""
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment, environment.begin() as reading:
        records = {bytes(k): bytes(v) for k, v in reading.cursor()}
    key = max(records, key=lambda k: hash_of(k, records[k]))
    records[key] = change(records[key])
    path.unlink()
    _fill_lmdb(path, records)


def hash_of(*parts):
    """A number that differs from sample to sample, the same in every process."""
    return sum((k + 1) * byte for part in parts for k, byte in enumerate(part)) % 9973


def write_size_grouped(path, compressed=False):
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["method"] = "test"
        for n in (2, 5):
            group = file.create_group(f"{n:03d}")
            arrays = {
                "coord": random.normal(size=(3, n, 3)).astype(np.float32),
                "numbers": random.choice([1, 6, 8], (3, n)),
                "charge": np.zeros(3, dtype=np.int8),
                "mult": np.ones(3, dtype=np.int8),
                "energy": random.normal(size=3),
                "forces": random.normal(size=(3, n, 3)),
                "charges": random.normal(size=(3, n)),
                "spin_charges": random.normal(size=(3, n)),
                "dipole": random.normal(size=(3, 3)),
                "quadrupole": random.normal(size=(3, 6)),
                "_id": np.array([b"one", b"two", b"six"]),
            }
            for name, value in arrays.items():
                group.create_dataset(name, data=value, **({"compression": "gzip"} if compressed else {}))


def write_size_grouped_npz(path):
    path.mkdir()
    for n in (2, 5):
        random = np.random.default_rng(n)
        arrays = {
            "coord": random.normal(size=(3, n, 3)),
            "numbers": np.full((3, n), 8),
            "energy": random.normal(size=3),
        }
        np.savez(path / f"{n:03d}.npz", **arrays, forces=random.normal(size=(3, n, 3)))


def write_md17_npz(path):
    random = np.random.default_rng(0)
    with path.open("wb") as stream:
        np.savez_compressed(
            stream,
            nuclear_charges=np.array([6, 1, 1, 8], dtype=np.uint8),
            coords=random.normal(size=(5, 4, 3)),
            energies=random.normal(size=5),
            forces=random.normal(size=(5, 4, 3)),
            old_energies=random.normal(size=5),
            old_forces=random.normal(size=(5, 4, 3)),
        )


def change_npz(path, change):
    """Change one array of an npz, or of a random npz in a folder, and write its checksums anew."""
    if path.is_dir():
        path = sorted(path.rglob("*.npz"))[0]
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = max(members, key=lambda k: hash_of(members[k][-40:]))
    first = change(b"".join([name.encode(), b"\0", members[name]]))
    members[name] = first.split(b"\0", 1)[-1]
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)


def write_pacemaker(path):
    path.write_bytes(TABLE.read_bytes())


def change_gzip(path, change):
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes())), 1))


def write_deepmd_npy(path, mixed=False):
    random = np.random.default_rng(0)
    (path / "set.000").mkdir(parents=True)
    (path / "type.raw").write_text("0\n1\n1\n")
    (path / "type_map.raw").write_text("O\nH\n")
    arrays = {
        "coord": random.normal(size=(2, 9)),
        "box": np.tile(np.diag([9.0, 9.0, 9.0]).ravel(), (2, 1)),
        "energy": random.normal(size=2),
        "force": random.normal(size=(2, 9)),
        "virial": np.tile(np.eye(3).ravel(), (2, 1)),
    }
    if mixed:
        arrays["real_atom_types"] = np.array([[0, 1, 1], [1, 0, -1]])
    for name, value in arrays.items():
        np.save(path / "set.000" / f"{name}.npy", value)


def write_structure_store(path):
    (path / "structures").mkdir(parents=True)
    lines = []
    for k, f in enumerate(random_frames()):
        name = f"{k:040x}"
        np.savez(
            path / "structures" / f"{name}.npz",
            numbers=f["numbers"].astype(np.int64),
            positions=f["positions"].astype(np.float32),
            tags=np.zeros(len(f["numbers"]), dtype=np.int16),
            fixed=np.zeros(len(f["numbers"]), dtype=np.int8),
            cell=f["cell"].astype(np.float32),
            pbc=np.ones(3, dtype=np.int8),
            info_json=np.array(json.dumps({"energy": f["energy"], "note": "x"})),
        )
        lines.append({"id": name, "path": f"structures/{name}.npz", "n_atoms": len(f["numbers"]), "kind": "min"})
    (path / "structures" / "index.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


def write_store(path):
    writer = StoreWriter(path)
    for f in random_frames():
        labels = {"energy": np.array(f["energy"]), "forces": f["forces"]}
        writer.add(Structure(f["numbers"], f["positions"], f["cell"], np.ones(3, dtype=bool), labels))
    writer.finish()


def copied(name):
    """A copy of a file or folder of tests/data."""

    def write_copy(path):
        source = HERE.parent / name
        shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)

    return Sample(write_copy)


SAMPLES: dict[str, list[Sample]] = {
    "alignn": [copied(f"alignn/{name}") for name in ("forces/id_prop.json", "zipped/id_prop.json.zip", "table")],
    "alignn_cache": [copied("alignn_cache/numbers")],
    "ase_db": [copied("ase_db/oxides.db"), copied("schnetpack/qm9.db")],
    "ase_files": [copied(f"ase_files/{name}") for name in ("silicon.traj", "vasprun.xml", "silicon.cif", "bpa.pdb")],
    "aselmdb": [copied("aselmdb/silicon.aselmdb")],
    "store": [Sample(write_store)],
    "xequinet": [copied("xequinet")],
    "extxyz": [Sample(write_extxyz)],
    "fairchem_lmdb": [Sample(write_fairchem_lmdb, change_lmdb)],
    "size_grouped": [
        Sample(write_size_grouped),
        Sample(lambda path: write_size_grouped(path, compressed=True)),
        Sample(write_size_grouped_npz, change_npz),
    ],
    "md17_npz": [Sample(write_md17_npz, change_npz)],
    "pacemaker": [Sample(write_pacemaker, change_gzip)],
    "deepmd_npy": [Sample(write_deepmd_npy), Sample(lambda path: write_deepmd_npy(path, mixed=True))],
    "structure_store": [Sample(write_structure_store, change_npz)],
}
"""By format. A new reader adds its line here; the test fails without one."""
