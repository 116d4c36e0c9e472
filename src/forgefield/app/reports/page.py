"""report.html: one page that stands on its own, without network or other files."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path

from forgefield.app.reports import breakdown, charts, tables
from forgefield.app.reports.baseline import baseline_card
from forgefield.app.reports.contents import Contents, read_contents
from forgefield.app.reports.examined_data import doctor_table
from forgefield.app.reports.markup import (
    card,
    code,
    duration,
    figure,
    milli,
    section,
    side_by_side,
    significant,
)
from forgefield.app.reports.properties import property_cards
from forgefield.app.reports.reading import force_share, sentences
from forgefield.app.reports.start import start_cards
from forgefield.app.tasks.steps.further import names_in, unit_of
from forgefield.core.disk import write_atomic

VERBS = {
    "train": "Training",
    "finetune": "Fine-tuning",
    "resume": "Continued training",
    "evaluate": "Evaluation",
}


def write_report(run_dir: str | Path) -> Path:
    """Write report.html of a run and return its path.

    Reads only the plain files of the run folder, so that it can be repeated at any time.
    """
    contents = read_contents(run_dir)
    return write_atomic(contents.folder.report, render(contents))


def render(contents: Contents) -> str:
    """Return the page as text."""
    sections = [
        section(
            "learning",
            "Learning",
            side_by_side(*charts.learning_curves(contents)),
            side_by_side(*breakdown.errors_at_best(contents), columns=2),
        ),
        *_accuracy(contents),
        section("start", "What it started from", start_cards(contents)),
        section("use", "Use it", _use(contents)),
        section(
            "data", "Data", _cards(("Sets and split", tables.data_facts(contents)), tables.reference_energies(contents))
        ),
        section("doctor", "What the data check found", doctor_table(contents)),
        section(
            "model",
            "Model and training",
            _cards(("Model", tables.model_facts(contents)), ("Training", tables.training_facts(contents))),
        ),
        section("reproduce", "Reproduce", _reproduce(contents)),
        section(
            "machine",
            "Cost and machine",
            _cards(
                ("Time and memory", tables.timing_facts(contents)),
                ("Versions and machine", tables.environment_facts(contents)),
            ),
        ),
    ]
    name = escape(str(contents.record.get("name", contents.folder.root.name)))
    style = files("forgefield.app.reports").joinpath("report.css").read_text(encoding="utf-8")
    version = escape(str((contents.record.get("environment") or {}).get("forgefield", "")))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name} · ForgeField report</title><style>{style}</style></head><body><main>"
        f"{_header(contents, name)}{_summary(contents)}{_navigation([s for s in sections if s])}"
        f"{''.join(sections)}"
        f"<footer>Written by ForgeField {version}. Energies in eV, lengths in Å; "
        "stress is positive when tensile. "
        "RMSE: root mean square error; MAE: mean absolute error.</footer></main></body></html>\n"
    )


def _header(contents: Contents, name: str) -> str:
    record = contents.record
    verb = VERBS.get(str(record.get("task")), str(record.get("task", "")).capitalize())
    what = [
        verb,
        f"{str(record.get('backend', '')).upper()} {'potential' if contents.has_energy else 'model of properties'}",
        str(record.get("started", ""))[:16].replace("T", " "),
    ]
    state = record.get("status", "")
    warning = "" if state == "finished" else f'<p class="warning">This run is not complete: {escape(str(state))}.</p>'
    line = escape(" · ".join(part for part in what if part))
    title = f'<p class="brand">ForgeField report</p><h1>{name}</h1><p class="lead">{line}</p>'
    return f"<header>{title}{warning}</header>"


def _summary(contents: Contents) -> str:
    record, judged = contents.record, contents.judged
    figures = []
    if judged is not None:
        overall, share = judged.overall, force_share(judged.overall)
        if share is not None:
            figures.append(
                figure(
                    milli(overall["forces_rmse"]),
                    "meV/Å",
                    f"force RMSE, {_set_label(judged.name)}",
                    main=True,
                )
            )
            figures.append(figure(significant(100 * share, 2, pad=True), "%", "of the typical force"))
        if overall.get("energy_rmse_per_atom") is not None:
            figures.append(
                figure(
                    milli(overall["energy_rmse_per_atom"]),
                    "meV",
                    f"energy RMSE per atom, {_set_label(judged.name)}",
                )
            )
        figures += _property_figures(contents) if not contents.has_energy else []
    if (record.get("split") or {}).get("train"):
        figures.append(figure(f"{record['split']['train']:,}", "", "training structures"))
    if (record.get("model") or {}).get("parameters"):
        figures.append(figure(f"{record['model']['parameters']:,}", "", "model parameters"))
    if (record.get("seconds") or {}).get("total") is not None:
        figures.append(figure(duration(record["seconds"]["total"]), "", "in all"))
    text = "".join(f"<p>{sentence}</p>" for sentence in sentences(contents))
    reading = f'<div class="reading">{text}</div>' if text else ""
    return f'<div class="figures">{"".join(figures)}</div>{reading}'


def _property_figures(contents: Contents) -> list[str]:
    """Return the error of each target, or how well a class is told apart, of a model of properties."""
    judged, found = contents.judged, []
    assert judged is not None
    units, overall = judged.metrics.get("about", {}).get("units", {}), judged.overall
    for name in names_in(overall)[:3]:
        label = f"{escape(name)}, {_set_label(judged.name)}"
        auc = overall.get(f"{name}_auc")
        if overall.get(f"{name}_accuracy") is not None:
            found.append(figure(significant(100 * (overall[f"{name}_accuracy"] or 0), 3), "%", f"right in {label}"))
        if auc is not None:
            found.append(figure(significant(auc, 3), "", f"area under the curve, {label}"))
        if overall.get(f"{name}_accuracy") is None:
            found.append(figure(significant(overall[f"{name}_mae"]), unit_of(name, units), f"MAE of {label}"))
    return found


def _set_label(name: str) -> str:
    return escape("validation" if name == "val" else name)


def _navigation(sections: list[str]) -> str:
    """Return links to the sections that are there."""
    links = []
    for text in sections:
        name = text.split('id="', 1)[1].split('"', 1)[0]
        title = text.split("<h2>", 1)[1].split("</h2>", 1)[0]
        links.append(f'<a href="#{name}">{title}</a>')
    return f"<nav>{''.join(links)}</nav>"


def _accuracy(contents: Contents) -> list[str]:
    """Return the sections about errors, all of the set that the headline speaks of."""
    judged = contents.judged
    if judged is None:
        return []
    parts = [section("errors", "Errors", tables.errors_of_sets(contents), baseline_card(contents))]
    name = f"All charts and tables here are of <b>{escape(_set_label(judged.name))}</b>."
    if judged.predictions is not None:
        parity = charts.parity(judged.predictions)
        pictures = [*parity[:2], *charts.error_histograms(judged.predictions), *parity[2:], *property_cards(judged)]
        parts.append(
            section(
                "parity",
                "Prediction against reference",
                f'<p class="lead">{name}</p>',
                side_by_side(*pictures),
            )
        )
    groups = [
        tables.errors_by(judged, "by_element", "By element"),
        tables.errors_by(judged, "by_config_type", "By config_type"),
        tables.errors_by(judged, "by_head", "By head") if len(judged.metrics.get("by_head", {})) > 1 else "",
        tables.errors_by(judged, "by_component", "By force component"),
    ]
    note = '<p class="lead">Energies in meV per atom, forces in meV/Å.</p>' if contents.has_energy else ""
    parts.append(
        section("groups", "Where the errors are", note, side_by_side(*groups, columns=3)) if any(groups) else ""
    )
    if judged.predictions is not None:
        worst = tables.worst_structures(judged.predictions)
        hint = "Look at these first: mislabelled data and missing kinds of structures show up here."
        parts.append(section("worst", "Worst structures", f'<p class="lead">{hint}</p>', worst) if worst else "")
    return parts


def _cards(*parts: tuple[str, str] | str) -> str:
    """Return what is not empty side by side; a pair is a title and what to frame under it."""
    return side_by_side(*[part if isinstance(part, str) else card(*part) for part in parts if part and part[1]])


def _use(contents: Contents) -> str:
    files = tables.artifact_files(contents)
    if not files:
        return ""
    place = contents.artifacts.resolve()
    snippet = (
        "from ase.io import read\nfrom forgefield import ForgeField\n\n"
        'atoms = read("structure.xyz")\n'
        f'atoms.calc = ForgeField.load("{place}")\n'
        "print(atoms.get_potential_energy())   # eV\nprint(atoms.get_forces())             # eV/Å"
    )
    if not contents.has_energy:
        name = next((row["name"] for row in contents.manifest["predicts"]["targets"]), "NAME")
        asked = f'print(atoms.calc.get_property("{name}", atoms))'
        snippet = snippet[: snippet.index("print(")] + asked
    shell = f"forgefield infer --model {place} --data structures.xyz --out predictions"
    heads = (contents.record.get("model") or {}).get("heads") or []
    if len(heads) > 1:  # the model must be told which
        snippet = snippet.replace(f'load("{place}")', f'load("{place}", head="{heads[-1]}")')
        shell += f" --head {heads[-1]}"
    if (contents.record.get("baseline") or {}).get("method") == "labels":
        snippet = snippet.replace(f'load("{place}"', f'load("{place}", baseline=calculator_of_the_base_level')
    where = f"<p>The model stands in <code>{escape(str(place))}</code>; the folder can be copied anywhere.</p>"
    check = contents.record.get("ase_check")
    if check:
        largest = check.get("further", 0.0)
        said = f"all predictions within {largest:.0e} of the model's" if largest else "all predictions are the model's"
        if "forces" in check:
            energy, forces = f"{check['energy_per_atom']:.0e} eV per atom", f"{check['forces']:.0e} eV/Å"
            said = f"energy within {energy} of the model's, forces {forces}"
        where += f"<p>Checked in ASE on one structure: {said}.</p>"
    return (
        where + files + "<p>In Python, with ASE:</p>" + code(snippet) + "<p>Or on the command line:</p>" + code(shell)
    )


def _reproduce(contents: Contents) -> str:
    record = contents.record
    parts = []
    if record.get("reproduce"):
        parts.append("<p>The same run again, from its saved configuration:</p>" + code(str(record["reproduce"])))
    if record.get("command"):
        parts.append("<p>It was started with:</p>" + code(str(record["command"])))
    if contents.config_text:
        inside = code(contents.config_text)
        parts.append(f"<details><summary>The whole configuration (run.resolved.yaml)</summary>{inside}</details>")
    return "".join(parts)
