"""Charts as inline SVG; their colours are the page's, by class name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup

from llm_engineering.reporting.formats import number, scientific

Point = tuple[float, float]

_MOST_POINTS = 500
_READOUT = 5.0  # units of the view box that one is wide, at least
_LEFT, _RIGHT, _RIGHT_OF_MARKS, _BOTTOM = 56.0, 16.0, 44.0, 24.0  # margins of the plot
_MARKED = ("marks", "rings")


@dataclass(frozen=True)
class Series:
    """Points of one kind, drawn as a thin line, a bold line, or dots or rings with their values.

    ``run1`` and so on are lines of several runs, told apart by colour and by dashes.
    """

    label: str
    points: Sequence[Point]
    style: Literal["raw", "line", "marks", "rings", "run1", "run2", "run3", "run4", "run5", "run6"]


def line_chart(
    title: str,
    unit: str,
    series: Sequence[Series],
    *,
    width: int,
    height: int,
    x_label: str = "step",
    from_zero: bool = False,
) -> Markup:
    """Draw series over a common axis, as an ``<svg>`` element; read-outs need no script.

    Args:
        title: What is on the vertical axis.
        unit: Its unit; empty for a bare number.
        series: Points that are not finite are left out; of more than 500, means are drawn.
        width: In units of the view box, in which text is 11 high.
        height: Likewise.
        x_label: What is on the horizontal axis, counted in whole numbers.
        from_zero: Let the vertical axis include zero.
    """
    series = [Series(one.label, finite_points(one.points), one.style) for one in series]
    points = [point for one in series for point in one.points]
    series = [Series(one.label, thinned(one.points), one.style) for one in series]
    marked = any(one.style in _MARKED for one in series)
    top, bottom = (50.0 if len(series) > 1 else 30.0), height - _BOTTOM
    right = width - (_RIGHT_OF_MARKS if marked else _RIGHT)
    parts = _name(title, unit)
    if points:
        ys = [y for one in series for _, y in one.points] + [0.0] * from_zero
        y_ticks = ticks(*_spread(ys), 4, outward=True)
        x_low, x_high = _spread([x for x, _ in points])
        y_low, y_high = y_ticks[0], y_ticks[-1]

        def at(point: Point) -> Point:
            x = _LEFT + (point[0] - x_low) / (x_high - x_low) * (right - _LEFT)
            return x, bottom - (point[1] - y_low) / (y_high - y_low) * (bottom - top)

        x_ticks = ticks(x_low, x_high, width // 60, whole=True)
        parts += _scales(x_ticks, y_ticks, at, right, x_label)
        parts += _legend(series) if len(series) > 1 else []
        for one in series:
            parts += _drawing(one, at, top, right)
        parts += _readouts(series, at, x_label, (top, right, bottom))
    else:
        parts.append(_text(width / 2, height / 2, "nothing was logged", "tick", "middle"))
    return _chart(parts, width, height)


def histogram(
    title: str,
    unit: str,
    counts: Sequence[int],
    bin_width: int,
    *,
    width: int,
    height: int,
    x_label: str,
) -> Markup:
    """Draw how many there are of each size, as an ``<svg>`` element; read-outs need no script.

    Args:
        title: What is counted.
        unit: By what.
        counts: Of those from 1 to ``bin_width``, of those up to twice that, and so on.
        bin_width: In whole units of ``x_label``.
        width: In units of the view box, in which text is 11 high.
        height: Likewise.
        x_label: What is on the horizontal axis.
    """
    top, bottom, right = 30.0, height - _BOTTOM, width - _RIGHT
    y_ticks = ticks(0, max([*counts, 1]), 4, outward=True, whole=True)
    x_high = bin_width * len(counts) or 1

    def at(point: Point) -> Point:
        x = _LEFT + point[0] / x_high * (right - _LEFT)
        return x, bottom - point[1] / y_ticks[-1] * (bottom - top)

    parts = _name(title, unit)
    parts += _scales(ticks(0, x_high, width // 60, whole=True), y_ticks, at, right, x_label)
    for index, count in enumerate(counts):
        (x, y), end = at((index * bin_width, count)), at(((index + 1) * bin_width, 0))[0]
        bar = _element("rect", class_="bar", x=x + 0.5, y=y, width=end - x - 1, height=bottom - y)
        band = _element("rect", x=x, y=top, width=end - x, height=bottom - top)
        sizes = f"{index * bin_width + 1:,} to {(index + 1) * bin_width:,} {x_label}: {count:,}"
        text = _text(right, 12, sizes, "tick", "end")
        parts += [bar, _element("g", band + text, class_="readout")]
    return _chart(parts, width, height)


def moving_mean(points: Sequence[Point], window: int) -> list[Point]:
    """Centred mean of ``window`` points; of those there are, near either end."""
    half = window // 2
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    spans = [(max(0, i - half), min(len(points), i + half + 1)) for i in range(len(points))]
    return [
        (x, (sums[end] - sums[start]) / (end - start))
        for (x, _), (start, end) in zip(points, spans, strict=True)
    ]


def finite_points(points: Sequence[Point]) -> list[Point]:
    """Those of which neither coordinate is infinite or NaN."""
    return [point for point in points if all(map(math.isfinite, point))]


def thinned(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most ``most`` points: the means of equal runs of neighbours."""
    length = math.ceil(len(points) / most) or 1
    runs = [points[start : start + length] for start in range(0, len(points), length)]
    return [
        (math.fsum(x for x, _ in run) / len(run), math.fsum(y for _, y in run) / len(run))
        for run in runs
    ]


