"""The AOTInductor package: equal to the eager model, alone in a fresh process, NaN on wrong input."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list

from forgefield.core.errors import DeviceError, ForgeError, ModelError
from forgefield.export import artifact as module
from forgefield.export.artifact import export_artifacts
from forgefield.export.exportable import ExportablePotential
from forgefield.export.package_inputs import INPUTS, Asked, pack
from forgefield.export.prediction import predict
from forgefield.export.target import METADATA
from forgefield.export.targets.aotinductor import AOTInductorSettings, AOTInductorTarget, require_refusal

KINDS = ["ethanol", "water", "silicon", "triclinic", "slab", "lone"]
TINY = {"hidden_irreps": "2x0e", "max_ell": 1, "correlation": 1, "radial_mlp": [4], "num_interactions": 1}


def deviation(found, expected):
    """Largest difference of two lists of predictions."""
    assert len(found) == len(expected)
    pairs = [(a, b) for f, e in zip(found, expected, strict=True) for a, b in zip(f, e, strict=True)]
    assert all(np.shape(a) == np.shape(b) for a, b in pairs)
    return max(np.abs(np.asarray(a) - b).max() for a, b in pairs)


@pytest.fixture(scope="module")
def exportable(two_heads):
    return ExportablePotential(two_heads)


def asked(potential):
    return Asked.by(potential.heads, potential.needs)


def batch(make_atoms, as_structure, kinds=KINDS, heads=("scan", "pbe")):
    return [as_structure(make_atoms(kind, seed=k), heads[k % len(heads)]) for k, kind in enumerate(kinds)]


def test_what_is_recorded_equals_the_model(exportable, two_heads, make_atoms, as_structure):
    """The part that builds the graph, run as it is; no compilation."""
    structures = batch(make_atoms, as_structure)
    for chosen in ([s] for s in structures), [structures], [structures[4:]]:
        for some in chosen:
            with torch.no_grad():
                found = exportable(*pack(some, asked(two_heads)))
            expected = predict(two_heads, some)
            assert np.abs(found[0].numpy() - [e.energy for e in expected]).max() < 1e-10
            assert np.abs(found[1].numpy() - np.concatenate([e.forces for e in expected])).max() < 1e-10
            assert np.abs(found[2].numpy() - [e.stress for e in expected]).max() < 1e-10
            assert np.abs(found[3].numpy() - np.concatenate([e.atom_energies for e in expected])).max() < 1e-10


def broken(name, tensors):
    """The inputs with one thing wrong."""
    t = dict(zip(INPUTS, (x.clone() for x in tensors), strict=True))
    if name == "unknown element":
        t["numbers"][2] = 79
    elif name == "atomic number 0":
        t["numbers"][2] = 0
    elif name in ("half list", "one edge missing", "odd number of edges"):
        keep = t["edge_index"][0] < t["edge_index"][1]
        if name != "half list":
            keep[:] = True
            keep[[0] if name == "odd number of edges" else [0, 1]] = False
        t["edge_index"], t["shifts"] = t["edge_index"][:, keep], t["shifts"][keep]
    elif name == "wrong sign of shifts":
        t["shifts"] = -t["shifts"]
    elif name == "receiver first":
        t["edge_index"] = t["edge_index"].flip(0)
    elif name == "self edge":
        t["edge_index"][:, 0] = 0
        t["shifts"][0] = 0.0
    elif name == "too few slots":
        t["slots"] = t["slots"][:-1]
    elif name == "no such head":
        t["head"][0] = 2
    elif name == "edge between structures":
        t["structure"][0] = 1
    return tuple(t.values())


WRONG = [
    "unknown element", "atomic number 0", "half list", "one edge missing", "odd number of edges",
    "wrong sign of shifts", "receiver first", "self edge", "too few slots", "no such head", "edge between structures",
]  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_gives_nan_everywhere(name, exportable, two_heads, make_atoms, as_structure):
    right = pack(batch(make_atoms, as_structure, ["silicon", "ethanol"]), asked(two_heads))
    with torch.no_grad():
        assert all(bool(torch.isfinite(t).all()) for t in exportable(*right))
        assert all(bool(torch.isnan(t).all()) for t in exportable(*broken(name, right)))


def test_longer_lists_are_noticed_and_spare_slots_do_no_harm(exportable, two_heads, make_atoms, as_structure):
    structures = batch(make_atoms, as_structure, ["silicon"])
    right = pack(structures, asked(two_heads))
    with torch.no_grad():
        assert torch.isnan(
            exportable(*pack(structures, asked(two_heads)._replace(cutoff=two_heads.cutoff + 1.0)))[0]
        ).all()
        spare = exportable(*right[:-1], torch.arange(len(right[-1]) + 7))
        for a, b in zip(spare, exportable(*right), strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-10)


def test_without_a_compiler(potential, sample, tmp_path):
    import torch._inductor.config as inductor

    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(ForgeError, match=r"C\+\+ compiler is needed"),
    ):
        export_artifacts(potential, tmp_path / "a", targets=["aotinductor"], provenance={}, sample=sample)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device(potential, sample, tmp_path):
    with pytest.raises(DeviceError, match="no CUDA device"):
        export_artifacts(potential, tmp_path / "a", targets=["aotinductor_cuda"], provenance={}, sample=sample)
    assert AOTInductorTarget(AOTInductorSettings(device="cuda")).filename != AOTInductorTarget().filename


class Crossed(AOTInductorTarget):
    """A target that is right on single structures and wrong on batches; nothing is compiled."""

    def write(self, potential, path, sample):
        self.potential = potential
        path.write_bytes(b"x")

    def read(self, path):
        return lambda s: predict(self.potential, [s])[0]

    def read_batched(self, path):
        return lambda many: [p._replace(energy=p.energy + 1e-7) for p in predict(self.potential, many)]


def test_wrong_batches_are_refused(potential, sample, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_build_target", lambda name: Crossed())
    with pytest.raises(ModelError, match="in one batch"):
        export_artifacts(potential, tmp_path / "a", targets=["aotinductor"], provenance={}, sample=sample)
    assert not list(tmp_path.iterdir())


FRESH = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["forgefield"] = None  # importing it now fails
import json, numpy as np, torch
from torch._inductor import aoti_load_package
data = np.load(sys.argv[2])
model = aoti_load_package(sys.argv[1])
about = json.loads(model.get_metadata()["forgefield.json"])
for k in range(int(data["count"])):
    inputs = (torch.from_numpy(data[f"{n}{k}"]) for n in sys.argv[3].split())
    out = model(*(t.clone(memory_format=torch.contiguous_format) for t in inputs))
    for name, value in zip("energy forces stress atom_energies".split(), out):
        assert abs(value.double().numpy() - data[f"{name}{k}"]).max() < float(sys.argv[4]), (k, name)
assert not any(n.startswith("forgefield.") for n in sys.modules)
print("agrees on", k + 1, about["dtype"])
"""


