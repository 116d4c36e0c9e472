"""What fine-tuning started from: where every tensor and reference energy came from, and the errors before and after."""

from __future__ import annotations

from html import escape
from typing import Any

from forgefield.app.reports.contents import Contents
from forgefield.app.reports.markup import card, milli, side_by_side, table


def start_cards(contents: Contents) -> str:
    """Return the cards of a fine-tuned model; nothing for a model that began with random weights."""
    start = contents.record.get("start") or {}
    if "tensors" not in start:
        return ""
    lead = f'<p class="lead">{escape(str(start["kind"]).capitalize())}. {_words(start)}</p>'
    notes = "".join(f"<p>{escape(note)}</p>" for note in start["notes"])
    cards = (
        card("Weights", _tensors(start["tensors"]), "Numbers; every tensor of the file and of the model is counted."),
        card("Reference energies before and after", _references(start["references"])),
        _heads(contents, start),
        card("Old data", _replay(contents.record["replay"])) if contents.record.get("replay") else "",
    )
    inside = f"<details><summary>Tensor by tensor</summary>{_every_tensor(start['tensors'])}</details>"
    return lead + notes + side_by_side(*cards) + inside


def _words(start: dict[str, Any]) -> str:
    parts = [f"{z} begins as {' + '.join(row)}" for z, row in start["new_elements"].items()]
    parts += [f"head {name} begins as {source}" for name, source in start["new_heads"].items()]
    parts += [f"head {name} was left behind" for name in start["dropped_heads"]]
    return escape("; ".join(parts) or "Nothing was added") + "."


def _tensors(rows: list[dict[str, Any]]) -> str:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    cells = [
        [escape(name), str(len(part)), *(f"{sum(row[key] for row in part):,}" for key in ("loaded", "new", "left"))]
        for name, part in [*groups.items(), ("all", rows)]
    ]
    return table(["part", "tensors", "loaded", "new", "left"], cells, numeric=(1, 2, 3, 4))


def _every_tensor(rows: list[dict[str, Any]]) -> str:
    cells = [
        [
            f"<code>{escape(row['name'])}</code>",
            " x ".join(map(str, row["shape"])),
            *(f"{row[key]:,}" for key in ("loaded", "new", "left")),
            escape(row["note"]),
        ]
        for row in rows
    ]
    return table(["tensor", "shape", "loaded", "new", "left", "new from"], cells, numeric=(2, 3, 4))


def _references(rows: list[dict[str, Any]]) -> str:
    cells = [
        [
            escape(row["head"]),
            escape(row["element"]),
            "\N{EN DASH}" if row["before"] is None else f"{row['before']:,.4f}",
            f"{row['after']:,.4f}",
            escape(row["source"]),
        ]
        for row in rows
    ]
    return table(["head", "element", "before, eV", "after, eV", "source"], cells, numeric=(2, 3))


def _heads(contents: Contents, start: dict[str, Any]) -> str:
    """Return the validation errors of each head before training and of the model that is handed out."""
    after = next((one for one in contents.evaluated if one.name in ("val", "train")), None)
    if after is None:
        return ""
    rows = []
    for head, before in start["errors_before_by_head"].items():
        now = after.metrics.get("by_head", {}).get(head, {})
        keys = ("forces_rmse", "energy_rmse_per_atom")
        rows.append([escape(head), *(f"{milli(before.get(key))} → {milli(now.get(key))}" for key in keys)])
    head = ["head", "F RMSE, meV/Å", "E RMSE, meV/atom"]
    return card("Validation, before → after", table(head, rows, numeric=(1, 2)))


def _replay(found: dict[str, Any]) -> str:
    low, high = found["old_per_batch"] or (None, None)
    rows = [
        ["in an epoch", f"{found['old_per_epoch']} old, {found['new_per_epoch']} new ({100 * found['share']:.1f} %)"],
        ["to draw from", f"{found['old_in_all']} old structures"],
        *([] if low is None else [["in a batch", f"{low} to {high} of {found['batch_size']} are old"]]),
        ["weight in the loss", f"{found['weight']:g}"],
        ["validation", f"{found['val']} old structures"],
    ]
    return table(["old data", ""], rows)
