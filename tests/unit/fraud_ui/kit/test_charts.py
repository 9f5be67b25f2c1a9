"""Charts: well-formed, within their frame, and with words."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_core.evaluation.metrics import NEVER
from fraud_core.models.manifest import Thresholds
from fraud_ui.kit import charts
from fraud_ui.kit.charts import Bar, Chart, Line

probabilities = st.floats(0, 1)


def parsed(figure: str) -> ElementTree.Element:
    return ElementTree.fromstring(figure)


@given(probabilities, probabilities, st.one_of(probabilities, st.just(NEVER)))
def test_a_gauge_can_be_drawn_for_any_probability_and_thresholds(probability: float, review: float, decline: float) -> None:
    low, high = sorted((review, decline))
    root = parsed(charts.gauge(probability, Thresholds(review=low, decline=high)))
    svg = root[0]
    assert svg.attrib["role"] == "img"
    assert "Fraud probability" in svg.attrib["aria-label"]
    needle = next(element for element in svg if element.tag == "line" and element.attrib["class"] == "needle")
    assert 24 <= float(needle.attrib["x1"]) <= 696
    widths = [float(element.attrib["width"]) for element in svg if element.tag == "rect"]
    assert sum(widths) == pytest.approx(672, abs=0.5)  # the zones share out the whole scale


def test_a_needle_moves_with_the_probability() -> None:
    places = []
    for probability in (0.001, 0.1, 0.9):
        svg = parsed(charts.gauge(probability, Thresholds(review=0.05, decline=0.5)))[0]
        places.append(next(float(e.attrib["x1"]) for e in svg if e.tag == "line" and e.attrib["class"] == "needle"))
    assert places == sorted(places)
    assert places[0] < places[2]


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), probabilities), min_size=1, max_size=20))
def test_a_line_stays_within_its_frame(points: list[tuple[float, float]]) -> None:
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    chart = Chart(
        title="<t>",
        summary="s",
        x=charts.linear("x", low, high),
        y=charts.probability_axis("y"),
        lines=[Line("one", points, dots=True)],
        here=[(points[0], "here")],
    )
    svg = parsed(chart.svg())[0]
    drawn = next(element for element in svg if element.tag == "polyline").attrib["points"]
    for pair in drawn.split():
        x, y = map(float, pair.split(","))
        assert 62 <= x <= 560 - 26
        assert 34 <= y <= 300 - 46


def test_ticks_are_round_and_inside() -> None:
    axis = charts.linear("x", 0, 1302.2)
    assert list(axis.ticks) == [0, 500, 1000]
    assert list(charts.linear("x", 3, 3).ticks) == [3]


def test_a_histogram_counts_everything_and_shows_one_row_beside_a_million() -> None:
    figure = charts.histogram(
        "h", [Bar(0.001, 0.01, 1_000_000, "approve"), Bar(0.01, 0.5, 0, "review"), Bar(0.5, 0.9, 1, "decline")], "p"
    )
    svg = parsed(figure)[0]
    heights = [float(element.attrib["height"]) for element in svg if element.tag == "rect"]
    assert len(heights) == 2
    assert min(heights) > 5
    assert "1,000,001 payments" in svg.attrib["aria-label"]


@given(st.floats(-2e7, 2e7), st.floats(-2e7, 2e7))
def test_the_sketch_of_a_place_fits(east: float, north: float) -> None:
    svg = parsed(charts.sketch(east, north, "l"))[0]
    dot = next(element for element in svg if element.attrib.get("class") == "here")
    assert 20 <= float(dot.attrib["cx"]) <= 240
    assert 20 <= float(dot.attrib["cy"]) <= 240
