"""What the check `drift` shows: what blocks comes first, in the table and in the pictures, and its numbers draw curves."""

import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from fraud_assets.reports import metadata
from fraud_assets.reports.metadata import verdict_metadata
from fraud_core import gate
from fraud_core.gate.statistics import scipy_detector
from fraud_core.sources.source import Drift
from tests.history_features import BY_NAME

SETTINGS = Drift(bootstrap_partitions=3)
REPORTED = "card_count_1h"
WATCHED = [BY_NAME[name] for name in ("log_amount", "hour", "age", "distance", "city_population", "category", REPORTED)]


def frame(seed: int, *, farther: float = 1.0, strange: float = 0.0, busier: int = 0) -> pl.DataFrame:
    """Features of a partition: of an odd one, distances, unknown categories and what is only reported are others."""
    rng, rows = np.random.default_rng([9, seed]), 4_000
    known = rng.choice(["food", "fuel", "shop", "travel"], rows, p=[0.4, 0.3, 0.2, 0.1])
    return pl.DataFrame(
        {
            "log_amount": np.log1p(rng.lognormal(3.5, 1.0, rows)),
            "hour": rng.binomial(23, 0.6, rows),
            "age": rng.integers(18, 90, rows),
            "distance": (rng.integers(0, 100_000, rows) * farther).astype(np.int64),
            "city_population": rng.integers(100, 100_000, rows),
            "category": np.where(rng.random(rows) < strange, "gambling", known),
            REPORTED: rng.poisson(1.0, rows) + busier,
        }
    )


def judged(rows: pl.DataFrame, past: gate.Past, partition: str, position: int) -> gate.Judgement:
    return gate.judge(
        partition=partition,
        content=partition,
        frame=rows,
        features=WATCHED,
        past=past,
        position=position,
        settings=SETTINGS,
        seed=3,
        detector=scipy_detector,
        now=datetime(2024, 8, 1, tzinfo=UTC),
    )


@pytest.fixture(scope="module")
def past() -> gate.Past:
    walk = gate.Walk(SETTINGS)
    for place in range(4):
        month = f"2024-{place + 1:02d}"
        walk.add(judged(frame(place), walk.past(month), month, place))
    return walk.past("2024-06")


@pytest.mark.parametrize(
    ("odd", "blocks"),
    [
        ({"farther": 1.3}, ["distance"]),
        ({"strange": 0.01}, ["category"]),
        ({"farther": 1.3, "strange": 0.01}, ["distance", "category"]),
    ],
)
def test_what_blocks_is_plotted_first_and_said_in_the_table(past: gate.Past, odd: dict[str, Any], blocks: list[str]) -> None:
    judgement = judged(frame(7, busier=3, **odd), past, "2024-06", 5)
    assert not judgement.verdict.is_accepted
    assert judgement.verdict.worst[0].name == REPORTED, "what is only reported lies furthest out"
    shown = verdict_metadata(judgement.verdict, judgement)
    assert re.findall(r"!\[(\w+)\]", shown["worst_features"].value)[: len(blocks)] == blocks
    heads, _, *rows = (line.strip("| ").split(" | ") for line in shown["features"].value.splitlines())
    table = [dict(zip(heads, row, strict=True)) for row in rows]
    assert [row["feature"] for row in table if row["blocks"] == "**yes**"] == blocks
    assert [row["feature"] for row in table[: len(blocks)]] == blocks
    assert [row["feature"] for row in table if row["blocks"] == "reported only"] == [REPORTED]


def test_of_many_features_those_that_moved_least_are_counted_alone(past: gate.Past, monkeypatch: pytest.MonkeyPatch) -> None:
    judgement = judged(frame(7, busier=3, farther=1.3, strange=0.01), past, "2024-06", 5)
    monkeypatch.setattr(metadata, "MOST_LISTED", 1)
    _, _, *rows, blank, rest = verdict_metadata(judgement.verdict, judgement)["features"].value.splitlines()
    assert sorted(row.split(" | ")[0].strip("| ") for row in rows) == sorted([REPORTED, "category", "distance"])
    assert (blank, rest) == ("", f"{len(WATCHED) - 3} more features moved less, and lie within their bounds.")


def test_the_numbers_of_a_verdict_are_numbers(past: gate.Past) -> None:
    for rows, drifted in ((frame(8), 0), (frame(8, farther=1.3), 1)):
        judgement = judged(rows, past, "2024-06", 5)
        shown = verdict_metadata(judgement.verdict, judgement)
        assert shown["drifted_features"] == drifted
        assert (shown["times_the_bound"] > 2) == bool(drifted)
        assert (shown["rows"], shown["blocking_findings"] > 0) == (4_000, bool(drifted))
