"""Source text of the edge product's kernels.

The paths of one feature degree are cut into groups whose outer products fit into registers. Each group has its own
kernels, unrolled with the coupling as constants: a program handles one receiver and one block of channels.
"""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import triton
import triton.language as tl

from forgefield.kernels.paths import coupling_of, coupling_paths, feature_offsets

MOST_ROWS = 96  # outer products held at once, in float32; half in float64
TINY = 1e-12


class Placed(NamedTuple):
    """A path with its places in the tensors."""

    feature: int
    first: int  # row of the feature
    harmonic: int
    message: int
    weight: int  # row of the radial weight
    place: int  # among the paths of the message degree
    row: int  # first outer product inside the group, (m2, m1) order


class Group(NamedTuple):
    """Paths of one feature degree that one kernel handles, by harmonic degree."""

    paths: tuple[Placed, ...]
    n_rows: int
    opens: bool  # the first group of its feature degree


class Form(NamedTuple):
    """What decides the kernels' source."""

    degrees: tuple[int, ...]
    max_degree: int
    most_rows: int

    @property
    def n_features(self) -> int:
        """Rows of the features."""
        return sum(2 * l + 1 for l in self.degrees)

    @property
    def n_harmonics(self) -> int:
        """Columns of the harmonics."""
        return (self.max_degree + 1) ** 2


@cache
def groups(form: Form) -> tuple[Group, ...]:
    """Cut the paths into groups of at most `form.most_rows` outer products (one path at least)."""
    first, paths = feature_offsets(form.degrees), coupling_paths(form.degrees, form.max_degree)
    seen = [0] * (form.max_degree + 1)
    placed = []
    for weight, p in enumerate(paths):
        placed.append(Placed(p.feature, first[p.feature], p.harmonic, p.message, weight, seen[p.message], 0))
        seen[p.message] += 1
    found: list[Group] = []
    for l1 in form.degrees:
        mine: list[Placed] = []
        rows, opens = 0, True
        for p in sorted((p for p in placed if p.feature == l1), key=lambda p: p.harmonic):
            size = (2 * l1 + 1) * (2 * p.harmonic + 1)
            if mine and rows + size > form.most_rows:
                found.append(Group(tuple(mine), rows, opens))
                mine, rows, opens = [], 0, False
            mine.append(p._replace(row=rows))
            rows += size
        if mine:
            found.append(Group(tuple(mine), rows, opens))
    return tuple(found)


def _terms(form: Form, p: Placed) -> list[tuple[int, int, float]]:
    """(outer product, component of the message, value) of a path's coupling."""
    tensor = coupling_of(form.degrees, form.max_degree)(p.feature, p.harmonic, p.message)
    width, found = 2 * p.feature + 1, []
    for m1, m2, m3 in zip(*abs(tensor).__gt__(TINY).nonzero(), strict=True):
        found.append((p.row + int(m2) * width + int(m1), int(m3), float(tensor[m1, m2, m3])))
    return found


def _sum(parts: Sequence[str]) -> str:
    return " + ".join(parts) if parts else "tl.zeros((SIZE,), dtype=w.dtype.element_ty)"


def _row_of(form: Form, p: Placed, m3: int) -> str:
    """Offset of a message row."""
    count = sum(q.message == p.message for q in coupling_paths(form.degrees, form.max_degree))
    return f"((n * {2 * p.message + 1} + {m3}) * {count} + {p.place}) * C + c"


def _head(form: Form, name: str, extra: str) -> list[str]:
    """Signature and what all kernels start with."""
    messages = ", ".join(f"g{l}" for l in range(form.max_degree + 1))
    return [
        f"def {name}(w, h, y, vw, vh, vy, sender, pair, sign, {messages}, {extra}C, K,",
        "    SIZE: tl.constexpr, SLOTS: tl.constexpr):",
        "    n = tl.program_id(0).to(tl.int64)",
        "    c = tl.program_id(1) * SIZE + tl.arange(0, SIZE)",
        "    inside = c < C",
        "    slots = tl.arange(0, SLOTS)",
        "    filled = tl.load(sign + n * K + slots, mask=slots < K, other=0.0) != 0.0",
        "    degree = tl.sum(filled.to(tl.int32), 0)",
    ]


