"""Twenty small molecules, a small model, and one run that the tests share."""

import shutil
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples" / "3bpa"
MODEL = {
    "hidden_irreps": "8x0e + 8x1o",
    "max_ell": 1,
    "correlation": 2,
    "radial_mlp": [8],
    "num_radial_basis": 4,
    "r_max": 4.0,
}


def frames(path: Path) -> list[str]:
    """Return the frames of an extxyz file as texts."""
    lines = path.read_text().splitlines(keepends=True)
    found, k = [], 0
    while k < len(lines):
        end = k + int(lines[k]) + 2
        found.append("".join(lines[k:end]))
        k = end
    return found


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with train.xyz (4 free atoms, 20 molecules), test.xyz (5) and bare.xyz (3, without labels)."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.xyz").write_text("".join(frames(EXAMPLES / "train.xyz")[:24]))
    test = frames(EXAMPLES / "test_300K.xyz")[:5]
    (folder / "test.xyz").write_text("".join(test))
    bare = []
    for text in test[:3]:
        lines = text.splitlines()
        atoms = [" ".join(line.split()[:4]) for line in lines[2:]]
        bare.append("\n".join([lines[0], 'Properties=species:S:1:pos:R:3 pbc="F F F"', *atoms]) + "\n")
    (folder / "bare.xyz").write_text("".join(bare))
    return folder


def values(data: Path, run_dir: Path, **changes) -> dict:
    """Return a small training run as the keys of run.yaml; `changes` are dotted keys with __ for the dot."""
    found = {
        "task": "train",
        "name": "small",
        "backend": "mace",
        "run_dir": str(run_dir),
        "device": "cpu",
        "dtype": "float64",
        "model": dict(MODEL),
        "data": {"train": str(data / "train.xyz"), "test": str(data / "test.xyz")},
        "train": {"epochs": 2, "batch_size": 5},
    }
    for key, value in changes.items():
        place, *rest = key.split("__")
        if rest:
            found.setdefault(place, {})[rest[0]] = value
        else:
            found[place] = value
    return found


@pytest.fixture(scope="session")
def settings(data):
    """A function that returns the keys of a small training run."""
    return lambda run_dir, **changes: values(data, run_dir, **changes)


@pytest.fixture(scope="session")
def shared_run(data, tmp_path_factory):
    """A finished run; tests must not change it."""
    import forgefield

    root = tmp_path_factory.mktemp("runs") / "shared"
    result = forgefield.run(values(data, root), quiet=True)
    return root, result


@pytest.fixture
def own_run(shared_run, tmp_path):
    """A copy of the finished run that a test may change."""
    root = tmp_path / "own"
    shutil.copytree(shared_run[0], root)
    text = (root / "run.resolved.yaml").read_text()
    (root / "run.resolved.yaml").write_text(text.replace(str(shared_run[0]), str(root)))
    return root


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its contents."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="session")
def contents_of():
    """A function that returns every file below a folder with its contents."""
    return snapshot
