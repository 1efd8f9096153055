from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from llm_engineering.reporting.charts import (
    Point,
    Series,
    histogram,
    line_chart,
    moving_mean,
    thinned,
    tick_labels,
    ticks,
)

WIDTH, HEIGHT = 720, 300


def chart(points: list[Point], *, from_zero: bool = False) -> Markup:
    series = [
        Series("training", points, "raw"),
        Series("mean", points, "line"),
        Series("held-out", points[::7], "marks"),
    ]
    return line_chart(
        "Loss", "nats per token", series, width=WIDTH, height=HEIGHT, from_zero=from_zero
    )


def places(svg: Markup) -> list[Point]:
    """Every coordinate that the chart draws at."""
    found: list[Point] = []
    for element in ElementTree.fromstring(svg).iter():
        for x, y in (("x", "y"), ("cx", "cy"), ("x1", "y1"), ("x2", "y2")):
            if x in element.attrib:
                found.append((float(element.attrib[x]), float(element.attrib[y])))
        if element.tag == "rect":
            assert float(element.attrib["width"]) > 0
            found.append(
                (
                    float(element.attrib["x"]) + float(element.attrib["width"]),
                    float(element.attrib["y"]) + float(element.attrib["height"]),
                )
            )
        for pair in element.attrib.get("points", "").split():
            x_text, y_text = pair.split(",")
            found.append((float(x_text), float(y_text)))
    return found


def polyline(svg: Markup, style: str) -> list[Point]:
    element = ElementTree.fromstring(svg).find(f"polyline[@class='{style}']")
    assert element is not None
    pairs = (pair.split(",") for pair in element.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


@pytest.mark.parametrize("from_zero", [False, True])
@pytest.mark.parametrize(
    "points",
    [
        pytest.param([], id="none"),
        pytest.param([(1.0, 3.5)], id="one"),
        pytest.param([(5.0, 0.0)], id="one zero"),
        pytest.param([(float(i), 2.0) for i in range(9)], id="constant"),
        pytest.param([(float(i), 2.0 + i * 1e-12) for i in range(9)], id="nearly constant"),
        pytest.param([(float(i), -2.0 * i) for i in range(9)], id="negative"),
        pytest.param([(float(i), 1e-5 * i) for i in range(9)], id="tiny"),
        pytest.param([(float(i), 1e9 * math.exp(i)) for i in range(9)], id="huge"),
        pytest.param([(3.0, 1.0), (3.0, 2.0)], id="same step"),
        pytest.param([(float(i), math.sin(i)) for i in range(7000)], id="thousands"),
        pytest.param([(0.0, math.nan), (1.0, math.inf), (2.0, 1.0)], id="not finite"),
    ],
)
def test_everything_is_drawn_inside_the_view_box(points: list[Point], from_zero: bool) -> None:
    for x, y in places(chart(points, from_zero=from_zero)):
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


def test_higher_values_are_drawn_higher_and_later_steps_further_right() -> None:
    (x1, y1), (x2, y2), (x3, y3) = polyline(chart([(0.0, 1.0), (1.0, 3.0), (4.0, 2.0)]), "raw")
    assert (x3 - x1) == pytest.approx(4 * (x2 - x1), abs=0.3)
    assert y2 < y3 < y1
    assert y1 - y3 == pytest.approx((y1 - y2) / 2, abs=0.2)


def test_a_single_point_is_visible() -> None:
    svg = line_chart("Loss", "", [Series("", [(1.0, 2.0)], "line")], width=350, height=190)
    assert ElementTree.fromstring(svg).find("circle[@class='line']") is not None


def test_no_points_are_said_to_be_none() -> None:
    svg = line_chart("Loss", "nats", [Series("", [], "line")], width=350, height=190)
    assert "nothing was logged" in svg


def test_title_unit_legend_and_marked_values_are_readable() -> None:
    svg = chart([(float(i), 3.5 - i / 20) for i in range(15)])
    assert ElementTree.fromstring(svg).findtext("title") == "Loss, nats per token"
    texts = ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter("text")]
    assert {"Loss nats per token", "training", "mean", "held-out", "step"} <= set(texts)
    assert {"3.50", "2.80"} <= set(texts)  # the first and the last (and lowest) mark
    assert "step 1: training 3.45, mean 3.45" in texts


def test_text_never_becomes_markup() -> None:
    name = '</text><script>alert(1)</script>"><img src=x>'
    svg = line_chart(name, name, [Series(name, [(0.0, 1.0)], "raw")] * 2, width=350, height=190)
    assert {element.tag for element in ElementTree.fromstring(svg).iter()} <= {
        *("svg", "title", "text", "tspan", "line", "polyline", "circle", "g", "rect")
    }


def test_thousands_of_points_are_drawn_as_at_most_500_means() -> None:
    points = [(float(i), float(i % 2)) for i in range(4000)]
    drawn = polyline(chart(points), "raw")
    assert 400 <= len(drawn) <= 500
    assert len({y for _, y in drawn}) == 1  # zeros and ones average to a half everywhere
    assert len(chart(points)) < 100_000


def test_thinned_keeps_few_points_as_they_are_and_the_mean_of_many() -> None:
    few = [(1.0, 2.0), (2.0, 4.0)]
    assert thinned(few) == few
    assert thinned([(0.0, 1.0), (1.0, 3.0), (2.0, 8.0)], most=2) == [(0.5, 2.0), (2.0, 8.0)]
    assert thinned([]) == []


def test_moving_mean_is_centred_and_shorter_at_the_ends() -> None:
    points = [(0.0, 0.0), (1.0, 3.0), (2.0, 6.0), (3.0, 0.0)]
    assert moving_mean(points, 3) == [(0.0, 1.5), (1.0, 3.0), (2.0, 3.0), (3.0, 3.0)]


@pytest.mark.parametrize(
    ("low", "high", "outward", "labels"),
    [
        (2.37, 3.84, True, ["2.0", "2.5", "3.0", "3.5", "4.0"]),
        (0.0, 2e-4, True, ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]),
        (0.0, 118_000, True, ["0", "50,000", "100,000", "150,000"]),
        (-1.0, 1.0, True, ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
        (1.0, 40.0, False, ["10", "20", "30", "40"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, outward: bool, labels: list[str]) -> None:
    assert tick_labels(ticks(low, high, 4 if outward else 5, outward=outward)) == labels


def test_steps_are_counted_in_whole_numbers() -> None:
    assert ticks(0, 3, 12, whole=True) == [0, 1, 2, 3]


def test_more_than_a_page_of_readouts_is_not_written() -> None:
    svg = chart([(float(i), 1.0) for i in range(480)])
    assert len(re.findall('class="readout"', svg)) == 120


def test_a_histogram_has_a_bar_of_its_counts_height_in_its_place() -> None:
    svg = histogram("Rows", "by length", [2, 0, 4, 1], 16, width=350, height=190, x_label="tokens")
    bars = [
        {key: float(bar.attrib[key]) for key in ("x", "y", "width", "height")}
        for bar in ElementTree.fromstring(svg).iter("rect")
        if bar.get("class") == "bar"
    ]
    heights = [bar["height"] for bar in bars]
    assert heights[2] > 0
    assert heights == pytest.approx([heights[2] / 2, 0, heights[2], heights[2] / 4], abs=0.11)
    assert len({bar["width"] for bar in bars}) == 1
    assert [bar["x"] for bar in bars] == sorted(bar["x"] for bar in bars)
    assert bars[-1]["x"] + bars[-1]["width"] < 350
    assert "33 to 48 tokens: 4" in svg
