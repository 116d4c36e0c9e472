"""Reference energies: the energy of each element as a free atom, or the best stand-in for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forgefield.core.elements import number, symbol
from forgefield.core.errors import DataError, ForgeError
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.energy_file import is_energy_file, read_energies
from forgefield.data.isolated import isolated_energies, separate_isolated
from forgefield.data.self_energies import Fit, explain_ties, fit_energies

Energies = dict[str, dict[int, float]]
Percentiles = tuple[float, float]
FIT = "fit"
"""Stands for a value that is to be fitted."""


class Trimmed(NamedTuple):
    """A setting whose least squares leave out the structures with the largest residuals."""

    e0: str | Path | Mapping[str, Any] | Dataset
    percentiles: Percentiles


E0 = str | Path | Mapping[str, Any] | Dataset | Trimmed
"""auto, isolated, least_squares; values by element, also by head, eV; a file of either; or frames of one atom."""


class References(NamedTuple):
    """Reference energies, where they come from, and what the user should know."""

    energies: Energies  # head -> atomic number -> eV
    source: str
    notes: tuple[str, ...] = ()


class Compositions(NamedTuple):
    """What a least squares fit needs, one row per structure with an energy."""

    counts: np.ndarray  # (S, n_elements)
    energies: np.ndarray  # (S,), eV, float64
    heads: np.ndarray  # (S,), index of the head


def settle_references(
    e0: E0, isolated: Dataset, compositions: Compositions, elements: Sequence[int], heads: Sequence[str], where: str
) -> References:
    """Carry out the setting `data.e0`.

    Args:
        e0: the setting.
        isolated: frames of one free atom in the training data.
        compositions: all other training structures that have energies.
        elements: atomic numbers that need an energy, ascending; the columns of `compositions.counts`.
        heads: each gets its own energies.
        where: the training data, for messages.

    Raises:
        DataError: an element has no energy, or the setting cannot be carried out.
    """
    percentiles = None
    if isinstance(e0, Trimmed):
        e0, percentiles = e0
    if isinstance(e0, (str, Path)) and str(e0) not in ("auto", "isolated", "least_squares"):
        e0 = _read(Path(e0))
    if isinstance(e0, Mapping):
        return _given(e0, compositions, elements, heads, where, percentiles)
    if isinstance(e0, Dataset):
        _, free = separate_isolated(e0)
        return _from_atoms(free, elements, heads, e0.name)
    if e0 == "isolated" or (e0 == "auto" and len(isolated)):
        return _from_atoms(isolated, elements, heads, where)
    return least_squares(compositions, elements, heads, where, percentiles)


def no_references(elements: Sequence[int], heads: Sequence[str]) -> References:
    """Return zeros, for models without an energy."""
    return References({head: dict.fromkeys(elements, 0.0) for head in heads}, "none: no energies are trained")


def _read(path: Path) -> Mapping[str, Any] | Dataset:
    return read_energies(path) if is_energy_file(path) else open_dataset(path)


def _given(
    e0: Mapping[str, Any], compositions: Compositions, elements: Sequence[int], heads: Sequence[str], where: str,
    percentiles: Percentiles | None,
) -> References:  # fmt: skip
    """Take the values as they are; those that say `fit` are fitted to what the others leave."""
    tables: Mapping[str, Any] = e0 if any(isinstance(v, Mapping) for v in e0.values()) else dict.fromkeys(heads, e0)
    unknown = sorted(set(tables) - set(heads))
    if unknown:
        raise DataError(f"data.e0 names head {unknown[0]!r}", "data.e0", "heads: " + ", ".join(heads))
    energies: Energies = {}
    notes: list[str] = []
    for index, head in enumerate(heads):
        table = tables.get(head, {})
        try:
            items = table.items() if isinstance(table, Mapping) else ()
            values = {number(k): float(v) for k, v in items if v != FIT}
            open_ones = sorted({number(k) for k, v in items if v == FIT} & set(elements))
        except (TypeError, ValueError, ForgeError) as error:
            raise DataError(str(error), "data.e0", "write values such as {H: -13.6}, in eV") from None
        if not np.isfinite(list(values.values())).all():
            raise DataError("an energy is NaN or infinite", "data.e0", "give finite values in eV")
        if open_ones:
            firm = [k for k, z in enumerate(elements) if z in values]
            rows = compositions.heads == index
            counts = compositions.counts[rows]
            rest = compositions.energies[rows] - counts[:, firm] @ np.array([values[elements[k]] for k in firm])
            columns = [list(elements).index(z) for z in open_ones]
            fitted, said = _fit(counts[:, columns], rest, open_ones, percentiles, head, heads, where)
            values, notes = values | fitted, [*notes, *said]
        energies[head] = values
    return References(_complete(energies, elements, "data.e0"), "given", tuple(notes))


def _from_atoms(isolated: Dataset, elements: Sequence[int], heads: Sequence[str], where: str) -> References:
    found = isolated_energies(isolated, heads)
    if not any(found.values()):
        raise DataError(
            "no frame of one free atom with an energy",
            where,
            "add one per element with config_type=IsolatedAtom, or set data.e0 to least_squares",
        )
    unused = sorted({z for table in found.values() for z in table} - set(elements))
    notes = (f"isolated atoms of {_names(unused)} are not used: no training structure has them",) if unused else ()
    return References(_complete(found, elements, where), "isolated atoms", notes)


def least_squares(
    compositions: Compositions, elements: Sequence[int], heads: Sequence[str], where: str,
    percentiles: Percentiles | None = None,
) -> References:  # fmt: skip
    """Fit E = sum over atoms of e0[element] to the training energies, per head, in float64.

    Where compositions do not determine each element (for example one molecule only), the solution of smallest norm
    is taken, and a note says so.

    Args:
        compositions: training structures.
        elements: columns of the compositions.
        heads: each gets its own energies.
        where: the data, for messages.
        percentiles: of the residuals; structures outside are left out of a second fit.

    Raises:
        DataError: a head has no energies, or lacks an element.
    """
    energies: Energies = {}
    notes: list[str] = []
    for index, head in enumerate(heads):
        rows = compositions.heads == index
        counts, targets = compositions.counts[rows], compositions.energies[rows]
        there = np.flatnonzero(counts.any(axis=0)).tolist()
        present = [elements[k] for k in there]
        energies[head], said = _fit(counts[:, there], targets, present, percentiles, head, heads, where)
        notes += said
    return References(_complete(energies, elements, where), "least squares", tuple(notes))


def _fit(
    counts: np.ndarray, targets: np.ndarray, elements: Sequence[int], percentiles: Percentiles | None, head: str,
    heads: Sequence[str], where: str,
) -> tuple[dict[int, float], list[str]]:  # fmt: skip
    """Fit one head; returns its energies, and what the user should know."""
    if not len(targets):
        raise DataError(
            f"no energies to fit reference energies to{_of(head, heads)}",
            where,
            "give data.e0, or check energy_key",
        )
    fit, notes = fit_energies(counts, targets, percentiles), []
    if percentiles is not None:
        left_out = int((~fit.used).sum())
        notes.append(
            f"reference energies{_of(head, heads)}: fitted without {left_out} of {len(targets)} structures, whose "
            f"residuals lie outside of the percentiles {percentiles[0]:g} and {percentiles[1]:g}"
        )
    if fit.rank < len(elements):
        notes.append(_rank_note(fit, elements, head, heads))
    return {z: float(v) for z, v in zip(elements, fit.values, strict=True)}, notes


def _rank_note(fit: Fit, elements: Sequence[int], head: str, heads: Sequence[str]) -> str:
    return (
        f"reference energies by least squares{_of(head, heads)}: the training compositions determine only "
        f"{fit.rank} of {len(elements)} ({_names(elements)}), so the solution of smallest norm is used: "
        f"{explain_ties(fit.tied, elements)}. Sums over these "
        "compositions are right, single values mean nothing: do not use the model for other compositions, or give "
        "data.e0 (isolated atoms; or some values, the rest as {H: -13.6, O: fit})"
    )


def _complete(energies: Energies, elements: Sequence[int], where: str) -> Energies:
    """Keep the elements that are needed, ascending.

    Raises:
        DataError: one is missing.
    """
    for head, table in energies.items():
        missing = [z for z in elements if z not in table]
        if missing:
            raise DataError(
                f"no reference energy (E0) for {_names(missing)}{_of(head, list(energies))}",
                where,
                f"add a frame of one free {symbol(missing[0])} atom with config_type=IsolatedAtom, "
                f"give data.e0 {{{symbol(missing[0])}: ...}} in eV, or set data.e0 to least_squares",
            )
    return {head: {z: table[z] for z in elements} for head, table in energies.items()}


def _of(head: str, heads: Sequence[str]) -> str:
    return f" of head {head!r}" if len(heads) > 1 else ""


def _names(elements: Sequence[int]) -> str:
    return ", ".join(symbol(z) for z in elements)
