"""Reference energies: the energy of each element as a free atom, or the best stand-in for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forgefield.core.elements import number, symbol
from forgefield.core.errors import DataError, ForgeError
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.isolated import isolated_energies, separate_isolated

Energies = dict[str, dict[int, float]]
E0 = str | Path | Mapping[str, float] | Mapping[str, Mapping[str, float]] | Dataset
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
    if isinstance(e0, (str, Path)) and str(e0) not in ("auto", "isolated", "least_squares"):
        e0 = _read(Path(e0))
    if isinstance(e0, Mapping):
        return _given(e0, elements, heads)
    if isinstance(e0, Dataset):
        _, free = separate_isolated(e0)
        return _from_atoms(free, elements, heads, e0.name)
    if e0 == "isolated" or (e0 == "auto" and len(isolated)):
        return _from_atoms(isolated, elements, heads, where)
    return least_squares(compositions, elements, heads, where)


def _read(path: Path) -> Mapping[str, float] | Dataset:
    if path.suffix.lower() != ".json":
        return open_dataset(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error})", str(path), "write JSON: {'H': -13.6} with double quotes") from None
    if not isinstance(found, dict):
        raise DataError("holds no mapping of elements to energies", str(path), 'write {"H": -13.6}')
    return found


def _given(e0: Mapping[str, Any], elements: Sequence[int], heads: Sequence[str]) -> References:
    tables: Mapping[str, Any] = e0 if any(isinstance(v, Mapping) for v in e0.values()) else dict.fromkeys(heads, e0)
    unknown = sorted(set(tables) - set(heads))
    if unknown:
        raise DataError(f"data.e0 names head {unknown[0]!r}", "data.e0", "heads: " + ", ".join(heads))
    energies: Energies = {}
    for head in heads:
        table = tables.get(head, {})
        try:
            values = {number(k): float(v) for k, v in table.items()} if isinstance(table, Mapping) else {}
        except (TypeError, ValueError, ForgeError) as error:
            raise DataError(str(error), "data.e0", "write values such as {H: -13.6}, in eV") from None
        if not np.isfinite(list(values.values())).all():
            raise DataError("an energy is NaN or infinite", "data.e0", "give finite values in eV")
        energies[head] = values
    return References(_complete(energies, elements, "data.e0"), "given")


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


def least_squares(compositions: Compositions, elements: Sequence[int], heads: Sequence[str], where: str) -> References:
    """Fit E = sum over atoms of e0[element] to the training energies, per head, in float64.

    Where compositions do not determine each element (for example one molecule only), the solution of smallest norm
    is taken, and a note says so.

    Raises:
        DataError: a head has no energies, or lacks an element.
    """
    energies: Energies = {}
    notes: list[str] = []
    for index, head in enumerate(heads):
        rows = compositions.heads == index
        counts, targets = compositions.counts[rows], compositions.energies[rows]
        if not len(targets):
            raise DataError(
                f"no energies to fit reference energies to{_of(head, heads)}",
                where,
                "give data.e0, or check energy_key",
            )
        there = np.flatnonzero(counts.any(axis=0)).tolist()
        fitted, _, rank, _ = np.linalg.lstsq(counts[:, there].astype(np.float64), targets, rcond=None)
        energies[head] = {elements[k]: float(v) for k, v in zip(there, fitted, strict=True)}
        if rank < len(there):
            notes.append(_rank_note(int(rank), [elements[k] for k in there], head, heads))
    return References(_complete(energies, elements, where), "least squares", tuple(notes))


def _rank_note(rank: int, elements: Sequence[int], head: str, heads: Sequence[str]) -> str:
    return (
        f"reference energies by least squares{_of(head, heads)}: the training compositions determine only {rank} of "
        f"{len(elements)} ({_names(elements)}), so the solution of smallest norm is used. Sums over these "
        "compositions are right, single values mean nothing: do not use the model for other compositions, or give "
        "data.e0 (isolated atoms)"
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
