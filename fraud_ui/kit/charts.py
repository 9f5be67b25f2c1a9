"""Charts as SVG in a page: small, sharp at every size, in the page's own colours, and with words for who cannot see them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fraud_core.evaluation.calibration import LEAST, MOST
from fraud_core.evaluation.report import Point
from fraud_core.models.manifest import Thresholds
from fraud_ui.kit.wording import escaped, percent, threshold

LOG_ODDS_TICKS = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)


def log_odds(probability: float) -> float:
    """The log-odds of a probability, held within the axis."""
    held = min(max(probability, LEAST), MOST)
    return math.log(held / (1 - held))


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: what it measures, with its unit.
        low, high: its ends, as values.
        ticks: values that are marked.
        shown: value -> the tick's text.
        warp: value -> place; the identity, a logarithm or log-odds.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    shown: Callable[[float], str] = lambda value: f"{value:,g}"
    warp: Callable[[float], float] = float

    def place(self, value: float) -> float:
        """Where the value lies, from 0 to 1; what lies beyond an end, at the end."""
        low, high = self.warp(self.low), self.warp(self.high)
        return min(max((self.warp(value) - low) / ((high - low) or 1.0), 0.0), 1.0)


def linear(label: str, low: float, high: float, shown: Callable[[float], str] | None = None, ticks: int = 5) -> Axis:
    """An even axis with round ticks."""
    step = _round_step((high - low) / ticks) if high > low else 1.0
    first = math.ceil(low / step - 1e-9)
    places = [at * step for at in range(first, math.floor(high / step + 1e-9) + 1)]
    return Axis(label, low, high, places, shown or (lambda value: f"{value:,.10g}"))


def probability_axis(label: str) -> Axis:
    """Probabilities by their log-odds, where rare things have room."""
    return Axis(label, LEAST, MOST, LOG_ODDS_TICKS, lambda p: f"{100 * p:g} %", log_odds)


@dataclass(frozen=True)
class Line:
    """One line. `style` is a class of the style sheet; `bars` are intervals (x, low, high)."""

    name: str
    points: Sequence[Point]
    style: str = "first"
    dots: bool = False
    bars: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Chart:
    """A chart of lines. `across` and `upright` are straight marks (value, name, style); `here` are points that stand out."""

    title: str
    summary: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    across: Sequence[tuple[float, str, str]] = ()
    upright: Sequence[tuple[float, str, str]] = ()
    here: Sequence[tuple[Point, str]] = ()
    width: int = 560
    height: int = 300
    legend: bool = True
    margins: tuple[int, int, int, int] = field(default=(34, 26, 46, 62))  # top, right, bottom, left

    def svg(self) -> str:
        """The picture."""
        parts = [self._frame(), *map(self._line, self.lines)]
        parts += [self._straight(value, style, across=True) for value, _, style in self.across]
        parts += [self._straight(value, style, across=False) for value, _, style in self.upright]
        for (x, y), name in self.here:
            spot = f'cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="6"'
            parts.append(f'<circle class="here" {spot}><title>{escaped(name)}</title></circle>')
        named = [(line.name, line.style) for line in self.lines] + [(n, s) for _, n, s in (*self.across, *self.upright)]
        return _figure(self.title, self.summary, self.width, self.height, "".join(parts), named if self.legend else [])

    def _x(self, value: float) -> float:
        _, right, _, left = self.margins
        return left + self.x.place(value) * (self.width - left - right)

    def _y(self, value: float) -> float:
        top, _, bottom, _ = self.margins
        return top + (1 - self.y.place(value)) * (self.height - top - bottom)

    def _frame(self) -> str:
        top, right, bottom, left = self.margins
        floor, wall = self.height - bottom, self.width - right
        parts = [_words(left, 16, self.title, "title", "start")]
        for value in self.y.ticks:
            y = self._y(value)
            parts.append(f'<line class="grid" x1="{left}" x2="{wall}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(_words(left - 6, y + 4, self.y.shown(value), anchor="end"))
        for value in self.x.ticks:
            x = self._x(value)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{floor}"/>')
            parts.append(_words(x, floor + 16, self.x.shown(value)))
        parts.append(_words((left + wall) / 2, self.height - 8, self.x.label, "axis"))
        return "".join([*parts, _upwards((top + floor) / 2, self.y.label)])

    def _line(self, line: Line) -> str:
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in line.points)
        parts = [f'<polyline class="line {line.style}" points="{path}"/>']
        for x, low, high in line.bars:
            parts.append(
                f'<line class="line thin {line.style}" x1="{self._x(x):.1f}" x2="{self._x(x):.1f}" '
                f'y1="{self._y(low):.1f}" y2="{self._y(high):.1f}"/>'
            )
        if line.dots:
            spots = [f'cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="3"' for x, y in line.points]
            parts += [f'<circle class="dot {line.style}" {spot}/>' for spot in spots]
        return "".join(parts)

    def _straight(self, value: float, style: str, *, across: bool) -> str:
        top, right, bottom, left = self.margins
        if across:
            y = self._y(value)
            return f'<line class="mark {style}" x1="{left}" x2="{self.width - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        x = self._x(value)
        return f'<line class="mark {style}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{self.height - bottom}"/>'


def gauge(probability: float, thresholds: Thresholds) -> str:
    """A probability on a scale of log-odds, with the zones of the three decisions."""
    width, height, left, right, top = 720, 118, 24, 24, 46
    axis = probability_axis("")

    def at(value: float) -> float:
        return left + axis.place(value) * (width - left - right)

    borders = [LEAST, thresholds.review, min(thresholds.decline, MOST), MOST]
    parts = []
    for name, low, high in zip(("approve", "review", "decline"), borders[:-1], borders[1:], strict=True):
        if at(high) > at(low):
            parts.append(f'<rect class="zone {name}" x="{at(low):.1f}" y="{top}" width="{at(high) - at(low):.1f}" height="22"/>')
    for value in LOG_ODDS_TICKS:
        parts.append(_words(at(value), top + 40, axis.shown(value)))
    near = abs(at(thresholds.review) - at(thresholds.decline)) < 200
    for value, name, lift in ((thresholds.review, "review", 0), (thresholds.decline, "decline", 18 if near else 0)):
        if value <= 1:
            x = at(value)
            anchor = "end" if x > width - 140 else "start" if x < 140 else "middle"
            parts.append(f'<line class="border" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6 - lift}" y2="{top + 28}"/>')
            parts.append(_words(x, top - 10 - lift, f"{name} from {threshold(value)}", anchor=anchor))
    x = at(probability)
    parts.append(f'<path class="needle" d="M{x:.1f},{top + 22} l-8,16 h16 z"/>')
    parts.append(f'<line class="needle" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + 22}"/>')
    end = "end" if x > width - 120 else "start" if x < 120 else "middle"
    parts.append(_words(x, top + 60, f"this payment: {percent(probability)}", "axis strong", end))
    summary = (
        f"Fraud probability {percent(probability)}. Review from {threshold(thresholds.review)}, "
        f"decline from {threshold(thresholds.decline)}."
    )
    return _figure("Fraud probability on a scale of log-odds", summary, width, height, "".join(parts), [])


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: from `low` to `high`, so many rows, in a decision's colour."""

    low: float
    high: float
    rows: int
    style: str


