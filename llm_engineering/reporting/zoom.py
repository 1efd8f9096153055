"""A curve to zoom into: the static chart, which stays without a script and on paper, and its points.

uPlot draws the points on screen, from the page itself (``templates/report/zoom.js``). It was taken
because it selects a range, scales and labels both axes anew and draws thousands of points at once, in
51 kB and without a dependency.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from markupsafe import Markup

from llm_engineering.reporting.charts import Series, finite_points, line_chart, thinned

_MOST_POINTS = 3_000
"""Of all series together, some 15 bytes each; of more, means of neighbours are shown."""
_FEWEST_POINTS = 3
"""Between two there is nothing to look at more closely."""


def zooming_figure(
    title: str,
    unit: str,
    series: Sequence[Series],
    *,
    width: int,
    height: int,
    label: str,
    from_zero: bool = False,
) -> Markup:
    """Draw series as a ``<figure>``; a page with one needs ``page_scripts(zooms=...)``.

    Args:
        title: As in ``line_chart``, as are those that are not named here.
        label: What screen readers call the figure.
    """
    chart = line_chart(title, unit, series, width=width, height=height, from_zero=from_zero)
    points = _points(title, unit, series, from_zero=from_zero)
    told = Markup(' data-zoom="{}"').format(points) if points else Markup("")
    return Markup('<figure tabindex="0" role="group" aria-label="{}"{}>{}</figure>').format(
        label, told, chart
    )


def zooms(*figures: Markup) -> bool:
    """Whether any of them has points to zoom into."""
    return any("<figure" in one and " data-zoom=" in one.split(">", 1)[0] for one in figures)


def _points(title: str, unit: str, series: Sequence[Series], *, from_zero: bool) -> str:
    """What the script draws, as JSON; empty where there is nothing to zoom into."""
    courses = [(one, finite_points(one.points)) for one in series]
    if max((len(points) for _, points in courses), default=0) < _FEWEST_POINTS:
        return ""
    most = _MOST_POINTS // len(courses)
    return json.dumps(
        {
            "title": title,
            "unit": unit,
            "zero": from_zero,
            "mean": max(math.ceil(len(points) / most) for _, points in courses),
            "series": [
                {
                    "label": one.label,
                    "style": one.style,
                    "x": [_short(x) for x, _ in shown],
                    "y": [_short(y) for _, y in shown],
                }
                for one, points in courses
                if (shown := thinned(points, most))
            ],
        },
        separators=(",", ":"),
        ensure_ascii=False,
    )


def _short(value: float) -> float:
    """Six significant digits, whole where it is whole."""
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() else short
