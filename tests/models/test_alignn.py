"""ALIGNN: its keys, smooth and published forms, neighbours, targets, calculators."""

import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from forgefield.core.errors import ModelError
from forgefield.core.quantities import QUANTITIES, Quantity
from forgefield.core.structure import Structure
from forgefield.export.artifact import export_artifacts
from forgefield.export.calculator import ForgeField
from forgefield.export.exportable import ExportablePotential
from forgefield.export.physics import check_physics
from forgefield.export.target import directed_edges
from forgefield.export.verlet import MovingGraph
from forgefield.graph.build import build_graph
from forgefield.kernels.choice import kernels
from forgefield.models.architectures.alignn.elements import element_features, scaled_features
from forgefield.models.architectures.alignn.foreign import INSTEAD
from forgefield.models.architectures.alignn.settings import AlignnSettings
from forgefield.models.potential import Outputs, Potential, build_potential
from forgefield.models.targets import Aims

SMALL = {"cutoff": 4.0, "hidden_features": 6, "embedding_features": 5, "edge_input_features": 9}
SMALL |= {"triplet_input_features": 6, "alignn_layers": 1, "gcn_layers": 1}
OLD = {"compat": "alignn", "use_cutoff_function": False}
GAP = Quantity("gap", "eV", "structure", (), "")


def make(aims=None, **settings):
    return build_potential(
        "alignn",
        AlignnSettings.model_validate({**SMALL, **settings}),
        elements=[1, 6, 8],
        reference_energies={"default": dict.fromkeys([1, 6, 8], 0.0)},
        avg_num_neighbors=5.0,
        aims=aims,
        dtype=torch.float64,
        seed=2,
    )


def molecule(n=6, seed=0, **more):
    rng = np.random.default_rng(seed)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)])[:n] * 1.3
    return Structure(rng.choice([1, 6, 8], n), grid + rng.normal(0, 0.12, (n, 3)), **more)


def crystal():
    cell = np.array([[2.9, 0.0, 0.0], [0.7, 3.1, 0.0], [-0.4, 0.5, 3.3]])
    return Structure(np.array([6, 8]), np.array([[0.1, 0.0, 0.2], [1.6, 1.4, 1.8]]), cell, np.ones(3, bool))


def predict(potential, *structures):
    with torch.no_grad():
        return potential(build_graph(structures, potential.needs, dtype=potential.dtype))


CHANGES = [
    {"cutoff": 3.5},
    {"neighbor_strategy": "radius_graph_jarvis"},
    {"neighbor_strategy": "k-nearest"},
    {"neighbor_strategy": "k-nearest", "max_neighbors": 3},
    {"neighbor_strategy": "k-nearest", "max_neighbors": 3, "use_canonize": False},
    {"neighbor_strategy": "k-nearest", "max_neighbors": 3, "compat": "alignn"},
    {"three_body_cutoff": 2.5},
    {"backtracking": False},
    {"lighten_edges": True, "inner_cutoff": 3.0},
    {"inner_cutoff": 3.0},
    {"atom_features": "atomic_number"},
    {"atom_features": "basic"},
    {"atom_features": "cfid"},
    {"alignn_layers": 2},
    {"alignn_layers": 0, "gcn_layers": 2},
    {"gcn_layers": 2},
    {"gcn_layers": 0},
    {"edge_input_features": 12},
    {"triplet_input_features": 9},
    {"embedding_features": 7},
    {"hidden_features": 7},
    {"use_cutoff_function": False},
    {"multiply_cutoff": False},
    {"exponent": 3},
    {"use_penalty": False},
    {"penalty_factor": 0.4},
    {"penalty_threshold": 1.4},
    {"energy_mult_natoms": False},
    {"link": "log"},
    {"link": "logit"},
    {"compat": "alignn"},
    OLD,
    {**OLD, "cutoff": 2.6, "cutoff_extra": 1.0},
]


LENGTHS = {
    "atom_input_features": 92,
    "output_features": 1,
    "atomwise_output_features": 0,
    "additional_output_features": 0,
    "extra_features": 0,
}
"""Keys that follow from the data and are only compared with them: test_lengths_that_do_not_fit_are_refused."""


