"""Labels that are missing, made up, constant, copied, rounded, or at odds with the number of electrons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.elements import symbol
from forgefield.core.settings import Settings
from forgefield.core.units import ENERGY
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.survey import Survey

_STAND_INS = (1.0, 99.0, 999.0, 9999.0, 99999.0, 999999.0, 1e6)
PLACEHOLDERS = (0.0, *_STAND_INS, *(-value for value in _STAND_INS))
ABSURD = 1e8  # eV
ROUGH = 1e-4  # eV: coarser total energies are told
POLAR = 0.02
CHANCE = 0.1  # expected coincidences for each structure
SILENT = 0.02  # eV/Å: where forces are usually larger, a structure without any is odd


def examine(survey: Survey) -> Iterator[Finding]:
    """Look at what is labelled, and at the digits."""
    if survey.unreadable:
        places = tuple(place for place, _ in survey.unreadable)
        text = f"{len(places)} structures cannot be read; the first: {survey.unreadable[0][1]}"
        yield Finding("unreadable", "severe", text, places, "repair or remove them, or data.on_error: skip")
    yield from _coverage(survey)
    yield from _ranks(survey)
    yield from _spins(survey)
    for part, level, rows in survey.sources:
        where = survey.title(part, level)
        yield from _placeholders(survey, where, rows)
        yield from _repeats(survey, where, rows)
        yield from _silence(survey, where, rows)
        yield from _digits(survey, where, rows)


def _coverage(survey: Survey) -> Iterator[Finding]:
    many = survey.atoms > 1
    names = np.char.add(np.char.add(survey.part, " data, "), np.where(survey.level == "", survey.group, survey.level))
    for label in ("energy", "forces", "stress"):
        there = survey.prints[label] != ""
        if not (there & many).any():
            continue
        for name in np.unique(names[many]):
            rows = np.flatnonzero(many & (names == name) & (survey.periodic if label == "stress" else True))
            lacking = rows[~there[rows]]
            if len(lacking):
                text = f"{name}: {len(lacking)} of {len(rows)} structures have no {label}"
                mend = "train.missing_labels: mask, or label them"
                yield Finding("label_coverage", "info", text, survey.places(lacking), mend)


def _ranks(survey: Survey) -> Iterator[Finding]:
    for level in np.unique(survey.level[survey.part == "train"]):
        rows = (survey.part == "train") & (survey.level == level) & np.isfinite(survey.energy)
        if not rows.any() or (survey.atoms[rows] == 1).any():
            continue
        counts = np.unique(survey.composition[rows], axis=0).astype(np.float64)
        there = np.flatnonzero(counts.any(axis=0))
        _, sizes, axes = np.linalg.svd(np.linalg.qr(counts[:, there], mode="r"), full_matrices=True)
        rank = int((sizes > 1e-8 * sizes.max()).sum())
        if rank == len(there):
            continue
        open_axes = np.abs(axes[rank:]).max(axis=0) > 1e-6
        names = " ".join(symbol(survey.elements[there[k]]) for k in np.flatnonzero(open_axes))
        text = (
            f"compositions{f' of {level}' if level else ''} determine {rank} of {len(there)} reference energies; "
            f"not separated: {names}"
        )
        mend = "data.e0: give values, or add frames of one free atom (config_type=IsolatedAtom)"
        yield Finding("e0_rank", "info", text, (), mend)


def _spins(survey: Survey) -> Iterator[Finding]:
    wrong = []
    protons = survey.composition @ np.array(survey.elements)
    for row, spin in enumerate(survey.spin):
        if spin is None:
            continue
        electrons, open_shell = protons[row] - spin[0], spin[1] - 1.0
        whole = abs(electrons - round(electrons)) < 1e-6 and abs(open_shell - round(open_shell)) < 1e-6
        if not whole or open_shell < 0 or open_shell > electrons or round(electrons - open_shell) % 2:
            wrong.append(row)
    if wrong:
        text = (
            f"charge and multiplicity (2S+1) of {len(wrong)} structures do not fit their number of electrons: an even "
            "number needs an odd multiplicity"
        )
        mend = "check whether the file counts unpaired electrons (2S): data.spin: unpaired"
        yield Finding("impossible_spin", "severe", text, survey.places(wrong), mend)


def _placeholders(survey: Survey, where: str, rows: np.ndarray) -> Iterator[Finding]:
    rows = rows[np.isfinite(survey.energy[rows]) & (survey.atoms[rows] > 1)]
    energy = survey.energy[rows]
    if len(rows) < 3:
        return
    usual = float(np.median(energy))
    odd = np.abs(energy) > ABSURD
    for value in PLACEHOLDERS:
        hit = np.zeros(len(energy), dtype=bool)
        for unit in ENERGY.values():
            hit |= np.abs(energy - value * unit) <= 1e-12 * max(abs(value * unit), 1e-3)
        if hit.any() and (hit.sum() > 1 or abs(value - usual) > 0.5 * abs(usual)) and not hit.all():
            odd |= hit
    if odd.any() and not odd.all():
        first = float(energy[odd][0])
        text = (
            f"{where}: the energies of {int(odd.sum())} structures stand for missing values (the first: {first:g} eV)"
        )
        mend = "forgefield data doctor FILE --fix clean.xyz (leaves them out)"
        yield Finding("placeholder_values", "severe", text, survey.places(rows[odd]), mend)


def _repeats(survey: Survey, where: str, rows: np.ndarray) -> Iterator[Finding]:
    """One value for everything, or for several different structures."""
    rows = rows[survey.atoms[rows] > 1]
    for label in ("energy", "forces", "stress"):
        prints = survey.prints[label][rows]
        there = rows[prints != ""]
        if len(there) < 3 or (label == "forces" and not (survey.numbers["force_rms"][there] > 0).any()):
            continue
        times = Counter(survey.prints[label][there].tolist())
        count = times.most_common(1)[0][1]
        different = len(np.unique(np.round(survey.descriptor[there], 4), axis=0))
        if count >= 0.95 * len(there) and different > 0.5 * len(there) and different >= 3 and label != "forces":
            text = f"{where}: {label} is the same in {count} of {len(there)} structures, which differ"
            mend = f"data.{label}_key names another quantity? null reads no {label}"
            yield Finding("constant_labels", "severe", text, (), mend)
            continue
        if label == "energy" and _by_chance(survey.energy[there]):
            continue
        chosen = _copied(survey, there, label, times)
        if len(chosen):
            text = f"{where}: {len(chosen)} structures have exactly the {label} of another, different structure"
            mend = "labels were assigned to the wrong structures, or copied: check how the file was made"
            yield Finding("repeated_labels", "warning", text, survey.places(chosen), mend)


def _copied(survey: Survey, rows: np.ndarray, label: str, times: Counter[str]) -> list[int]:
    """Rows whose label another row has too, although the distances differ clearly."""
    groups: dict[str, list[int]] = {}
    for row in rows.tolist():
        if times[str(survey.prints[label][row])] > 1:
            groups.setdefault(str(survey.prints[label][row]), []).append(row)
    wrong = []
    for members in groups.values():
        if label == "forces" and not survey.numbers["force_rms"][members[0]]:
            continue
        if label == "stress" and not survey.stress[members[0]].any():
            continue
        if label == "energy" and _few_digits(float(survey.energy[members[0]])):
            continue
        first = survey.descriptor[members[0]]
        apart = [k for k in members[1:] if np.abs(survey.descriptor[k] - first).max() > 1e-2]
        if apart:
            wrong += [members[0], *apart]
    return sorted(wrong)


def _by_chance(energy: np.ndarray) -> bool:
    """Whether energies are so coarse that several agree although their structures differ."""
    different = np.unique(energy)
    if len(different) < 3:
        return True
    step, spread = float(np.diff(different).min()), float(np.percentile(energy, 90) - np.percentile(energy, 10))
    return len(energy) * step > CHANCE * max(spread, step)


def _few_digits(value: float) -> bool:
    """Whether so few digits are written that two structures may well agree by chance."""
    return len(f"{abs(value):.10g}".replace(".", "").strip("0")) < 7


def _silence(survey: Survey, where: str, rows: np.ndarray) -> Iterator[Finding]:
    """Forces of exactly zero in surroundings that are not symmetric."""
    rows = rows[np.isfinite(survey.numbers["force_rms"][rows]) & (survey.atoms[rows] > 1)]
    if not len(rows):
        return
    size = survey.numbers["force_rms"][rows]
    zero = (survey.numbers["nonzero_forces"][rows] == 0) & (survey.numbers["polarity"][rows] > POLAR)
    loud = size[size > 0]
    everywhere = zero.sum() >= 3 and zero.sum() > 0.9 * (survey.numbers["polarity"][rows] > POLAR).sum()
    if everywhere or (zero.any() and len(loud) and np.median(loud) > SILENT):
        text = f"{where}: all forces of {int(zero.sum())} of {len(rows)} structures are exactly zero, without symmetry"
        mend = "data.forces_key: null, or leave these frames out: their forces were never computed"
        yield Finding("zero_forces", "severe" if everywhere else "warning", text, survey.places(rows[zero]), mend)


def _digits(survey: Survey, where: str, rows: np.ndarray) -> Iterator[Finding]:
    """Whether total energies were float32 once, or were written with few decimals."""
    rows = rows[np.isfinite(survey.energy[rows]) & (survey.atoms[rows] > 1)]
    energy = survey.energy[rows]
    energy = energy[energy != 0]
    if len(energy) < 5:
        return
    for name, unit in ENERGY.items():
        values = energy / unit
        single = values.astype(np.float32).astype(np.float64)
        if (np.abs(single - values) <= 4e-16 * np.abs(values)).all() and not _whole(values):
            step = float(np.median(np.spacing(np.abs(values).astype(np.float32)))) * unit
            _ = name
            yield from _rounded(survey, where, rows, step, "float32 numbers")
            return
    for decimals in range(5):
        if (np.abs(energy - np.round(energy, decimals)) <= 1e-15 * np.abs(energy)).all():
            yield from _rounded(survey, where, rows, 10.0**-decimals, f"numbers with {decimals} decimals")
            return


def _whole(values: np.ndarray) -> bool:
    return bool((values == np.round(values)).all())


def _rounded(survey: Survey, where: str, rows: np.ndarray, step: float, what: str) -> Iterator[Finding]:
    size = 1e3 * step
    each = size / float(np.median(survey.atoms[rows]))
    level = "warning" if step > ROUGH else "info"
    text = f"{where}: total energies are {what}, {size:.2g} meV apart ({each:.2g} meV/atom): no model can be better"
    mend = "go back to float64 energies, or subtract the atoms' energies before they are rounded"
    yield Finding("rounded_energies", level, text, (), mend)


ENTRY = Entry(Settings, examine, "missing, made up and rounded labels")