def check_alone(path, potential, batches, tmp_path, limit):
    """Run batches in a fresh process that cannot import this package."""
    arrays = {"count": len(batches)}
    for k, structures in enumerate(batches):
        inputs = pack(structures, asked(potential))
        arrays |= {f"{n}{k}": t.numpy() for n, t in zip(INPUTS, inputs, strict=True)}
        expected = predict(potential, structures)
        arrays |= {f"{n}{k}": np.stack([getattr(e, n) for e in expected]) for n in ("energy", "stress")}
        arrays |= {f"{n}{k}": np.concatenate([getattr(e, n) for e in expected]) for n in ("forces", "atom_energies")}
    np.savez(tmp_path / "data.npz", **arrays)
    command = [sys.executable, "-I", "-c", FRESH, str(path), str(tmp_path / "data.npz"), " ".join(INPUTS), str(limit)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    dtype = str(potential.dtype).removeprefix("torch.")
    assert done.stdout.strip() == f"agrees on {len(batches)} {dtype}"


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 5e-4)])
def test_package_alone_on_batches_of_every_kind(dtype, limit, make_potential, tmp_path, make_atoms, as_structure):
    potential = make_potential(dtype, heads=("pbe", "scan"), pair_repulsion=True, distance_transform="agnesi")
    structures = batch(make_atoms, as_structure)
    found = export_artifacts(potential, tmp_path / "a", targets=["aotinductor"], provenance={}, sample=structures[:1])
    assert set(found.certificates) == {"weights", "aotinductor", "aotinductor_batch"}
    assert found.certificates["aotinductor_batch"].target == "aotinductor"
    assert found.certificates["aotinductor_batch"].kernels == "plain PyTorch"
    batches = [[s] for s in structures] + [structures, structures[::-1][:2], [structures[5]] * 3]
    check_alone(found.path("aotinductor"), potential, batches, tmp_path, limit)
    read = AOTInductorTarget().read_batched(found.path("aotinductor"))
    assert deviation(read(structures), predict(potential, structures)) < limit