def histogram(title: str, bars: Sequence[Bar], label: str) -> str:
    """How many rows lie where between probabilities; heights by the logarithm, so that one row is seen beside a million."""
    width, height, left, right, top, bottom = 720, 240, 62, 26, 34, 46
    most = max((bar.rows for bar in bars), default=1)
    x_axis = probability_axis(label)
    ticks = [10**power for power in range(math.ceil(math.log10(most + 1)) + 1)]
    top_value = max(ticks[-1], most)

    def x(value: float) -> float:
        return left + x_axis.place(value) * (width - left - right)

    def y(rows: float) -> float:
        share = 0.06 + 0.94 * math.log10(rows) / math.log10(top_value) if rows >= 1 and top_value > 1 else 0.0
        return height - bottom - share * (height - top - bottom)

    parts = [_words(left, 16, title, "title", "start")]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(_words(left - 6, y(tick) + 4, f"{tick:,}", anchor="end"))
    for bar in bars:
        if bar.rows:
            parts.append(
                f'<rect class="zone {bar.style}" x="{x(bar.low) + 0.5:.1f}" y="{y(bar.rows):.1f}" '
                f'width="{max(x(bar.high) - x(bar.low) - 1, 1):.1f}" height="{height - bottom - y(bar.rows):.1f}">'
                f"<title>{bar.rows:,} from {percent(bar.low)} to {percent(bar.high)}</title></rect>"
            )
    for value in LOG_ODDS_TICKS:
        parts.append(_words(x(value), height - bottom + 16, x_axis.shown(value)))
    parts.append(_words((left + width - right) / 2, height - 8, label, "axis"))
    parts.append(_upwards((top + height - bottom) / 2, "payments"))
    named = [(name.capitalize(), f"zone {name}") for name in ("approve", "review", "decline")]
    rows = sum(bar.rows for bar in bars)
    return _figure(title, f"Histogram of {rows:,} payments by fraud probability.", width, height, "".join(parts), named)


def sketch(east: float, north: float, label: str) -> str:
    """Where a merchant lies from home: a plane with north up and rings of distance. Offsets are in metres."""
    size, centre = 260, 130
    distance = math.hypot(east, north)
    ring = _round_step(max(distance, 500.0) / 2)
    scale = 105 / max(distance, ring * 2.1, 1.0)
    parts = [f'<circle class="ring" cx="{centre}" cy="{centre}" r="{ring * times * scale:.1f}"/>' for times in (1, 2)]
    shown = f"{ring / 1_000:,g} km" if ring >= 1_000 else f"{ring:,g} m"
    parts.append(_words(centre + 4, centre - ring * scale - 4, shown, anchor="start"))
    x, y = centre + east * scale, centre - north * scale
    parts.append(f'<line class="line first" x1="{centre}" y1="{centre}" x2="{x:.1f}" y2="{y:.1f}"/>')
    parts.append(f'<rect class="home" x="{centre - 6}" y="{centre - 6}" width="12" height="12"/>')
    parts.append(f'<circle class="here" cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
    parts.append(_words(centre, size - 4, "square: home, dot: merchant, north is up"))
    return _figure("Home and merchant", label, size, size, "".join(parts), [])


def _words(x: float, y: float, text: str, kind: str = "tick", anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'


def _upwards(y: float, text: str) -> str:
    """The label of an upright axis."""
    return f'<text class="axis" transform="translate(14 {y:.0f}) rotate(-90)" text-anchor="middle">{escaped(text)}</text>'


def _figure(title: str, summary: str, width: int, height: int, inside: str, named: Sequence[tuple[str, str]]) -> str:
    keys = "".join(f'<li><span class="key {style}" aria-hidden="true"></span>{escaped(name)}</li>' for name, style in named)
    legend = f'<ul class="legend">{keys}</ul>' if keys else ""
    return (
        f'<figure class="chart" style="max-width:{width}px"><svg role="img" aria-label="{escaped(title)}. {escaped(summary)}" '
        f'viewBox="0 0 {width} {height}">{inside}</svg>{legend}</figure>'
    )


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-12)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
