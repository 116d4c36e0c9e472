"""The tables of the report."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
from pydantic import ValidationError

from forgefield.app.reports.contents import Contents, Evaluated, Predictions
from forgefield.app.reports.markup import bar_cell, card, duration, facts, file_size, milli, significant, table
from forgefield.app.reports.reading import force_share
from forgefield.app.tasks.steps.further import names_in, unit_of
from forgefield.core.elements import number, symbol
from forgefield.core.units import factor
from forgefield.train.loss_words import notes_in_words, terms_in_words
from forgefield.train.settings import TrainSettings

WORST = 10


def errors_of_sets(contents: Contents) -> str:
    """Return one row of errors for every evaluated set; columns without any number are left out."""
    columns = {
        "set": [escape(one.name) for one in contents.evaluated],
        "structures": [f"{one.overall.get('n_structures') or 0:,.0f}" for one in contents.evaluated],
    }
    for title, key, shown in (
        ("E MAE / atom", "energy_mae_per_atom", milli),
        ("E RMSE / atom", "energy_rmse_per_atom", milli),
        ("E RMSE", "energy_rmse", milli),
        ("F MAE", "forces_mae", milli),
        ("F RMSE", "forces_rmse", milli),
        ("stress MAE", "stress_mae", _gpa),
        ("stress RMSE", "stress_rmse", _gpa),
    ):
        values = [one.overall.get(key) for one in contents.evaluated]
        if any(value is not None for value in values):
            columns[title] = [shown(value) for value in values]
    for name in dict.fromkeys(name for one in contents.evaluated for name in names_in(one.overall)):
        units = contents.evaluated[0].metrics.get("about", {}).get("units", {})
        for word in ("mae", "rmse"):
            values = [one.overall.get(f"{name}_{word}") for one in contents.evaluated]
            title = f"{escape(name)} {word.upper()}, {escape(unit_of(name, units))}"
            columns[title.removesuffix(", ")] = [significant(value, pad=True) for value in values]
        for word, end in (("right", "accuracy"), ("area under the curve", "auc")):
            values = [one.overall.get(f"{name}_{end}") for one in contents.evaluated]
            if any(value is not None for value in values):
                columns[f"{escape(name)}, {word}"] = [significant(value, pad=True) for value in values]
    shares = [force_share(one.overall) for one in contents.evaluated]
    if any(shares):
        columns["of typical F"] = [
            "\N{EN DASH}" if s is None else f"{significant(100 * s, 2, pad=True)} %" for s in shares
        ]
    unit = ", stress in GPa" if "stress RMSE" in columns else ""
    left_out = [(one.name, one.overall.get("n_forces_left_out")) for one in contents.evaluated]
    counts = ", ".join(f"{n:,.0f} of {escape(name)}" for name, n in left_out if n)
    more = f" Labelled atoms that do not count in force errors (masked, fixed or by tag): {counts}." if counts else ""
    note = f'<p class="lead">Energies in meV, forces in meV/Å per component{unit}.{more}</p>'
    note = note if contents.has_energy else ""
    rows = list(zip(*columns.values(), strict=True))
    return note + table(list(columns), rows, numeric=range(1, len(columns))) if rows else ""


def errors_by(judged: Evaluated, group: str, title: str) -> str:
    """Return a card with the errors of each member of a group (element, config_type, head, component)."""
    shown = ("forces_rmse", "energy_rmse_per_atom")
    everything: dict[str, dict[str, Any]] = judged.metrics.get(group, {})
    groups = {n: v for n, v in everything.items() if any(v.get(key) is not None for key in shown)}
    if not groups:
        return ""
    key = "forces_rmse" if any(v.get("forces_rmse") is not None for v in groups.values()) else "energy_rmse_per_atom"
    largest = max(_value(v, key) for v in groups.values()) or 1.0
    with_energy = any("energy_rmse_per_atom" in v for v in groups.values())
    rows = []
    for name in sorted(groups, key=lambda n: -_value(groups[n], key)):
        v = groups[name]
        energy = [milli(v.get("energy_rmse_per_atom"))] if with_energy else []
        force = [milli(v.get("forces_mae")), milli(v.get("forces_rmse"))]
        rows.append([escape(name), *energy, *force, bar_cell(_value(v, key) / largest)])
    head = ["", *(["E RMSE"] if with_energy else []), "F MAE", "F RMSE", ""]
    return card(title, table(head, rows, numeric=range(1, len(head) - 1)))


def _value(values: dict[str, Any], key: str) -> float:
    value = values.get(key)
    return float(value) if value is not None else 0.0


def worst_structures(predictions: Predictions) -> str:
    """Return the structures with the largest errors: by force RMSE, or by energy without forces."""
    energy = 1000 * (predictions.energy - predictions.energy_label) / predictions.n_atoms
    ends, has_forces = predictions.ends, predictions.has_forces
    force, atom = np.full(len(ends), np.nan), [""] * len(ends)
    for k, end in enumerate(ends):
        part = slice(int(end - predictions.n_atoms[k]), int(end))
        if not has_forces[part].any():
            continue
        difference = np.where(has_forces[part, None], predictions.forces[part] - predictions.forces_label[part], 0.0)
        length = 1000 * np.linalg.norm(difference, axis=1)
        force[k] = 1000 * np.sqrt((difference[has_forces[part]] ** 2).mean())
        top = int(length.argmax())
        atom[k] = (
            f"{significant(float(length[top]), pad=True)} ({symbol(int(predictions.numbers[part][top]))}, atom {top})"
        )
    rank = force if np.isfinite(force).any() else np.abs(energy)
    order = [k for k in np.argsort(-np.nan_to_num(rank, nan=-1.0)) if np.isfinite(rank[k])][:WORST]
    rows = [
        [str(predictions.index[k]), escape(str(predictions.origin[k])), predictions.formula(k),
         str(predictions.n_atoms[k]), significant(float(force[k]), pad=True), atom[k] or "\N{EN DASH}",
         significant(float(energy[k]), pad=True)]
        for k in order
    ]  # fmt: skip
    head = [
        "index",
        "where it stands",
        "formula",
        "atoms",
        "F RMSE, meV/Å",
        "worst atom, meV/Å",
        "ΔE, meV/atom",
    ]
    return table(head, rows, numeric=(0, 3, 4, 5, 6)) if rows else ""


def data_facts(contents: Contents) -> str:
    """Return where the data come from, and the fingerprint of each set."""
    rows = []
    for name, part in (contents.record.get("data") or {}).items():
        count = f"{part.get('n_structures', 0):,} structures, {part.get('n_atoms', 0):,} atoms"
        elements = " ".join(symbol(int(z)) for z in part.get("elements", []))
        rows.append((name, f"{escape(str(part.get('path', '')))}<br>{count}; {elements}<br>"
                           f"sha256 <code>{escape(str(part.get('fingerprint', '')))}</code>"))  # fmt: skip
    split = contents.record.get("split")
    if split:
        sizes = ", ".join(f"{split[part]:,} {part}" for part in ("train", "val") if part in split)
        rows.append(
            (
                "split",
                f"{sizes}; {escape(split.get('how', ''))} <code>{escape(split.get('hash', ''))}</code>",
            )
        )
    statistics = contents.statistics
    for key, name, unit in (
        ("avg_num_neighbors", "neighbours per atom, mean", ""),
        ("force_rms", "force component, root mean square", "eV/Å"),
    ):
        if statistics.get(key) is not None:
            rows.append((f"{name} (training part)", f"{significant(statistics[key], 4)} {unit}"))
    return facts(rows) if rows else ""


def reference_energies(contents: Contents) -> str:
    """Return the free-atom energies that are subtracted, per head and element."""
    if not contents.has_energy:
        return ""
    heads = contents.manifest.get("reference_energies") or contents.statistics.get("reference_energies") or {}
    rows = []
    for head, values in heads.items():
        for z, energy in sorted(values.items(), key=lambda item: number(item[0])):
            row = [symbol(number(z)), f"{float(energy):.6f}".replace("-", "\N{MINUS SIGN}")]
            rows.append([escape(str(head)), *row] if len(heads) > 1 else row)
    if not rows:
        return ""
    head_row = ["element", "energy, eV"] if len(heads) == 1 else ["head", "element", "energy, eV"]
    source = contents.statistics.get("reference_source", "")
    note = f"Source: {escape(str(source))}." if source else ""
    return card("Reference energies (E0)", table(head_row, rows, numeric=(len(head_row) - 1,)), note)


def model_facts(contents: Contents) -> str:
    """Return architecture, size and settings of the model."""
    model = contents.record.get("model") or {}
    if not model:
        return ""
    rows = [
        ("architecture", escape(str(model.get("backend", "")))),
        ("parameters", f"{model.get('parameters', 0):,}"),
        ("elements", " ".join(symbol(int(z)) for z in model.get("elements", []))),
        ("heads", escape(", ".join(model.get("heads", [])))),
        ("cutoff", f"{significant(model.get('cutoff'), 4)} Å"),
    ]
    rows += [("not smooth", escape(str(model["jumps"])))] if "jumps" in model else []
    rows += [("corrects", escape(str(model["baseline"])))] if "baseline" in model else []
    rows += [
        (f"model.{name}", f"<code>{escape(_plain(value))}</code>") for name, value in model.get("settings", {}).items()
    ]
    return facts(rows)


def training_facts(contents: Contents) -> str:
    """Return the loss in full, the optimiser, and how training ended."""
    train, fit = contents.config.get("train") or {}, contents.record.get("fit") or {}
    if not train or not fit:
        return ""
    shown = [
        "epochs",
        "batch_size",
        "max_atoms",
        "max_edges",
        "optimizer",
        "lr",
        "weight_decay",
        "scheduler",
        "ema_decay",
        "max_grad_norm",
        "seed",
    ]
    rows = [
        ("loss", loss_text(train)),
        ("ended", escape(f"{fit.get('reason', '')}, after epoch {fit.get('epochs_done')}")),
    ]
    rows += [("compilation", escape(sentence)) for sentence in fit.get("compilation") or ()]
    start = contents.record.get("start")
    if start:
        rows.append(("started from", f"weights with sha256 <code>{escape(start['weights_sha256'])}</code>"))
    rows += [(f"train.{name}", f"<code>{escape(_plain(train[name]))}</code>") for name in shown if name in train]
    return facts(rows)


def loss_text(train: dict[str, Any]) -> str:
    """Return the training loss as one formula and what is to be known of it, as HTML."""
    try:
        settings = TrainSettings.model_validate(train)
    except ValidationError:  # written by another version
        return escape(", ".join(f"{key} {train[key]}" for key in train if "loss" in key or "weight" in key))
    terms = "<br>+ ".join(map(escape, terms_in_words(settings)))
    return "<br>".join([terms, *map(escape, notes_in_words(settings))])


def timing_facts(contents: Contents) -> str:
    """Return how long each stage took, how fast it went, and how much memory it needed."""
    seconds, memory = contents.record.get("seconds") or {}, contents.record.get("peak_memory") or {}
    rows = [(name.replace("_", " "), duration(value)) for name, value in seconds.items()]
    speed = contents.series("structures_per_second")
    if np.isfinite(speed).any():
        rows.append(("training speed, median", f"{significant(float(np.nanmedian(speed)))} structures per second"))
    rows += [(f"peak memory, {name}", f"{mib:,.0f} MiB") for name, mib in memory.items() if mib is not None]
    return facts(rows) if rows else ""


def environment_facts(contents: Contents) -> str:
    """Return versions, machine and threads."""
    return facts((name, escape(str(value))) for name, value in _pairs(contents.record.get("environment")))


def artifact_files(contents: Contents) -> str:
    """Return the exported files with sizes, and how well each agrees with the model."""
    certificate = contents.manifest.get("certificate", {}).get("agreement", {})
    names = {file["path"]: name for name, file in contents.manifest.get("files", {}).items()}
    rows, what, key, unit = [], "forces differ", "max_forces_error", " eV/Å"
    if not contents.has_energy:
        what, key, unit = "predictions differ", "max_further_error", ""
    for path in sorted(p for p in contents.artifacts.glob("*") if p.is_file()):
        found = certificate.get(names.get(path.name, ""), {}).get(key)
        agreement = "\N{EN DASH}" if found is None else f"{found:.0e}{unit}" if found else "nothing"
        rows.append([f"<code>{escape(path.name)}</code>", file_size(path.stat().st_size), agreement])
    return table(["file", "size", f"{what} from the model's by"], rows, numeric=(1, 2)) if rows else ""


def _gpa(stress: float | None) -> str:
    """Return a stress given in eV/Å^3 in GPa."""
    return significant(None if stress is None else stress / factor("stress", "GPa"), pad=True)


def _pairs(mapping: dict[str, Any] | None) -> Iterable[tuple[str, Any]]:
    return (mapping or {}).items()


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)