def _edge(form: Form, group: Group, there: tuple[bool, bool, bool]) -> list[str]:
    """Loads of one edge's factors: harmonics y and features h, and their directions u and d."""
    lines = ["        p = tl.load(pair + n * K + k)", "        i = tl.load(sender + n * K + k)"]
    for l2 in sorted({p.harmonic for p in group.paths}):
        turned = " * s" if l2 % 2 else ""
        for q in range(l2 * l2, (l2 + 1) ** 2):
            lines.append(f"        y{q} = tl.load(y + p * {form.n_harmonics} + {q}){turned}")
            if there[2]:
                lines.append(f"        u{q} = tl.load(vy + p * {form.n_harmonics} + {q}){turned}")
    l1, first = group.paths[0].feature, group.paths[0].first
    for m in range(2 * l1 + 1):
        at = f"(i * {form.n_features} + {first + m}) * C + c, mask=inside, other=0.0"
        lines.append(f"        h{m} = tl.load(h + {at})")
        if there[1]:
            lines.append(f"        d{m} = tl.load(vh + {at})")
    return lines


def _weight(form: Form, p: Placed, direction: bool) -> list[str]:
    n_weights = len(coupling_paths(form.degrees, form.max_degree))
    at = f"(p * {n_weights} + {p.weight}) * C + c, mask=inside, other=0.0"
    lines = [f"        weight = tl.load(w + {at})"]
    return [*lines, f"        moved = tl.load(vw + {at})"] if direction else lines


def _change(m: int, there: tuple[bool, bool, bool]) -> str:
    """Derivative of weight x feature along the directions; empty if there is none."""
    parts = [f"moved * h{m}"] if there[0] else []
    return _sum([*parts, f"weight * d{m}"] if there[1] else parts) if there[0] or there[1] else ""


def value_source(form: Form, group: Group, there: tuple[bool, bool, bool] | None) -> str:
    """Messages; or, given which directions there are, their derivative along weights, features and harmonics."""
    lines = _head(form, "value", "")
    lines += [f"    z{r} = tl.zeros((SIZE,), dtype=w.dtype.element_ty)" for r in range(group.n_rows)]
    lines += ["    for k in range(degree):", "        s = tl.load(sign + n * K + k)"]
    given = there or (False, False, False)
    lines += _edge(form, group, given)
    for p in group.paths:
        lines += _weight(form, p, given[0])
        width = 2 * p.feature + 1
        for m1 in range(width):
            change = _change(m1, given)
            lines.append(f"        x = weight * h{m1}")
            lines += [f"        dx = {change}"] if change else []
            for m2 in range(2 * p.harmonic + 1):
                z, q = f"z{p.row + m2 * width + m1}", p.harmonic**2 + m2
                lines += [f"        {z} += y{q} * x"] if there is None else []
                lines += [f"        {z} += u{q} * x"] if given[2] else []
                lines += [f"        {z} += y{q} * dx"] if change else []
    for p in group.paths:
        terms = _terms(form, p)
        for m3 in range(2 * p.message + 1):
            text = _sum([f"{value!r} * z{r}" for r, m, value in terms if m == m3])
            lines.append(f"    tl.store(g{p.message} + {_row_of(form, p, m3)}, {text}, mask=inside)")
    return "\n".join(lines) + "\n"


def gradient_source(
    form: Form, group: Group, backwards: bool, there: tuple[bool, bool, bool] | None, wanted: tuple[bool, bool]
) -> str:
    """Gradients by weights, edges' features and harmonics over the edges of one sign; or their derivative.

    The negative edges come second: each pair has one edge of each sign, so the first store and the second add.
    """
    lines = _head(form, "gradient", "g_w, g_f, g_y, P, ")
    for p in group.paths:
        terms = _terms(form, p)
        for m3 in range(2 * p.message + 1):
            at = _row_of(form, p, m3)
            lines.append(f"    t{p.weight}_{m3} = tl.load(g{p.message} + {at}, mask=inside, other=0.0)")
        for r in range(p.row, p.row + (2 * p.feature + 1) * (2 * p.harmonic + 1)):
            text = _sum([f"{value!r} * t{p.weight}_{m3}" for row, m3, value in terms if row == r])
            lines.append(f"    z{r} = {text}")
    lines += ["    for k in range(degree):", "        s = tl.load(sign + n * K + k)"]
    lines.append(f"        if s {'<' if backwards else '>'} 0.0:")
    body = _edge(form, group, there or (False, False, False))
    for l2 in sorted({p.harmonic for p in group.paths}):
        for p in (p for p in group.paths if p.harmonic == l2):
            opening = p == next(q for q in group.paths if q.harmonic == l2)
            body += _gradient_path(form, p, backwards, there, wanted, opening, p == group.paths[0])
        if wanted[1] and (there is None or there[0] or there[1]):
            turned = " * s" if l2 % 2 else ""
            for q in range(l2 * l2, (l2 + 1) ** 2):
                to = f"g_y + (tl.program_id(1).to(tl.int64) * P + p) * {form.n_harmonics} + {q}"
                body.append(f"        tl.store({to}, tl.sum(b{q}, 0){turned})")
    if wanted[0]:
        body += _store_features(form, group, backwards)
    return "\n".join([*lines, *("    " + line for line in body)]) + "\n"


