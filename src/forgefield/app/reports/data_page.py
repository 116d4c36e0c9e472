"""A page about a data set that stands on its own: sizes, elements, energies, forces, distances."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from forgefield.app.data_summary import Tally
from forgefield.app.reports.markup import bar_cell, card, figure, section, side_by_side, significant, table
from forgefield.app.reports.plot import Axis, Chart, axis_over
from forgefield.core.disk import write_atomic
from forgefield.core.elements import symbol
from forgefield.data.dataset import Dataset
from forgefield.data.energy_table import Rows
from forgefield.data.isolated import is_isolated
from forgefield.data.self_energies import fit_energies
from forgefield.data.trajectories import Trajectory, TrajectoryFinder
from forgefield.graph.pairs import find_pairs

REACH = 6.0  # Å, distances shown
_SAMPLE = 1000  # structures whose forces and distances are looked at
_DOTS = 1500  # above so many points a scatter becomes cells
_TALLEST = 20  # rows of a table


@dataclass(frozen=True, eq=False)
class Seen:
    """What one pass over a data set collects.

    Args:
        counts: of everything that can be counted.
        trajectories: that were found.
        sizes: atoms of each structure, (n,).
        energies: per atom, relative to a fit of the elements' energies, eV, by place; NaN without energy, (n,).
        forces: components of a sample, eV/Å.
        distances: of pairs of a sample within `REACH`, by the pair's elements, Å.
        sampled: structures of the sample.
    """

    counts: Tally
    trajectories: list[Trajectory]
    sizes: np.ndarray
    energies: np.ndarray
    forces: np.ndarray
    distances: dict[str, np.ndarray]
    sampled: int


def collect(dataset: Dataset) -> Seen:
    """Pass over a data set once; forces and distances are taken from structures spread evenly over it."""
    counts, finder, rows = Tally(), TrajectoryFinder(), Rows()
    sizes, labelled, forces = array("q"), array("q"), list[np.ndarray]()
    distances: dict[str, list[np.ndarray]] = {}
    chosen = set(np.unique(np.linspace(0, max(len(dataset) - 1, 0), _SAMPLE).astype(int)).tolist())
    for place, structure in enumerate(dataset):
        counts.add(structure)
        finder.add(structure)
        sizes.append(len(structure))
        if "energy" in structure.labels and not is_isolated(structure):
            rows.add(structure)
            labelled.append(place)
        if place in chosen:
            forces.append(structure.labels.get("forces", np.zeros((0, 3))).ravel())
            pairs = find_pairs(structure, REACH)
            ends = structure.positions[pairs.second] + pairs.shift @ structure.cell - structure.positions[pairs.first]
            numbers = np.sort(np.stack([structure.numbers[pairs.first], structure.numbers[pairs.second]], 1), axis=1)
            found = np.linalg.norm(ends, axis=1)
            for a, b in np.unique(numbers, axis=0).tolist():
                name = f"{symbol(a)}-{symbol(b)}"
                distances.setdefault(name, []).append(found[(numbers == (a, b)).all(axis=1)])
    energies = np.full(len(sizes), np.nan)
    if len(labelled):
        composition = rows.table(np.array(sorted(counts.elements)))
        values = np.array(rows.energies)
        left = values - composition @ fit_energies(composition, values).values
        energies[np.array(labelled)] = left / composition.sum(axis=1)
    joined = {name: np.concatenate(parts) for name, parts in distances.items()}
    return Seen(
        counts, finder.found(), np.array(sizes), energies, np.concatenate(forces or [np.zeros(0)]), joined, len(chosen)
    )


def write_page(dataset: Dataset, path: Path) -> Path:
    """Write the page of a data set; it needs neither network nor other files."""
    return write_atomic(path, render(collect(dataset), dataset.name, list(dataset.notes)))


def render(seen: Seen, name: str, notes: list[str]) -> str:
    """Return the page as text."""
    style = files("forgefield.app.reports").joinpath("report.css").read_text(encoding="utf-8")
    short = escape(Path(name.split(",")[0]).name)
    told = "".join(f"<p>{escape(note)}</p>" for note in notes)
    parts = (
        section("labels", "Labels and marks", side_by_side(*_tables(seen.counts))),
        section("energies", "Energies and forces", side_by_side(*_energy_cards(seen), *_force_cards(seen))),
        section("geometry", "Sizes and distances", side_by_side(*_size_cards(seen), *_distance_cards(seen))),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{short} · ForgeField data</title><style>{style}</style></head><body><main>"
        f'<header><p class="brand">ForgeField</p><h1>{short}</h1><p class="lead">{escape(name)}</p></header>'
        f"{_figures(seen)}{told}{''.join(parts)}</main></body></html>\n"
    )


def _figures(seen: Seen) -> str:
    counts, inside = seen.counts, sum(t.stop - t.start for t in seen.trajectories)
    return (
        '<div class="figures">'
        + figure(f"{counts.structures:,}", "", "structures", main=True)
        + figure(f"{counts.atoms:,}", "", "atoms")
        + figure(str(len(counts.elements)), "", "elements")
        + figure(f"{len(counts.formulas):,}", "", "formulas")
        + (figure(f"{inside:,}", "frames", f"in {len(seen.trajectories)} trajectories") if inside else "")
        + "</div>"
    )


def _tables(counts: Tally) -> list[str]:
    n = counts.structures
    cards = [
        _count_card("Labels", "structures", dict(counts.labels), n),
        _count_card("Elements", "atoms", {symbol(z): k for z, k in counts.elements.most_common()}, counts.atoms),
        _count_card("Formulas", "structures", dict(counts.formulas.most_common()), n),
    ]
    cards += [
        _count_card(name.replace("_", " ").capitalize(), "structures", dict(found.most_common()), n)
        for name, found in counts.marks.items()
    ]
    return [made for made in cards if made]


def _count_card(title: str, what: str, counts: dict[str, int], of_all: int) -> str:
    """Return a table of numbers with bars, or nothing where there are none."""
    if not counts:
        return ""
    most = max(counts.values())
    rows = [
        [escape(name), f"{k:,}", f"{100 * k / of_all:.3g} %", bar_cell(k / most)]
        for name, k in list(counts.items())[:_TALLEST]
    ]
    note = f"The {_TALLEST} most frequent of {len(counts):,}." if len(counts) > _TALLEST else ""
    return card(title, table(["", what, "of all", ""], rows, numeric=(1, 2)), note)


def _energy_cards(seen: Seen) -> list[str]:
    places = np.flatnonzero(np.isfinite(seen.energies))
    if not len(places):
        return []
    values = seen.energies[places]
    note = "Counted from a least squares fit of one energy per element; far-off values deserve a look."
    cards = [_histogram("Energy per atom", "eV per atom, relative", values, note)]
    chart = Chart(
        axis_over("number in the file", places), axis_over("eV per atom, relative", values), "Energies in order"
    )
    if len(values) > _DOTS:
        chart.density(places, values)
    else:
        hints = [f"structure {k}: {v:+.4f} eV per atom" for k, v in zip(places.tolist(), values.tolist(), strict=True)]
        chart.dots(places, values, "a", hints)
    return [*cards, card("Energies in the order of the file", chart.svg(), "Smooth curves are trajectories.")]


def _force_cards(seen: Seen) -> list[str]:
    if not len(seen.forces):
        return []
    rms = float(np.sqrt(np.mean(seen.forces**2)))
    note = f"RMS {significant(rms)} eV/Å, largest {significant(float(np.abs(seen.forces).max()))} eV/Å"
    return [_histogram("Force components", "eV/Å", seen.forces, f"{note}; {seen.sampled:,} structures.", log=True)]


def _size_cards(seen: Seen) -> list[str]:
    low, high = int(seen.sizes.min()), int(seen.sizes.max())
    note = f"{low} to {high} atoms, {seen.sizes.mean():.1f} on average."
    edges = np.linspace(low - 0.5, high + 0.5, min(high - low + 1, 60) + 1)
    return [_histogram("Sizes", "atoms in a structure", seen.sizes, note, edges=edges)]


def _distance_cards(seen: Seen) -> list[str]:
    """Return the distribution of distances of all pairs, and of the nearest pair of each two elements."""
    if not seen.distances:
        return []
    everything = np.concatenate(list(seen.distances.values()))
    note = f"Pairs within {REACH:g} Å in {seen.sampled:,} structures, periodic images included."
    rows = [
        [escape(name), f"{found.min():.3f}", f"{np.percentile(found, 1):.3f}", f"{len(found):,}"]
        for name, found in sorted(seen.distances.items(), key=lambda item: float(item[1].min()))[:_TALLEST]
    ]
    head = ["pair", "nearest, Å", "nearest 1 %, Å", "pairs"]
    return [
        _histogram("Distances", "Å", everything, note),
        card("Nearest atoms", table(head, rows, numeric=(1, 2, 3)), "Bonds much too short or long point to the unit."),
    ]


def _histogram(
    title: str, unit: str, values: np.ndarray, note: str, *, log: bool = False, edges: np.ndarray | None = None
) -> str:
    """Return a histogram; values beyond the outermost thousandths are named below, not drawn."""
    if edges is None:
        low, high = (float(x) for x in np.percentile(values, (0.1, 99.9)))
        edges = np.linspace(low, high if high > low else low + 1e-3, 61)
    counts, _ = np.histogram(values, edges)
    beyond = int(len(values) - counts.sum())
    top = float(counts.max()) * 1.05 or 1.0
    y = Axis("number", 0.7, max(top * 1.5, 2.0), log=True) if log else Axis("number", 0.0, top)
    chart = Chart(Axis(unit, float(edges[0]), float(edges[-1])), y, title, height=300)
    chart.bars(edges, counts, "a")
    if beyond:
        note += f" {beyond:,} of {len(values):,} lie outside: from {significant(float(values.min()))} to " \
                f"{significant(float(values.max()))}."  # fmt: skip
    return card(title, chart.svg(), note)
