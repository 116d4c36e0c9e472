"""The TorchScript file: equal to the eager model, alone in a fresh process, loud about wrong input."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list

from forgefield.core.structure import Structure
from forgefield.export.artifact import export_artifacts
from forgefield.export.package_inputs import INPUTS, Asked, pack
from forgefield.export.prediction import predict
from forgefield.export.targets.torchscript import METADATA, TorchScriptTarget, bound_to_cpu, directed_edges, quiet
from forgefield.models.architectures.aimnet2.settings import Aimnet2Settings
from forgefield.models.potential import build_potential

CUTOFF = 4.0
KINDS = ["ethanol", "water", "silicon", "triclinic", "slab", "lone"]


@pytest.fixture(scope="module")
def module(artifact):
    return load(artifact.path("torchscript"))


def load(path, **more):
    with quiet():
        return torch.jit.load(str(path), **more)


def inputs(atoms, cutoff=CUTOFF):
    """The documented inputs, with the neighbour list of ASE (an independent search)."""
    i, j, shift = neighbor_list("ijS", atoms, cutoff)
    index = torch.from_numpy(np.stack([i, j]).astype(np.int64))
    return [
        torch.from_numpy(atoms.positions.copy()),
        torch.from_numpy(atoms.numbers.astype(np.int64)),
        torch.from_numpy(atoms.cell.array.copy()),
        index,
        torch.from_numpy(shift @ atoms.cell.array),
    ]


def deviation(found, expected):
    pairs = [(found[k].numpy(), getattr(expected, k)) for k in ("energy", "forces", "stress", "atom_energies")]
    assert all(np.shape(a) == np.shape(b) for a, b in pairs)
    return max(np.abs(a - b).max() for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_eager(kind, module, potential, make_atoms, as_structure):
    atoms = make_atoms(kind, seed=5)
    (expected,) = predict(potential, [as_structure(atoms)])
    found = module(*inputs(atoms))
    assert deviation(found, expected) < 1e-10
    assert found["energy"].dtype == torch.float64
    if kind != "lone":
        assert np.abs(expected.forces).max() > 1e-3


@pytest.mark.parametrize("kind", ["ethanol", "silicon"])
def test_a_float32_file_keeps_its_digits_far_from_the_origin(kind, make_potential, make_atoms, as_structure, tmp_path):
    potential, atoms = make_potential(torch.float32), make_atoms(kind)
    TorchScriptTarget().write(potential, tmp_path / "model.pt", as_structure(atoms))
    (expected,) = predict(potential, [as_structure(atoms)])
    atoms.positions += 1000.0
    found = load(tmp_path / "model.pt")(*inputs(atoms))["forces"].numpy()
    assert np.abs(found - expected.forces).max() <= 1e-6 * np.abs(expected.forces).max()


def test_an_artifact_of_a_molecule_in_a_box(make_potential, make_atoms, tmp_path):
    """Boxes of samples change nothing: eager model and file are compared on the molecule as such."""
    atoms, potential = make_atoms("ethanol"), make_potential(torch.float32)
    boxed = Structure(atoms.numbers, atoms.positions, np.eye(3) * 12.0, np.zeros(3, bool))
    made = export_artifacts(potential, tmp_path / "made", provenance={}, sample=[boxed])
    assert made.path("torchscript").is_file()


def test_a_molecule_in_a_box_keeps_its_dipole(make_atoms, tmp_path):
    """A box that nothing repeats in is no cell: the file is given zeros, and agrees with the model."""
    torch.manual_seed(0)
    settings = Aimnet2Settings(hidden=[[16], [16]], aim_size=8, energy_hidden=[8])
    elements, references = (1, 6, 8), {"default": dict.fromkeys((1, 6, 8), 0.0)}
    potential = build_potential(
        "aimnet2", settings, elements=elements, reference_energies=references, avg_num_neighbors=5.0
    )
    atoms = make_atoms("ethanol")
    boxed = Structure(atoms.numbers, atoms.positions, np.eye(3) * 50.0, np.zeros(3, bool), charge=0.0)
    TorchScriptTarget().write(potential, tmp_path / "model.pt", boxed)
    (expected,) = predict(potential, [boxed])
    found = TorchScriptTarget().read(tmp_path / "model.pt")(boxed)
    assert np.abs(expected.extra["dipole"]).max() > 1e-3
    assert np.abs(found.extra["dipole"] - expected.extra["dipole"]).max() < 1e-5
    (cell,) = pack([boxed], Asked.by(potential.heads, potential.needs))[INPUTS.index("cell")]
    assert not cell.any()


@pytest.mark.parametrize("kind", ["ethanol", "triclinic"])
def test_order_of_edges_and_longer_lists_do_not_matter(kind, module, potential, make_atoms, as_structure):
    atoms = make_atoms(kind)
    (expected,) = predict(potential, [as_structure(atoms)])
    x, z, cell, index, shift = inputs(atoms, cutoff=CUTOFF + 1.5)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(shift)))
    noise = 1e-14 * torch.randn(shift.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = module(x, z, cell, index[:, order], shift[order] + noise)
    assert deviation(found, expected) < 1e-10


def test_heads(two_heads, tmp_path, make_atoms, as_structure):
    path = tmp_path / "model.pt"
    target = TorchScriptTarget()
    structure = as_structure(make_atoms("ethanol"), head="scan")
    target.write(two_heads, path, structure)
    module = load(path)
    assert module.heads == ["pbe", "scan"]
    atoms = make_atoms("ethanol")
    energies = {}
    for k, head in enumerate(module.heads):
        (expected,) = predict(two_heads, [as_structure(atoms, head)])
        assert deviation(module(*inputs(atoms), k), expected) < 1e-10
        energies[head] = expected.energy
    assert abs(energies["pbe"] - energies["scan"]) > 1e-3
    assert target.read(path)(structure).energy == pytest.approx(energies["scan"], abs=1e-9)
    with pytest.raises(torch.jit.Error, match="head 2 does not exist"):
        module(*inputs(atoms), 2)


def test_float32(tmp_path, sample, make_atoms, as_structure, make_potential):
    potential = make_potential(torch.float32)
    TorchScriptTarget().write(potential, tmp_path / "m.pt", sample[0])
    module = load(tmp_path / "m.pt")
    found = module(*inputs(make_atoms("silicon")))
    (expected,) = predict(potential, [as_structure(make_atoms("silicon"))])
    assert found["forces"].dtype == torch.float32
    assert np.abs(found["forces"].numpy() - expected.forces).max() < 1e-5
    assert abs(float(found["energy"]) - expected.energy) < 1e-4


def test_gradients_reach_the_positions(module, make_atoms):
    """The energy can be differentiated, for example for a Hessian; parameters ask for no gradient."""
    x, *rest = inputs(make_atoms("water"))
    x.requires_grad_()
    found = module(x, *rest)
    found["energy"].backward()
    assert torch.allclose(-x.grad, found["forces"].detach(), atol=1e-10)
    assert not any(p.requires_grad for p in module.parameters())


def test_metadata(artifact):
    extra = {METADATA: ""}
    module = load(artifact.path("torchscript"), _extra_files=extra)
    found = json.loads(extra[METADATA])
    assert found["elements"] == module.elements == [1, 6, 8, 14]
    assert found["heads"] == module.heads == ["default"]
    assert found["cutoff"] == module.cutoff == CUTOFF
    assert found["dtype"] == "float64"
    assert found["units"]["forces"] == "eV/Å"
    assert found["device"] == "any"


def test_writing_leaves_the_potential_alone(potential, sample, tmp_path):
    before = {k: v.clone() for k, v in potential.state_dict().items()}
    TorchScriptTarget().write(potential, tmp_path / "m.pt", sample[0])
    assert all(p.requires_grad for p in potential.parameters())
    assert all(torch.equal(v, before[k]) for k, v in potential.state_dict().items())


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_moves_to_the_gpu(kind, artifact, potential, make_atoms, as_structure):
    atoms = make_atoms(kind)
    module = load(artifact.path("torchscript"), map_location="cuda")
    found = {k: v.cpu() for k, v in module(*inputs(atoms)).items()}
    assert deviation(found, predict(potential, [as_structure(atoms)])[0]) < 1e-9


def test_tensors_made_on_the_cpu_by_name_are_noticed():
    class Bound(torch.nn.Module):
        def forward(self, x):
            return x + torch.zeros(x.shape, dtype=x.dtype, device=x.device)

    class Free(torch.nn.Module):
        def forward(self, x):
            return (x + x.new_zeros(x.shape)).cpu()

    with quiet():
        traces = [torch.jit.trace(m, torch.ones(3), check_trace=False) for m in (Bound(), Free())]
    assert [bound_to_cpu(t) for t in traces] == [True, False]


FRESH = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["forgefield"] = None  # importing it now fails
import numpy as np, torch
data = np.load(sys.argv[2])
model = torch.jit.load(sys.argv[1])
names = "positions numbers cell edge_index shifts".split()
for k in range(int(data["count"])):
    out = model(*(torch.from_numpy(data[f"{n}{k}"]) for n in names))
    for name, value in out.items():
        assert abs(value.numpy() - data[f"{name}{k}"]).max() < 1e-10, (k, name)
assert not any(n.startswith("forgefield.") for n in sys.modules)
print("agrees on", k + 1)
"""


