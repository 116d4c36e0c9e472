"""The doctor finds planted faults in good structures, and is quiet on the good structures."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.doctor import twins
from forgefield.data.doctor.checks import consistency
from forgefield.data.doctor.examine import examine
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.rules import RULES
from forgefield.data.doctor.sameness import difference
from forgefield.data.reader import ListFrames
from forgefield.data.settings import DataSettings

ROOT = Path(__file__).parent.parent.parent.parent
_spec = importlib.util.spec_from_file_location("doctor_plant", Path(__file__).parent / "plant.py")
plant = importlib.util.module_from_spec(_spec)
sys.modules["doctor_plant"] = plant
_spec.loader.exec_module(plant)


def springs(count: int, random: np.random.Generator) -> list[Structure]:
    """Water-like molecules whose energies and forces belong together, each turned at random."""
    rest, strong = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]), (48.0, 48.0, 12.0)
    pairs = ((0, 1), (0, 2), (1, 2))
    made = []
    for index in range(count):
        positions = rest + random.normal(0, 0.05, (3, 3))
        energy, forces = -76.4 * 27.2114, np.zeros((3, 3))
        for (i, j), k in zip(pairs, strong, strict=True):
            vector = positions[j] - positions[i]
            length = np.linalg.norm(vector)
            stretch = length - np.linalg.norm(rest[j] - rest[i])
            energy += 0.5 * k * stretch**2
            forces[j] -= k * stretch * vector / length
            forces[i] += k * stretch * vector / length
        labels = {"energy": np.float64(energy), "forces": forces}
        made.append(plant.disguised(Structure([8, 1, 1], positions, labels=labels, origin=f"w: frame {index}"), random))
    return [dataclasses.replace(s, origin=f"w.xyz: frame {k}") for k, s in enumerate(made)]


def found_in(frames: list[Structure], **more: list[Structure]) -> list[Finding]:
    return examine({"train": plant.as_dataset(frames), **{k: plant.as_dataset(v) for k, v in more.items()}})


def names(findings: list[Finding]) -> set[str]:
    return {f.name for f in findings if f.level != "info"}


@pytest.fixture(scope="module")
def water() -> list[Structure]:
    return springs(150, np.random.default_rng(5))


def test_good_data_are_left_in_peace(water: list[Structure]) -> None:
    assert names(found_in(water)) == set()


def test_one_lone_structure_is_enough() -> None:
    frames = [Structure([14], np.zeros((1, 3)), labels={"energy": np.float64(-3.0)})]
    assert names(found_in(frames)) == set()


WHOLE = ["energy_unit", "energy_per_atom", "forces_sign", "forces_unit", "length_unit", "rounded_energies"]
FEW = ["net_force", "overlapping_atoms", "lone_atoms", "zero_forces", "placeholder_values", "outlier_energies"]
PAIRS = ["duplicates", "near_duplicates", "leaked_duplicates", "leaked_near_duplicates", "contradicting_labels"]


@pytest.mark.parametrize("name", [*WHOLE, *FEW, *PAIRS, "outlier_forces", "constant_labels", "mixed_theory"])
def test_planted_faults_are_found(water: list[Structure], name: str) -> None:
    for seed in range(2):
        for _, way, what in plant.FAULTS[name]:
            assert plant.is_found(name, *way(water, np.random.default_rng(seed))), f"{what}, seed {seed}"


@pytest.mark.parametrize(
    ("unit", "told"),
    [
        ("kcal/mol/Ang", "kcal/mol/Ang"),
        ("Ha/bohr", "Ha/bohr or Ha/Ang"),
        ("meV/Ang", "meV/Ang or kJ/mol/nm"),
        ("kJ/mol/Ang", "kJ/mol/Ang"),
    ],
)
def test_units_of_forces_that_fit_are_named_in_text_and_mend(water: list[Structure], unit: str, told: str) -> None:
    frames = [plant.scaled(s, forces=1.0 / consistency.FORCE_UNITS[unit]) for s in water]
    (finding,) = (f for f in found_in(frames) if f.name == "forces_unit")
    names = finding.mend.removeprefix("data.forces_unit: ")
    assert set(names.split(" or ")) == set(told.split(" or "))
    assert finding.text.endswith(f": forces in {names}?")


@pytest.mark.parametrize("factor", [3.5e-4, 300.0, 3e4])
def test_forces_in_no_known_unit_are_not_given_one(water: list[Structure], factor: float) -> None:
    (finding,) = (f for f in found_in([plant.scaled(s, forces=factor) for s in water]) if f.name == "forces_unit")
    assert "fits no unit that is known here" in finding.text
    assert not [unit for unit in consistency.FORCE_UNITS if unit in finding.text + finding.mend]


def test_units_that_are_named_can_be_given() -> None:
    for unit in consistency.FORCE_UNITS:
        assert DataSettings.model_validate({"forces_unit": unit}).forces_unit
    for unit in consistency.ENERGY_UNITS:
        assert DataSettings.model_validate({"energy_unit": unit}).energy_unit


def test_findings_name_the_structures_with_their_origin(water: list[Structure]) -> None:
    frames = [plant.pushed(s, np.random.default_rng(1)) if k == 17 else s for k, s in enumerate(water)]
    (finding,) = (f for f in found_in(frames) if f.name == "net_force")
    assert [(p.part, p.index, p.origin) for p in finding.places] == [("train", 17, "w.xyz: frame 17")]
    assert finding.mend


@pytest.mark.parametrize(
    ("charge", "multiplicity", "wrong"), [(0, 1, False), (0, 2, True), (1, 2, False), (1, 1, True)]
)
def test_charge_and_multiplicity_fit_the_electrons(
    water: list[Structure], charge: int, multiplicity: int, wrong: bool
) -> None:
    frames = [dataclasses.replace(water[0], charge=charge, multiplicity=multiplicity), *water[1:30]]
    assert ("impossible_spin" in names(found_in(frames))) == wrong


def test_a_crystal_is_the_same_in_another_cell_and_a_multiple_of_it() -> None:
    random = np.random.default_rng(3)
    cell = np.array([[3.0, 0.2, 0], [0, 3.3, 0.1], [0.3, 0, 3.7]])
    labels = {"forces": np.zeros((4, 3)), "energy": np.float64(-20.0)}
    steps = np.array([[0.1, 0.1, 0.1], [0.6, 0.5, 0.1], [0.2, 0.6, 0.6], [0.6, 0.1, 0.55]])
    crystal = Structure([22, 8, 8, 22], steps @ cell, cell, [True] * 3, labels)
    assert difference(crystal, plant.disguised(crystal, random)) < 1e-9
    double = Structure(
        np.tile(crystal.numbers, 2),
        np.concatenate([crystal.positions, crystal.positions + cell[1]]),
        np.diag([1, 2, 1]) @ cell,
        [True] * 3,
    )
    assert difference(crystal, double) < 1e-9
    moved = dataclasses.replace(crystal, positions=crystal.positions + random.normal(0, 0.05, (4, 3)))
    assert difference(crystal, moved) > 0.01


def test_stress_faults_of_strained_crystals() -> None:
    frames = plant.springy_crystals(120, np.random.default_rng(2))
    assert names(found_in(frames)) == set()
    for name in ("stress_sign", "stress_unit", "stress_is_virial", "stress_order"):
        for _, way, what in plant.FAULTS[name]:
            assert plant.is_found(name, *way(frames, np.random.default_rng(0))), f"{name}: {what}"


def test_unreadable_structures_are_told(water: list[Structure]) -> None:
    class Broken(ListFrames):
        def __getitem__(self, index: int) -> Structure:
            return (
                dataclasses.replace(super().__getitem__(index), weight=-1.0)
                if index == 3
                else super().__getitem__(index)
            )

    (finding,) = (f for f in examine({"train": Dataset([Broken(water[:30])])}) if f.name == "unreadable")
    assert [p.index for p in finding.places] == [3]


def test_unknown_names_are_not_accepted() -> None:
    with pytest.raises(ValueError, match="leaked_duplicates"):
        DataSettings(accept=("leaked_duplicate",))
    assert DataSettings(accept=("leaked_duplicates",)).accept == ("leaked_duplicates",)


def test_every_finding_is_explained() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text()
    assert not [name for name in RULES if f"`{name}`" not in text]


def test_command_line(water: list[Structure], tmp_path: Path) -> None:
    from ase.io import write

    from forgefield.app.cli import app
    from forgefield.data.doctor.mending import _atoms

    frames = [*water[:60], plant.disguised(water[3], np.random.default_rng(0)), plant.scaled(water[60], energy=0.0)]
    write(tmp_path / "a.xyz", [_atoms(s) for s in frames], format="extxyz")
    arguments = [
        "data",
        "doctor",
        str(tmp_path / "a.xyz"),
        "--json",
        str(tmp_path / "f.json"),
        "--fix",
        str(tmp_path / "b.xyz"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert "placeholder_values" in result.output
    found = {
        f["name"]: [p["index"] for p in f["places"]] for f in json.loads((tmp_path / "f.json").read_text())["findings"]
    }
    assert found["duplicates"] == [60]
    assert found["placeholder_values"] == [61]
    again = CliRunner().invoke(app, ["data", "doctor", str(tmp_path / "b.xyz")])
    assert again.exit_code == 0, again.output


SHARED = os.environ.get("FORGEFIELD_DATA")


@pytest.fixture(scope="module")
def good() -> dict[str, list[Structure]]:
    return plant.load(Path(SHARED or ""))


@pytest.mark.slow
@pytest.mark.skipif(SHARED is None, reason="FORGEFIELD_DATA names no folder with the real sets")
@pytest.mark.parametrize("name", list(plant.FAULTS))
def test_recall_on_real_sets(good: dict[str, list[Structure]], name: str) -> None:
    """At least 95 % of ten cases of each kind, way and set it is planted in."""
    cases = [
        (plant.is_found(name, *way(good[kind], np.random.default_rng([seed, len(kind)]))), f"{kind}, {what}, {seed}")
        for sets, way, what in plant.FAULTS[name]
        for kind in sets
        for seed in range(10)
    ]
    found, missed = sum(seen for seen, _ in cases), [case for seen, case in cases if not seen]
    print(f"\n{name:24} {found}/{len(cases)} {'; '.join(missed)}", flush=True)
    assert len(cases) >= 10
    assert found >= 0.95 * len(cases), missed


@pytest.mark.slow
def test_a_hundred_thousand_structures_take_minutes(water: list[Structure]) -> None:
    random = np.random.default_rng(0)
    base = np.concatenate([s.positions + np.array([3.0 * k, 0, 0]) for k, s in enumerate(water[:9])])
    frames = []
    for k in range(100_000):
        labels = {"energy": np.float64(random.normal(-100, 1)), "forces": random.normal(0, 1, (27, 3))}
        moved = base + random.normal(0, 0.05, base.shape)
        frames.append(Structure(np.tile([8, 1, 1], 9), moved, labels=labels, origin=f"big.xyz: frame {k}"))
    start = time.process_time()
    examine({"train": plant.as_dataset(frames)})
    assert time.process_time() - start < 300


def test_copies_are_told_by_group(water: list[Structure], tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    frames = [*water[:40], *(plant.disguised(water[k], random) for k in (3, 3, 3, 8))]
    (finding,) = (f for f in found_in(frames) if f.name == "duplicates")
    assert [p.index for p in finding.places] == [40, 41, 42, 43]
    assert "2 groups, the largest of 4" in finding.text
    groups = [[place["index"] for place in group] for group in finding.to_json()["groups"]]
    assert groups == [[3, 40, 41, 42], [8, 43]]


def test_one_odd_label_among_copies_is_named_and_the_good_ones_are_not(water: list[Structure]) -> None:
    random = np.random.default_rng(4)
    again = [plant.disguised(water[3], random) for _ in range(6)]
    odd = plant.with_labels(again[2], energy=again[2].labels["energy"] + 0.3)
    frames = [*water[:40], *again[:2], odd, *again[3:]]
    (finding,) = (f for f in found_in(frames) if f.name == "contradicting_labels")
    assert [p.index for p in finding.places] == [3, 42]
    assert finding.to_json()["groups"] == [[{"part": "train", "index": k} for k in (3, 40, 41, 42, 43, 44, 45)]]


def test_of_many_near_copies_a_bounded_number_is_compared(
    water: list[Structure], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs are not compared one by one, exact copies among the near ones are found, the rest is estimated."""
    random = np.random.default_rng(7)
    near = [dataclasses.replace(s, positions=s.positions + random.normal(0, 1e-3, (3, 3))) for s in water[:1] * 400]
    exact = [plant.disguised(near[k], random) for k in (5, 50, 150, 300)]
    calls = []

    def counted(a: Structure, b: Structure) -> float:
        calls.append(1)
        return difference(a, b)

    monkeypatch.setattr(twins, "difference", counted)
    monkeypatch.setattr(twins, "ROUND", 50)
    monkeypatch.setattr(twins, "SAMPLE", 20)
    monkeypatch.setattr(twins, "MOST_WORK", {False: 1300.0, True: 1300.0})
    found = {f.name: f for f in found_in([*near, *exact])}
    assert {p.index for p in found["duplicates"].places} >= {400, 401, 402, 403}
    assert len(calls) < 0.5 * len(near)
    assert "more candidate pairs about" in found["near_duplicates"].text


def test_comparisons_end_where_they_find_nothing(water: list[Structure], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(twins, "difference", lambda a, b: calls.append(1) or 1.0)
    monkeypatch.setattr(twins, "ROUND", 20)
    monkeypatch.setattr(twins, "SAMPLE", 10)
    monkeypatch.setattr(twins, "RADIUS", 10.0)
    assert "near_duplicates" not in {f.name for f in found_in(water)}
    assert len(calls) == 20 + 10


def test_a_composition_of_its_own_for_every_structure_costs_no_square(water: list[Structure]) -> None:
    """Reference energies are ranked without a square matrix over structures, groups without a pass for each."""
    random = np.random.default_rng(1)
    frames = [
        dataclasses.replace(s, numbers=np.sort(random.choice(np.arange(20, 60), 3)), origin=f"m.xyz: frame {k}")
        for k, s in enumerate(water * 20)
    ]
    tracemalloc.start()
    found_in(frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(frames) ** 2  # bytes of such a matrix
