"""Small files of each format, for tests of all of them: tests/data/<folder>, each with its origin and licence."""

from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Sample(NamedTuple):
    """A file or folder, its format, and the one file that damage is done to."""

    path: Path
    format: str
    structures: int
    file: Path


def _sample(path, format, structures, file=None):
    return Sample(HERE / path, format, structures, HERE / (file or path))


SAMPLES = {
    "ase_db": _sample("ase_db/oxides.db", "ase_db", 6),
    "schnetpack": _sample("schnetpack/qm9.db", "ase_db", 20),
    "aselmdb": _sample("aselmdb/silicon.aselmdb", "aselmdb", 3),
    "aselmdb_folder": _sample("aselmdb", "aselmdb", 3, "aselmdb/silicon.aselmdb"),
    "fairchem_lmdb": _sample("ocp_3bpa/data.lmdb", "fairchem_lmdb", 5),
    "xequinet": _sample("xequinet/data.lmdb", "xequinet", 5),
    "xequinet_folder": _sample("xequinet", "xequinet", 5, "xequinet/data.lmdb"),
    "alignn_json": _sample("alignn/forces/id_prop.json", "alignn", 4),
    "alignn_folder": _sample("alignn/mlearn_six", "alignn", 4, "alignn/mlearn_six/id_prop.json"),
    "alignn_zip": _sample("alignn/zipped/id_prop.json.zip", "alignn", 4),
    "alignn_table": _sample("alignn/table", "alignn", 4, "alignn/table/id_prop.csv"),
    "alignn_vectors": _sample("alignn/vectors/id_prop.csv", "alignn", 4),
    "alignn_cache": _sample("alignn_cache/numbers", "alignn_cache", 3, "alignn_cache/numbers/data.mdb"),
    "poscar": _sample("alignn/table/POSCAR-JVASP-98225.vasp", "ase_files", 1),
    "traj": _sample("ase_files/silicon.traj", "ase_files", 3),
    "vasprun": _sample("ase_files/vasprun.xml", "ase_files", 2),
    "cif": _sample("ase_files/silicon.cif", "ase_files", 1),
    "pdb": _sample("ase_files/bpa.pdb", "ase_files", 2),
}