def test_runs_without_our_package(artifact, potential, tmp_path, make_atoms, as_structure):
    names = ["positions", "numbers", "cell", "edge_index", "shifts"]
    arrays = {"count": len(KINDS)}
    for k, kind in enumerate(KINDS):
        atoms = make_atoms(kind, seed=3)
        (expected,) = predict(potential, [as_structure(atoms)])
        arrays |= {f"{n}{k}": t.numpy() for n, t in zip(names, inputs(atoms), strict=True)}
        arrays |= {f"{n}{k}": v for n, v in expected._asdict().items()}
    np.savez(tmp_path / "data.npz", **arrays)
    command = [sys.executable, "-I", "-c", FRESH, str(artifact.path("torchscript")), str(tmp_path / "data.npz")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"agrees on {len(KINDS)}"


def broken(name, make_atoms):
    """Inputs of silicon with one thing wrong."""
    atoms = make_atoms("silicon")
    x, z, cell, index, shift = inputs(atoms)
    if name == "unknown element":
        z[2] = 79
    elif name == "atomic number 0":
        z[2] = 0
    elif name == "half list":
        keep = index[0] < index[1]
        index, shift = index[:, keep], shift[keep]
    elif name == "one edge missing":
        index, shift = index[:, 1:], shift[1:]
    elif name == "wrong sign of shifts":
        shift = -shift
    elif name == "receiver first":
        index = index.flip(0)
    elif name == "self edge":
        index = torch.cat([index, torch.tensor([[0], [0]])], 1)
        shift = torch.cat([shift, torch.zeros(1, 3, dtype=shift.dtype)])
    elif name == "index too high":
        index[0, 0] = 8
    elif name == "numbers too short":
        z = z[:-1]
    elif name == "shifts too short":
        shift = shift[:-1]
    return x, z, cell, index, shift


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unknown element", "unknown element: atomic number 79; the model knows"),
        ("atomic number 0", "unknown element: atomic number 0"),
        ("half list", "both directions"),
        ("one edge missing", "both directions"),
        ("wrong sign of shifts", "longer than twice the cutoff"),
        ("receiver first", "longer than twice the cutoff"),
        ("self edge", "zero length"),
        ("index too high", "points outside the 8 atoms"),
        ("numbers too short", "numbers must be"),
        ("shifts too short", "shifts must be"),
    ],
)
def test_wrong_input_is_refused(name, message, module, make_atoms):
    with pytest.raises(torch.jit.Error, match=message):
        module(*broken(name, make_atoms))


def test_our_edges_equal_those_of_ase(make_atoms, as_structure):
    for kind in KINDS:
        atoms = make_atoms(kind)
        index, shift = directed_edges(as_structure(atoms), CUTOFF)
        _, _, _, index_ase, shift_ase = inputs(atoms)
        ours = np.concatenate([index.T, shift], 1)
        theirs = np.concatenate([index_ase.numpy().T, shift_ase.numpy()], 1)
        order = [np.lexsort(np.round(a, 6).T) for a in (ours, theirs)]
        assert np.allclose(ours[order[0]], theirs[order[1]], atol=1e-9)
