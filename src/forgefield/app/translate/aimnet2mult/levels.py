"""AIMNet2mult: levels of theory, their files, weights and reference energies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forgefield.app.translate.aimnet2mult.reading import Settings
from forgefield.app.translation import Remark, Sheet, seen_from
from forgefield.core.elements import number, symbol
from forgefield.core.errors import ConfigError, ForgeError
from forgefield.data.energy_file import read_energies

DATASETS, WEIGHTS, VALIDATION = "data.fidelity_datasets", "data.fidelity_weights", "data.val_fidelity_datasets"
ENERGIES = "data.sae.energy"


def identity(given: Settings, sheet: Sheet) -> None:
    """Name, folder and what AIMNet2mult has as constants of its code."""
    name = given.get("run_name")
    if name is None:
        raise given.wrong("run_name", "is not given; AIMNet2mult demands it", "give run_name: NAME")
    sheet.put("name", name)
    sheet.put("task", "train")
    sheet.put("backend", "aimnet2")
    checkpoints = given.get("checkpoint.dirname", "checkpoints")
    sheet.put("run_dir", seen_from(f"runs/{name}", given, sheet)[0],
              f"holds everything; checkpoint.dirname: {checkpoints} is its checkpoints")  # fmt: skip
    sheet.put("train.seed", 0, "AIMNet2mult draws without a seed: no two of its runs are the same")


def levels(given: Settings) -> dict[str, str]:
    """Return the numbers of the fidelities, ascending, and our name of each.

    Raises:
        ConfigError: there is none, or they are not 0, 1, 2, ...
    """
    found = [name for name in given.names(DATASETS) if given.has(f"{DATASETS}.{name}")]
    if not found:
        raise given.wrong(DATASETS, "is not given; a run needs training data", f"give {DATASETS}.0=FILE")
    if sorted(found, key=lambda text: (len(text), text)) != [str(k) for k in range(len(found))]:
        raise given.wrong(f"{DATASETS}.{found[0]}", f"got {', '.join(found)}, expected 0, 1, 2, ... without gaps")
    return {str(k): f"fid{k}" for k in range(len(found))}


def data(given: Settings, sheet: Sheet) -> None:
    """Files of each level, what is read, what is kept for validation."""
    names = levels(given)
    sheet.put("data.train", *_sources(given, sheet, DATASETS, names))
    if given.names(VALIDATION) and any(given.has(f"{VALIDATION}.{k}") for k in given.names(VALIDATION)):
        value, _ = _sources(given, sheet, VALIDATION, names)
        why = f"{VALIDATION} was dead upstream: it validated on a part of the training data; now on these files"
        sheet.put("data.val", value, why)
        _remark(given, sheet, "data.val_fraction", "there are files to validate on")
        _remark(given, sheet, "data.separate_val", "there are files to validate on")
        given.read.add("data.val_fraction")
    else:
        _split(given, sheet)
    _remark(given, sheet, VALIDATION, "no files to validate on")
    _remark(given, sheet, "data.ddp_load_full_dataset", "each process reads what it needs, and batches are shared out")
    _inputs(given, sheet)


def _sources(given: Settings, sheet: Sheet, block: str, names: dict[str, str]) -> tuple[Any, str]:
    sources: list[Any] = []
    comments: list[str] = []
    for key in given.names(block):
        if not given.has(f"{block}.{key}"):
            continue
        if key not in names:
            raise given.wrong(f"{block}.{key}", f"no fidelity {key}", f"{DATASETS} has {', '.join(names)}")
        path, comment = seen_from(given[f"{block}.{key}"], given, sheet)
        if comment:
            comments.append(f"{path}: {comment}")
        sources.append((key, path))
    if len(names) == 1:
        return sources[0][1], "; ".join(comments)
    note = "fidelity 0, 1, ... of AIMNet2mult is the level fid0, fid1, ...; rename them as you like, everywhere"
    if sheet.knows("data.fidelities"):
        note += ". Say in data.fidelities whether the labels of each include dispersion"
    sources.sort(key=lambda item: (len(item[0]), item[0]))
    return [{"path": path, "fidelity": names[key]} for key, path in sources], "; ".join([note, *comments])


def _split(given: Settings, sheet: Sheet) -> None:
    fraction = given["data.val_fraction"]
    if not given.get("data.separate_val", True):
        why = "AIMNet2mult then validates on the training data; name them in data.val, or keep a part apart"
        sheet.lost.append(Remark("data.separate_val", False, why))
    sheet.put("data.val_fraction", fraction)
    sheet.put("data.split", "random", "fixed by data.split_seed; AIMNet2mult draws another part at every start")


def _inputs(given: Settings, sheet: Sheet) -> None:
    """What is read of each structure: `data.x`."""
    inputs = [str(name) for name in given["data.x"] or []]
    if missing := [name for name in ("coord", "numbers", "charge") if name not in inputs]:
        raise given.wrong("data.x", f"lacks {', '.join(missing)}, without which AIMNet2 cannot run")
    for name in inputs:
        if name not in ("coord", "numbers", "charge", "mult"):
            sheet.lost.append(Remark("data.x", name, "AIMNet2 here reads coord, numbers, charge and mult"))
    if given.get("model.kwargs.num_charge_channels", 1) != 2:
        return
    if "mult" not in inputs:
        sheet.put("data.multiplicity_key", None, "data.x has no mult")
    sheet.put("data.multiplicity", 1, "of structures that state none, as in AIMNet2mult; there a 0 counts as none too")


def fidelity(given: Settings, sheet: Sheet) -> None:
    """What levels share: fidelity_offset, use_fidelity_readouts, fidelity_weights."""
    names = levels(given)
    offset, readouts = given["fidelity_offset"], given["use_fidelity_readouts"]
    if len(names) == 1:
        for key in ("fidelity_offset", "use_fidelity_readouts"):
            _remark(given, sheet, key, "there is one level of theory: a plain AIMNet2")
        for key in given.below(WEIGHTS):
            _remark(given, sheet, key, "there is one level of theory")
        return
    if offset == 0:
        raise given.wrong("fidelity_offset", "0 with several fidelities", "AIMNet2mult refuses it too; give 200")
    note = f"fidelity_offset: {offset}: each level has elements of its own; no atomic number is shifted for it"
    if not readouts:
        note += ". use_fidelity_readouts: false with several levels fails in AIMNet2mult; here they share one readout"
    sheet.put("model.fidelity", {"readouts": readouts, "embedding": "elements"}, note)
    _weights(given, sheet, names)


def _weights(given: Settings, sheet: Sheet, names: dict[str, str]) -> None:
    _remark(
        given, sheet, WEIGHTS, "null means fidelity + 1 upstream, where weights are dead: every structure counts once"
    )
    weights = {key: given.get(f"{WEIGHTS}.{key}") for key in given.names(WEIGHTS)}
    weights = {key: weight for key, weight in weights.items() if weight is not None}
    if not weights:
        return
    if strange := [key for key in weights if key not in names]:
        _remark(given, sheet, f"{WEIGHTS}.{strange[0]}", "no such fidelity; AIMNet2mult leaves it out too")
    strategy = given.get("data.samplers.train.kwargs.sampling_strategy", "weighted")
    if strategy != "weighted":
        for key in weights:
            _remark(given, sheet, f"{WEIGHTS}.{key}", f"sampling_strategy: {strategy} does not read it")
        return
    if missing := [key for key in names if key not in weights]:
        raise given.wrong(f"{WEIGHTS}.{next(iter(weights))}", f"gives no weight for fidelity {missing[0]}")
    if low := [key for key in weights if weights[key] <= 0]:
        raise given.wrong(f"{WEIGHTS}.{low[0]}", f"got {weights[low[0]]:g}, expected a number above 0")
    shares = {names[key]: weights[key] for key in names}
    sheet.put("data.sampling", shares,
              "fidelity_weights: dead upstream (every structure came equally often); now the shares of the draws, "
              "whatever the sizes of the files; take the line out to train as upstream did")  # fmt: skip


def reference_energies(given: Settings, sheet: Sheet) -> None:
    """Self-atomic energies: the values of the files, or the fit that calc_sae makes."""
    names = levels(given)
    mode = given.get(f"{ENERGIES}.mode", "linreg")
    if mode != "linreg":
        why = "it divides logarithms of the labels; energies are sums, so fit them with linreg (data.e0: least_squares)"
        sheet.lost.append(Remark(f"{ENERGIES}.mode", mode, why))
    files = {key: given.get(f"{ENERGIES}.files.{key}") for key in names}
    one = given.get(f"{ENERGIES}.file")
    for key in given.below("data.sae"):
        if key in ("data.sae", "data.sae.energy", f"{ENERGIES}.files") or key.split(".")[-1] not in (
            *names,
            "file",
            "mode",
        ):
            _remark(given, sheet, key, "names no file of a fidelity that there is")
    if one is not None and all(files.values()):
        _remark(given, sheet, f"{ENERGIES}.file", "files of the fidelities go before it")
    tables, absent = {}, []
    for key, name in names.items():
        path = files[key] or one
        if path is None:
            absent.append(f"fidelity {key} has none")
            continue
        place = f"{ENERGIES}.files.{key}" if files[key] else f"{ENERGIES}.file"
        found = next((p for p in _places(given, path) if p.is_file()), None)
        if found is None:
            absent.append(f"{path} not found from here")
            continue
        tables[name] = _values(given, place, found)
    if absent:
        why = f"no SAE file ({'; '.join(absent)}): fitted as calc_sae does; `forgefield data sae` writes files, too"
        sheet.put("data.e0", "least_squares", why)
        sheet.put("data.e0_percentiles", [2.0, 98.0], "as calc_sae leaves outliers out")
        return
    note = "values of the SAE files; an element that is missing here is an error, in AIMNet2mult it made NaN"
    sheet.put("data.e0", tables if len(names) > 1 else next(iter(tables.values())), note)


def _places(given: Settings, path: str) -> list[Path]:
    return [given.source.absolute().parent / path, Path.cwd() / path]


def _values(given: Settings, key: str, path: Path) -> dict[str, float]:
    try:
        return {symbol(number(z)): float(value) for z, value in read_energies(path).items()}
    except (ConfigError, ForgeError, TypeError, ValueError) as error:
        raise given.wrong(key, str(error), "write lines such as 6: -1029.48") from None


def _remark(given: Settings, sheet: Sheet, key: str, why: str) -> None:
    """Put a key that the files give onto the sheet as one that needs nothing."""
    if given.says(key):
        sheet.needless.append(Remark(key, given.get(key), why))