def test_every_key_but_the_lengths_has_an_effect():
    """Energies of a molecule, squeezed so that the penalty acts, a crystal and an atom far off, are all different."""
    close, crowd = molecule(), crystal()
    far = np.vstack([close.positions * 0.75, [[9.0, 0, 0]]])
    structures = [Structure(np.append(close.numbers, 6), far), crowd]
    found = []
    for change in [{}, *CHANGES]:
        potential = make(**change)
        with torch.enable_grad():
            graph = build_graph(structures, potential.needs, dtype=torch.float64)
            species, counts = potential.count_elements(graph)
            energies = potential.architecture.predictions(graph, graph.pair_vectors(), species, counts).energies
        found.append(energies.detach().numpy()[graph.inverse.numpy()])
    for k, one in enumerate(found):
        for other, change in zip(found[k + 1 :], CHANGES[k:], strict=True):
            assert np.abs(one - other).max() > 1e-9, (([{}, *CHANGES])[k], change)
    assert {key for change in CHANGES for key in change} | set(LENGTHS) == set(AlignnSettings.model_fields)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"three_body_cutoff": 5.0}, "three_body_cutoff must not be larger"),
        ({"inner_cutoff": 4.5}, "inner_cutoff must not be larger"),
        ({"use_cutoff_function": False, "multiply_cutoff": False}, "multiply_cutoff has an effect only"),
        ({"cutoff_extra": 1.0}, "cutoff_extra"),
        ({"max_neighbors": 8}, "max_neighbors has an effect only"),
        ({"use_canonize": False}, "use_canonize has an effect only"),
        ({"alignn_layers": 0, "backtracking": False}, "only with alignn_layers"),
        *(({key: 1}, key) for key in INSTEAD),
    ],
)
def test_keys_without_effect_and_keys_of_elsewhere_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        AlignnSettings.model_validate({**SMALL, **settings})


@pytest.mark.parametrize("key", LENGTHS)
def test_lengths_that_do_not_fit_are_refused(key):
    with pytest.raises(ModelError, match="but there are"):
        make(**{key: 3})
    make(**LENGTHS)


def test_only_smooth_forms_say_so():
    assert make().needs.smooth
    assert make(neighbor_strategy="radius_graph_jarvis").needs.smooth
    for settings in ({"neighbor_strategy": "k-nearest"}, {"use_cutoff_function": False}, {"compat": "alignn"}):
        assert not make(**settings).needs.smooth


def test_the_published_form_jumps_and_ours_does_not():
    jumps = {}
    for name, settings in (("ours", {}), ("published", OLD)):
        potential = make(use_penalty=False, **settings)
        found = []
        for gap in (-1e-9, 1e-9):
            x = np.array([[0.0, 0, 0], [1.1, 0, 0], [np.sqrt(16 - 0.04) + gap, 0.2, 0]])
            found.append(predict(potential, Structure(np.array([8, 1, 1]), x)).energy[0])
        jumps[name] = float((found[1] - found[0]).abs())
    assert jumps["ours"] < 1e-9
    assert jumps["published"] > 1e-4


@pytest.mark.parametrize("settings", [{}, {"lighten_edges": True}, OLD, {"gcn_layers": 0, "alignn_layers": 2}])
def test_kernels_and_plain_pytorch_agree(settings):
    potential = make(**settings)
    with kernels("auto"):
        a = predict(potential, molecule(), crystal())
    with kernels("plain"):
        b = predict(make(**settings), molecule(), crystal())
    assert torch.allclose(a.energy, b.energy, rtol=0, atol=1e-11)
    assert torch.allclose(a.forces, b.forces, rtol=0, atol=1e-11)
    assert torch.allclose(a.stress, b.stress, rtol=0, atol=1e-11)


@pytest.mark.parametrize("settings", [{}, {"neighbor_strategy": "k-nearest", "max_neighbors": 3}])
def test_kept_graphs_of_moving_atoms(settings):
    """Along a walk in which bonds and angles come and go."""
    potential = make(three_body_cutoff=2.5, **settings)
    moving, random, s = MovingGraph(potential.needs, 0.5), np.random.default_rng(3), molecule(12)
    for _ in range(12):
        with torch.no_grad():
            kept = potential(moving.graph(s, potential))
        fresh = predict(potential, s)
        assert torch.allclose(kept.energy, fresh.energy, rtol=0, atol=1e-10)
        assert torch.allclose(kept.forces, fresh.forces, rtol=0, atol=1e-10)
        s = Structure(s.numbers, s.positions + random.normal(0, 0.06, s.positions.shape))
    assert (moving.searches == 12) == bool(settings)


def test_what_is_known_of_elements():
    assert element_features("cgcnn", (1, 26)).shape == (2, 92)
    assert element_features("cfid", (1, 26)).shape == (2, 438)
    assert element_features("basic", (6, 53))[:, :3].tolist() == [[6, 14, 2], [53, 17, 5]]
    assert element_features("basic", (54,))[0, 2] == -9999  # the table does not know xenon's row
    assert scaled_features("basic", (54,))[0, 2] == 0
    assert element_features("atomic_number", (8,)).tolist() == [[8.0]]
    assert np.abs(scaled_features("cfid", tuple(range(1, 101)))).max() < 10.1
    with pytest.raises(ModelError, match="no cgcnn features of Lr"):
        element_features("cgcnn", (6, 103))


