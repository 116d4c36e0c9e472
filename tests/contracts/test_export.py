"""What every export target must satisfy: its file says what the eager model says."""

import warnings

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from forgefield.core.settings import Settings
from forgefield.core.structure import Structure
from forgefield.export.artifact import TARGETS, export_artifacts
from forgefield.export.prediction import predict
from forgefield.export.target import Target
from forgefield.models.potential import ARCHITECTURES, build_potential
from forgefield.models.widening import alone

SMALL = {"mace": {"hidden_irreps": "4x0e + 4x1o", "max_ell": 2, "radial_mlp": [8, 8], "r_max": 4.0}}
VARIANTS = {
    "mace": [
        {},
        {"pair_repulsion": True, "distance_transform": "agnesi", "interaction_first": "plain"},
        {
            "interaction": "density_residual",
            "correlation": [3, 2],
            "radial_type": "chebyshev",
            "distance_transform": "agnesi",
        },
        {"hidden_irreps": "4x0e", "num_interactions": 3, "use_agnostic_product": True, "radial_type": "gaussian"},
        {"num_interactions": 1, "use_reduced_cg": True, "use_last_readout_only": True},
    ]
}
MARKS = {"aotinductor": pytest.mark.slow, "aotinductor_cuda": [pytest.mark.slow, pytest.mark.gpu]}  # they compile
NAMES = [pytest.param(name, marks=MARKS.get(name, [])) for name in TARGETS.names()]
CASES = [
    (name, k, dtype)
    for name in ARCHITECTURES.names()
    for k in range(len(VARIANTS.get(name, [{}])))
    for dtype in (torch.float64, torch.float32)
    if dtype == torch.float64 or k == 1
]


def make(backend, variant, dtype):
    settings = SMALL.get(backend, {}) | VARIANTS.get(backend, [{}])[variant]
    heads = ["pbe", "scan"] if variant else ["default"]
    return build_potential(
        backend,
        ARCHITECTURES.entry(backend).settings.model_validate(settings),
        elements=[1, 6, 8, 14],
        heads=heads,
        reference_energies={h: {1: -13.6, 6: -1029.0, 8: -2041.0, 14: -7000.0} for h in heads},
        avg_num_neighbors=8.0,
        scale=10.0,
        dtype=dtype,
        seed=variant,
    )


def structures(head):
    """Molecules of several compositions, bulk, a triclinic cell shorter than the cutoff, a lone atom."""
    random = np.random.default_rng(7)
    triclinic = bulk("Si") * (1, 1, 1)
    triclinic.symbols = ["Si", "C"]
    made = []
    for atoms in (molecule("CH3CH2OH"), molecule("H2O"), bulk("Si", cubic=True), triclinic, molecule("O")):
        positions = atoms.positions + random.normal(0, 0.07, atoms.positions.shape)
        parts = atoms.numbers, positions, atoms.cell.array, atoms.pbc
        made.append(Structure(*parts, head=head, charge=int(atoms.numbers.sum()) % 2, multiplicity=1))
    return made


@pytest.mark.parametrize("name", TARGETS.names())
def test_entry(name):
    entry = TARGETS.entry(name)
    assert issubclass(entry.settings, Settings)
    target = entry.build(entry.settings())
    assert isinstance(target, Target)
    assert target.filename
    assert target.format
    assert entry.summary


@pytest.mark.parametrize(("backend", "variant", "dtype"), CASES)
@pytest.mark.parametrize("name", NAMES)
def test_artifact_equals_eager(name, backend, variant, dtype, tmp_path):
    potential, entry = make(backend, variant, dtype), TARGETS.entry(name)
    target = entry.build(entry.settings())
    if name == "aimnet_jit":  # one level of theory
        potential = alone(potential, potential.heads[-1])
    traced_on = structures(potential.heads[0])[:1]
    found = export_artifacts(potential, tmp_path / "artifacts", targets=[name], provenance={}, sample=traced_on)
    candidate = target.read(found.path(name))
    limit = 1e-10 if dtype == torch.float64 else 2e-4
    for head in potential.heads:
        for structure in filter(target.takes, structures(head)):
            (expected,) = predict(potential, [structure])
            got = candidate(structure)
            others = [(got.extra[key], value) for key, value in expected.extra.items() if key in got.extra]
            for a, b in [*zip(got[:4], expected[:4], strict=True), *others]:
                assert np.shape(a) == np.shape(b)
                assert np.abs(np.asarray(a) - b).max() < limit * max(1.0, np.abs(b).max() / 1e4)


@pytest.mark.parametrize("name", NAMES)
def test_reading_and_writing_warn_of_nothing(name, tmp_path):
    potential = make(ARCHITECTURES.names()[0], 0, torch.float64)
    entry = TARGETS.entry(name)
    target = entry.build(entry.settings())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        target.write(potential, tmp_path / target.filename, structures(None)[0])
        target.read(tmp_path / target.filename)(structures(None)[1])
    assert not seen
