"""Small charts as inline SVG: axes, lines, dots, density cells and bars, coloured by the page's style."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape

import numpy as np

WIDTH, HEIGHT = 560, 380
LEFT, RIGHT, TOP, BOTTOM = 68, 16, 18, 50
SHADES = 6


@dataclass(frozen=True)
class Axis:
    """One axis: its label, its range in data units, whether it is logarithmic or of whole numbers."""

    label: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def fraction(self, values: np.ndarray | float) -> np.ndarray:
        """Return where `values` lie between the ends, 0 to 1."""
        values = np.asarray(values, dtype=np.float64)
        if self.log:
            values = np.log10(np.maximum(values, self.low * 1e-6))
            return (values - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (values - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return round values inside the range."""
        if self.log:
            return log_ticks(self.low, self.high)
        return linear_ticks(self.low, self.high, smallest=1.0 if self.whole else 0.0)


def axis_over(label: str, values: np.ndarray, *, log: bool = False, margin: float = 0.05) -> Axis:
    """Return an axis that spans the finite `values` with a margin on both sides."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values) & ((values > 0) if log else True)]
    if values.size == 0:
        return Axis(label, 0.1, 1.0, log)
    low, high = float(values.min()), float(values.max())
    if log:
        spread = max(math.log10(high / low), 0.3)
        return Axis(label, low * 10 ** (-margin * spread), high * 10 ** (margin * spread), log=True)
    spread = (high - low) or max(abs(high), 1.0) * 0.1
    return Axis(label, low - margin * spread, high + margin * spread)


def linear_ticks(low: float, high: float, count: int = 5, smallest: float = 0.0) -> list[float]:
    """Return about `count` multiples of 1, 2, 2.5 or 5 powers of ten, at least `smallest` apart."""
    raw = max((high - low) / count, smallest)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten, with more and more numbers between them the shorter the range; at least two."""
    decades = math.log10(high / low)
    steps = (1,) if decades > 3 else (1, 2, 5) if decades > 1.2 else (1, 2, 3, 5, 7) if decades > 0.7 else range(1, 10)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]
    return found if len(found) > 1 else linear_ticks(low, high)


def number_text(value: float) -> str:
    """Return a tick label: short, plain where possible."""
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