def test_targets_classes_and_features():
    targets = (GAP, Quantity("dos", "", "structure", (4,), ""), Quantity("moment", "", "atom", (), ""))
    metal = Quantity("metal", "", "structure", (), "", kind="class")
    aims = Aims((*targets, metal), energy=False, features=(("conditions", 2),))
    potential = make(aims)
    given = [
        dataclasses.replace(s, features={"conditions": np.array([0.3, k])})
        for k, s in enumerate([molecule(), crystal()])
    ]
    together = predict(potential, *given)
    shapes = {name: tuple(value.shape) for name, value in together.extra.items()}
    assert shapes == {"gap": (2,), "dos": (2, 4), "moment": (8,), "metal": (2,)}
    assert bool(((together.extra["metal"] > 0) & (together.extra["metal"] < 1)).all())
    alone = predict(potential, given[1])
    for name in ("gap", "dos", "metal"):
        assert torch.allclose(alone.extra[name][0], together.extra[name][1], rtol=0, atol=1e-12)
    hotter = dataclasses.replace(given[1], features={"conditions": np.array([0.9, 1.0])})
    assert float((predict(potential, hotter).extra["gap"] - alone.extra["gap"]).abs()) > 1e-6
    assert torch.equal(predict(potential, hotter).extra["moment"], alone.extra["moment"])
    with pytest.raises(ModelError, match="turns with the structure"):
        make(Aims((QUANTITIES["dipole"],)))


def test_energies_may_depend_on_features():
    """The energy then follows from the mean over the atoms, and forces stay its gradient."""
    potential = make(Aims(features=(("t", 1),)))
    s = dataclasses.replace(molecule(), features={"t": np.array([0.4])})
    other = dataclasses.replace(s, features={"t": np.array([0.7])})
    assert float((predict(potential, s).energy - predict(potential, other).energy).abs()) > 1e-4
    forces, step, found = predict(potential, s).forces, 1e-5, []
    for sign in (1, -1):
        moved = s.positions.copy()
        moved[2, 1] += sign * step
        found.append(float(predict(potential, dataclasses.replace(s, positions=moved)).energy[0]))
    assert abs(float(forces[2, 1]) + (found[0] - found[1]) / (2 * step)) < 1e-7


def test_files_for_other_programs_need_plain_cutoffs(tmp_path):
    potential = make(neighbor_strategy="k-nearest", max_neighbors=3)
    with pytest.raises(ModelError, match="given all neighbours within the cutoff"):
        export_artifacts(potential, tmp_path / "a", targets=["torchscript"], provenance={}, sample=[molecule()])
    export_artifacts(potential, tmp_path / "b", targets=[], provenance={}, sample=[molecule()])
    with pytest.warns(UserWarning, match="energies jump"):
        assert ForgeField.load(tmp_path / "b") is not None


@pytest.mark.parametrize("settings", [{}, {"three_body_cutoff": 2.6, "backtracking": False}])
def test_angles_found_from_directed_edges_are_the_same(settings):
    """What packages of AOTInductor are made of: a padded table of angles."""
    potential = make(**settings)
    for s in (molecule(9), crystal()):
        index, shifts = (torch.tensor(a) for a in directed_edges(s, potential.cutoff))
        slots = torch.zeros(int(torch.bincount(index[1]).max()) + 2, dtype=torch.long)
        nothing = torch.zeros(len(s), dtype=torch.long)
        atoms = torch.tensor(s.positions), torch.tensor(s.numbers), nothing, torch.tensor(s.cell[None]), nothing[:1]
        with torch.no_grad():
            energy, forces, stress, _ = ExportablePotential(potential)(*atoms, index, shifts, slots)
        wanted = predict(potential, s)
        assert torch.allclose(energy, wanted.energy, rtol=0, atol=1e-11)
        assert torch.allclose(forces, wanted.forces, rtol=0, atol=1e-11)
        assert torch.allclose(stress, wanted.stress, rtol=0, atol=1e-11)


class Off(Potential):
    """A potential with a stress that is not the slope of its energy."""

    def forward(self, graph):
        e, f, s, a = super().forward(graph)[:4]
        return Outputs(e, f, 1.01 * s + 0.001, a)


def test_neighbours_that_are_equally_far_do_not_stop_an_export():
    """Six are nearest, two of them oxygen; drawn along z four are, and the energy jumps. Slopes are those beside it."""
    potential = make(neighbor_strategy="k-nearest", max_neighbors=2, **OLD)
    cubic = Structure(np.array([6, 8]), np.diag([0, 0, 1.5])[[0, 2]], np.diag([1.5, 1.5, 3.0]), np.ones(3, bool))
    drawn = np.diag([1.0, 1.0, 1.0001])
    stretched = dataclasses.replace(cubic, positions=cubic.positions @ drawn, cell=cubic.cell @ drawn)
    near, far = (float(predict(potential, s).energy) for s in (cubic, stretched))
    assert abs(near - far) > 1e-3
    report = check_physics(potential, [cubic])
    assert report.stress_finite_difference is not None
    assert report.stress_finite_difference < 1e-7
    potential.__class__ = Off
    with pytest.raises(ModelError, match="stress finite difference"):
        check_physics(potential, [cubic])