def _gradient_path(
    form: Form,
    p: Placed,
    backwards: bool,
    there: tuple[bool, bool, bool] | None,
    wanted: tuple[bool, bool],
    opening: bool,
    first: bool,
) -> list[str]:
    """One path of one edge: its weight's gradient stored, those by features (a) and harmonics (b) added up."""
    given = there or (False, False, False)
    lines, width = _weight(form, p, given[0]), 2 * p.feature + 1
    for m1 in range(width):
        rows = [(p.harmonic**2 + m2, p.row + m2 * width + m1) for m2 in range(2 * p.harmonic + 1)]
        change = f"weight * h{m1}" if there is None else _change(m1, given)
        lines.append("        from_y = " + _sum([f"y{q} * z{r}" for q, r in rows]))
        lines += ["        from_u = " + _sum([f"u{q} * z{r}" for q, r in rows])] if given[2] else []
        by_feature = ["from_y * weight"] if there is None else ["from_y * moved"] if given[0] else []
        by_feature += ["from_u * weight"] if given[2] else []
        if wanted[0]:
            lines.append(f"        a{m1} {'=' if first else '+='} {_sum(by_feature)}")
        if wanted[1] and change:
            lines.append(f"        x = {change}")
            lines += [f"        b{q} {'=' if opening and not m1 else '+='} x * z{r}" for q, r in rows]
        parts = [f"from_y * h{m1}"] if there is None else [f"from_y * d{m1}"] if given[1] else []
        parts += [f"from_u * h{m1}"] if given[2] else []
        lines.append(f"        own {'+=' if m1 else '='} {_sum(parts)}")
    to = f"g_w + (p * {len(coupling_paths(form.degrees, form.max_degree))} + {p.weight}) * C + c"
    lines += [f"        own += tl.load({to}, mask=inside, other=0.0)"] if backwards else []
    return [*lines, f"        tl.store({to}, own, mask=inside)"]


def _store_features(form: Form, group: Group, backwards: bool) -> list[str]:
    """The gradient by the sender's features goes to the edge's own place: (sign, pair)."""
    lines, first = [], group.paths[0].first
    for m in range(2 * group.paths[0].feature + 1):
        to = f"g_f + (({'P + ' if backwards else ''}p) * {form.n_features} + {first + m}) * C + c"
        lines += [] if group.opens else [f"        a{m} += tl.load({to}, mask=inside, other=0.0)"]
        lines.append(f"        tl.store({to}, a{m}, mask=inside)")
    return lines


@cache
def value_kernel(form: Form, index: int, there: tuple[bool, bool, bool] | None) -> Any:
    """Kernel of `value_source` for one group."""
    return _compiled(value_source(form, groups(form)[index], there), "value", (form, index, there))


@cache
def gradient_kernel(
    form: Form, index: int, backwards: bool, there: tuple[bool, bool, bool] | None, wanted: tuple[bool, bool]
) -> Any:
    """Kernel of `gradient_source` for one group."""
    source = gradient_source(form, groups(form)[index], backwards, there, wanted)
    return _compiled(source, "gradient", (form, index, backwards, there, wanted))


def _compiled(source: str, name: str, key: tuple) -> Any:
    """Make a kernel of text; Triton reads it back through `linecache`."""
    file = f"<forgefield {name} {tuple(key[0])} {key[1:]}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space: dict[str, Any] = {"tl": tl, "__name__": f"forgefield.kernels.triton.{name}"}
    exec(compile(source, file, "exec"), space)
    return triton.jit(space[name])