@dataclass
class Chart:
    """A chart being drawn. Methods add marks in order; `svg` returns the finished picture.

    Args:
        x: horizontal axis.
        y: vertical axis.
        title: read out by screen readers.
    """

    x: Axis
    y: Axis
    title: str
    height: int = HEIGHT
    marks: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    def at(self, x: np.ndarray | float, y: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return pixel coordinates of data points."""
        across = LEFT + self.x.fraction(x) * (WIDTH - LEFT - RIGHT)
        down = TOP + (1.0 - self.y.fraction(y)) * (self.height - TOP - BOTTOM)
        return across, down

    def line(self, x: np.ndarray, y: np.ndarray, style: str, name: str = "") -> None:
        """Add a line through the finite points."""
        keep = np.isfinite(x) & np.isfinite(y) & ((np.asarray(y) > 0) if self.y.log else True)
        across, down = self.at(np.asarray(x)[keep], np.asarray(y)[keep])
        if across.size == 1:
            self.marks.append(f'<circle class="dot {style}" cx="{across[0]:.1f}" cy="{down[0]:.1f}" r="3"/>')
        elif across.size:
            points = " ".join(f"{a:.1f},{d:.1f}" for a, d in zip(across, down, strict=True))
            self.marks.append(f'<polyline class="line {style}" points="{points}"/>')
        if name:
            self.legend.append((style, name))

    def dots(self, x: np.ndarray, y: np.ndarray, style: str, hints: list[str] | None = None) -> None:
        """Add a dot for every point; `hints` show when the pointer rests on one."""
        across, down = self.at(x, y)
        for k, (a, d) in enumerate(zip(across, down, strict=True)):
            hint = f"<title>{escape(hints[k])}</title>" if hints else ""
            circle = f'<circle class="dot {style}" cx="{a:.1f}" cy="{d:.1f}" r="2.6"'
            self.marks.append(f"{circle}>{hint}</circle>" if hint else f"{circle}/>")

    def crossed(
        self, x: float, y: float, x_spread: float | None, y_spread: float | None, style: str, hint: str
    ) -> None:
        """Add a dot with error bars; what they span below zero of a logarithmic axis is cut off at its end."""
        (across, low, high), (down, lowest, highest) = self.at(
            np.array([x, x - (x_spread or 0.0), x + (x_spread or 0.0)]),
            np.array([y, y - (y_spread or 0.0), y + (y_spread or 0.0)]),
        )
        for spread, ends in ((x_spread, (low, down, high, down)), (y_spread, (across, lowest, across, highest))):
            if spread:
                x1, x2 = np.clip(ends[0::2], LEFT, WIDTH - RIGHT)
                y1, y2 = np.clip(ends[1::2], TOP, self.height - BOTTOM)
                self.marks.append(
                    f'<line class="line {style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
                )
        circle = f'<circle class="dot {style}" cx="{across:.1f}" cy="{down:.1f}" r="5">'
        self.marks.append(f"{circle}<title>{escape(hint)}</title></circle>")

    def density(self, x: np.ndarray, y: np.ndarray, bins: int = 96) -> None:
        """Add many points as cells shaded by the logarithm of how many fall into each."""
        ranges = ((self.x.low, self.x.high), (self.y.low, self.y.high))
        counts, x_edges, y_edges = np.histogram2d(x, y, bins=bins, range=ranges)
        top = math.log1p(counts.max()) or 1.0
        shade = np.minimum(np.ceil(np.log1p(counts) / top * SHADES), SHADES).astype(int)
        for row in range(bins):
            for first, last, level in _runs(shade[:, row]):
                left, bottom = self.at(x_edges[first], y_edges[row])
                right, upper = self.at(x_edges[last], y_edges[row + 1])
                self.marks.append(
                    f'<rect class="cell d{level}" x="{left:.1f}" y="{upper:.1f}" '
                    f'width="{right - left + 0.3:.1f}" height="{bottom - upper + 0.3:.1f}"/>'
                )

    def bars(self, edges: np.ndarray, heights: np.ndarray, style: str) -> None:
        """Add a histogram."""
        for k, height in enumerate(heights):
            if height <= 0:
                continue
            left, upper = self.at(edges[k], height)
            right, bottom = self.at(edges[k + 1], self.y.low)
            self.marks.append(
                f'<rect class="bar {style}" x="{left + 0.5:.1f}" y="{upper:.1f}" '
                f'width="{max(right - left - 1, 0.5):.1f}" height="{max(bottom - upper, 0):.1f}"/>'
            )

    def diagonal(self) -> None:
        """Add the line on which prediction equals reference."""
        low, high = max(self.x.low, self.y.low), min(self.x.high, self.y.high)
        (x1, x2), (y1, y2) = self.at(np.array([low, high]), np.array([low, high]))
        self.marks.append(f'<line class="guide" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def upright(self, x: float, text: str) -> None:
        """Add a vertical guide with a word above it."""
        across, top = self.at(x, self.y.high)
        _, bottom = self.at(x, self.y.low)
        side = "end" if self.x.fraction(x) > 0.9 else "middle"
        self.marks.append(
            f'<line class="guide" x1="{across:.1f}" y1="{top:.1f}" x2="{across:.1f}" y2="{bottom:.1f}"/>'
            + _text("tick", float(across), float(top) - 4, side, text)
        )

    def svg(self) -> str:
        """Return the chart as an SVG element that scales with its container."""
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(self.title)}">',
            *self._frame(),
            *self.marks,
            "</svg>",
        ]
        return "".join(parts)

    def key(self) -> str:
        """Return the legend as HTML, for the heading of the chart."""
        names = [f'<span><i class="{style}"></i>{escape(name)}</span>' for style, name in self.legend]
        return f'<span class="key">{"".join(names)}</span>' if names else ""

    def _frame(self) -> list[str]:
        """Return grid lines, tick labels and axis titles."""
        bottom, right = self.height - BOTTOM, WIDTH - RIGHT
        parts = []
        for tick in self.x.ticks():
            across, _ = self.at(tick, self.y.low)
            parts.append(f'<line class="grid" x1="{across:.1f}" y1="{TOP}" x2="{across:.1f}" y2="{bottom}"/>')
            parts.append(_text("tick", across, bottom + 17, "middle", number_text(tick)))
        for tick in self.y.ticks():
            _, down = self.at(self.x.low, tick)
            parts.append(f'<line class="grid" x1="{LEFT}" y1="{down:.1f}" x2="{right}" y2="{down:.1f}"/>')
            parts.append(_text("tick", LEFT - 7, down + 4, "end", number_text(tick)))
        middle = (TOP + bottom) / 2
        parts.append(
            _text("label", (LEFT + right) / 2, self.height - 10, "middle", self.x.label)
            + f'<text class="label" transform="translate(15 {middle:.0f}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y.label)}</text>"
        )
        return parts


def _text(style: str, x: float, y: float, anchor: str, content: str) -> str:
    """Return words at a place."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def _runs(levels: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (first, one past last, level) of each stretch of equal levels above zero."""
    borders = np.flatnonzero(np.diff(levels)) + 1
    starts = np.concatenate([[0], borders]).astype(int)
    ends = np.concatenate([borders, [len(levels)]]).astype(int)
    return [(int(a), int(b), int(levels[a])) for a, b in zip(starts, ends, strict=True) if levels[a] > 0]