def ticks(
    low: float, high: float, most: int, *, outward: bool = False, whole: bool = False
) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, about ``most`` of them.

    With ``outward`` the first and the last enclose low and high; with ``whole`` all are whole.
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= rough * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first, last = low / step, high / step
    if outward:
        return [i * step for i in range(math.floor(first + 1e-9), math.ceil(last - 1e-9) + 1)]
    return [i * step for i in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Labels with as many decimals as the step between the ticks needs."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    if step < 9.9e-4:
        return [scientific(value) for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:z,.{decimals}f}".replace("-", "\u2212") for value in values]


def _spread(values: Sequence[float]) -> Point:
    """The range of the values, or one around them if they are the same."""
    low, high = min(values), max(values)
    if high - low > 1e-6 * max(abs(low), abs(high)):
        return low, high
    around = 0.1 * abs(low) or 1.0
    return low - around, high + around


def _chart(parts: Sequence[Markup], width: int, height: int) -> Markup:
    return _element(
        "svg", Markup("").join(parts), class_="chart", viewBox=f"0 0 {width} {height}", role="img"
    )


def _name(title: str, unit: str) -> list[Markup]:
    name = Markup("{} {}").format(title, _element("tspan", unit, class_="unit"))
    return [
        _element("title", f"{title}, {unit}" if unit else title),
        _text(0, 12, name, "name", "start"),
    ]


def _scales(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    at: Callable[[Point], Point],
    right: float,
    x_label: str,
) -> list[Markup]:
    """Both scales, and the lines across the plot; the lowest of ``y_ticks`` is its bottom."""
    parts = []
    for value, label in zip(y_ticks, tick_labels(y_ticks), strict=True):
        y = at((x_ticks[0], value))[1]
        parts.append(_line(_LEFT, y, right, y, "grid" if value > y_ticks[0] else "axis"))
        parts.append(_text(_LEFT - 8, y + 4, label, "tick", "end"))
    below = at((x_ticks[0], y_ticks[0]))[1] + 16
    for value, label in zip(x_ticks, tick_labels(x_ticks), strict=True):
        parts.append(_text(at((value, y_ticks[0]))[0], below, label, "tick", "middle"))
    parts.append(_text(_LEFT - 24, below, x_label, "tick", "end"))
    return parts


def _legend(series: Sequence[Series]) -> list[Markup]:
    parts, x = [], _LEFT
    for one in series:
        parts.append(_line(x, 31, x + 18, 31, one.style))
        if one.style in _MARKED:
            parts.append(_element("circle", class_=one.style, cx=x + 9, cy=31, r=4))
        parts.append(_text(x + 24, 35, one.label, "tick", "start"))
        x += 42 + 5.6 * len(one.label)
    return parts


def _drawing(one: Series, at: Callable[[Point], Point], top: float, right: float) -> list[Markup]:
    places = [at(point) for point in one.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    # Between a first and a last evaluation nobody measured a course.
    measured = one.style not in _MARKED or len(places) > 2
    parts = [_element("polyline", class_=one.style, points=path)] if measured else []
    if one.style not in _MARKED and len(places) > 1:
        return parts
    parts += [_element("circle", class_=one.style, cx=x, cy=y, r=4) for x, y in places]
    if one.style in _MARKED and places:
        lowest = min(one.points, key=lambda point: point[1])
        for point in dict.fromkeys([one.points[0], lowest, one.points[-1]]):
            x, y = at(point)
            beside = x > right - 20 or y - 22 < top
            place = (x + 9, y + 4) if beside else (x, y - 10)
            anchor = "start" if beside or x < _LEFT + 20 else "middle"
            parts.append(_text(*place, number(point[1]), "value", anchor))
    return parts


def _readouts(
    series: Sequence[Series],
    at: Callable[[Point], Point],
    x_label: str,
    edges: tuple[float, float, float],
) -> list[Markup]:
    """The values under the pointer, shown by the style sheet alone."""
    top, right, bottom = edges
    lines = [one for one in series if one.style not in _MARKED and one.points]
    lead = lines[0].points if lines else []
    told = [(one, dict(one.points)) for one in lines]
    chosen = range(0, len(lead), math.ceil(len(lead) * _READOUT / (right - _LEFT)) or 1)
    xs = [at(lead[index])[0] for index in chosen]
    borders = [_LEFT, *((one + two) / 2 for one, two in pairwise(xs)), right]
    parts = []
    for index, x, (start, end) in zip(chosen, xs, pairwise(borders), strict=bool(xs)):
        at_step = [
            (one.label, by_x[lead[index][0]]) for one, by_x in told if lead[index][0] in by_x
        ]
        values = ", ".join(f"{label} {number(value)}".strip() for label, value in at_step)
        band = _element("rect", x=start, y=top, width=end - start, height=bottom - top)
        text = _text(right, 12, f"{x_label} {lead[index][0]:,.0f}: {values}", "tick", "end")
        parts.append(
            _element("g", band + _line(x, top, x, bottom, "pointer") + text, class_="readout")
        )
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return _element("line", class_=style, x1=x1, y1=y1, x2=x2, y2=y2)


def _text(x: float, y: float, text: str, style: str, anchor: str) -> Markup:
    return _element("text", text, class_=style, x=x, y=y, text_anchor=anchor)


def _element(name: str, content: str = "", /, **attributes: str | float) -> Markup:
    """An element; ``content`` and attributes that are not Markup are escaped."""
    start = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"),
            f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value,
        )
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, start, content)