@pytest.mark.slow
def test_metadata_and_nan_in_the_package(make_potential, sample, tmp_path, make_atoms, as_structure):
    from torch._inductor import aoti_load_package

    potential = make_potential(**TINY)
    AOTInductorTarget().write(potential, tmp_path / "m.pt2", sample[0])
    model = aoti_load_package(str(tmp_path / "m.pt2"))
    about = json.loads(model.get_metadata()[METADATA])
    assert (about["elements"], about["cutoff"], about["dtype"]) == ([1, 6, 8, 14], 4.0, "float64")
    assert about["units"]["forces"] == "eV/Å"
    assert about["inputs"].replace(",", " ").split()[0] == INPUTS[0]
    right = pack(batch(make_atoms, as_structure, ["silicon", "ethanol"], [None]), asked(potential))
    assert all(bool(torch.isfinite(t).all()) for t in model(*right))
    lone = pack(batch(make_atoms, as_structure, ["lone"], [None]), asked(potential))
    assert all(bool(torch.isfinite(t).all()) for t in model(*lone))
    with pytest.raises(RuntimeError):
        model(right[0].float(), *right[1:])
    with pytest.raises(RuntimeError):
        model(*right[:5], right[5].t().contiguous().t(), *right[6:])
    for name in WRONG:
        inputs = tuple(t.contiguous() for t in broken(name, right))
        assert all(bool(torch.isnan(t).all()) for t in model(*inputs)), name


def test_a_file_that_takes_any_type_is_refused(tmp_path, monkeypatch):
    import torch._inductor as inductor

    inputs = (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2))
    monkeypatch.setattr(inductor, "aoti_load_package", lambda path: lambda *tensors: tensors)
    with pytest.raises(ForgeError, match="does not check the types"):
        require_refusal(tmp_path / "m.pt2", inputs)


@pytest.mark.slow
def test_any_neighbour_list_will_do(make_potential, sample, tmp_path, make_atoms, as_structure):
    """Edges from ASE, in its order, as the documentation shows."""
    from torch._inductor import aoti_load_package

    potential = make_potential(**TINY)
    AOTInductorTarget().write(potential, tmp_path / "m.pt2", sample[0])
    model = aoti_load_package(str(tmp_path / "m.pt2"))
    atoms = make_atoms("triclinic")
    i, j, shift = neighbor_list("ijS", atoms, 4.0)
    found = model(
        torch.from_numpy(atoms.positions), torch.from_numpy(atoms.numbers), torch.zeros(2, dtype=torch.int64),
        torch.from_numpy(atoms.cell.array)[None].contiguous(), torch.zeros(1, dtype=torch.int64),
        torch.from_numpy(np.stack([i, j]).astype(np.int64)), torch.from_numpy(shift @ atoms.cell.array),
        torch.arange(int(np.bincount(j).max())),
    )  # fmt: skip
    (expected,) = predict(potential, [as_structure(atoms)])
    assert abs(float(found[0][0]) - expected.energy) < 1e-10
    assert np.abs(found[1].numpy() - expected.forces).max() < 1e-10
