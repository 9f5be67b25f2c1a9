"""What is judged usual: rows a day, and fraud rates."""

from datetime import UTC, datetime

import numpy as np
import pytest
from scipy import stats

from fraud_core.sources.source import Source
from fraud_core.training_data import volume
from fraud_core.training_data.volume import Count, judge_fraud_rate, judge_rows, mature_until

EARLIER = [Count(40_000, frauds) for frauds in (200, 240, 180, 260, 210, 190, 230)]


def declared(timezone: str = "UTC", delay: int = 7) -> Source:
    return Source.model_validate(
        {
            "name": "some",
            "paths": ["nowhere.csv"],
            "timezone": timezone,
            "cadence": "monthly",
            "first": "2024-01",
            "label_delay_days": delay,
            "columns": {"timestamp": "at", "amount": "amount", "label": "fraud"},
        }
    )


@pytest.mark.parametrize(("rows", "usual"), [(2_999, False), (3_000, True), (6_000, True), (6_001, False)])
def test_rows_a_day_keep_to_the_declared_bounds(rows: int, usual: bool) -> None:
    assert judge_rows(rows, 30, (100, 200), [5_000.0] * 9).usual is usual


def test_without_declared_bounds_earlier_partitions_say_what_is_usual() -> None:
    earlier = [90.0, 100.0, 110.0, 4_000.0]  # an outlier moves no median
    assert [judge_rows(rows * 30, 30, None, earlier).usual for rows in (30, 50, 300, 340)] == [False, True, True, False]
    assert judge_rows(1, 30, None, [100.0, 100.0]).usual, "two say nothing yet"


def test_the_sentence_names_the_figure_and_what_is_usual() -> None:
    assert judge_rows(60_000, 30, (100, 200), []).message == "2,000 rows a day; 100 to 200 are usual."


def test_a_fraud_rate_like_the_earlier_ones_is_usual_and_a_multiple_is_not() -> None:
    rates = {frauds: judge_fraud_rate(Count(40_000, frauds), EARLIER).usual for frauds in (50, 150, 215, 400, 900)}
    assert rates == {50: False, 150: True, 215: True, 400: True, 900: False}


def test_the_interval_is_students_for_one_further_draw() -> None:
    logs = np.log([count.rate for count in EARLIER])
    half = stats.t.ppf(1 - volume.RATE_SIGNIFICANCE / 2, len(logs) - 1) * logs.std(ddof=1) * np.sqrt(1 + 1 / len(logs))
    opinion = judge_fraud_rate(Count(60_000, 320), EARLIER)  # more rows, so no further noise
    assert opinion.low == pytest.approx(np.exp(logs.mean() - half))
    assert opinion.high == pytest.approx(np.exp(logs.mean() + half))


def test_a_partition_that_is_mature_in_part_is_allowed_more_noise() -> None:
    whole, part = (judge_fraud_rate(Count(rows, rows // 190), EARLIER) for rows in (40_000, 2_000))
    assert whole.low is not None
    assert part.low is not None
    assert part.low < whole.low


def test_equal_rates_before_do_not_make_a_small_change_a_finding() -> None:
    assert judge_fraud_rate(Count(400_000, 2_400), [Count(400_000, 2_000)] * 12).usual
    assert not judge_fraud_rate(Count(400_000, 3_200), [Count(400_000, 2_000)] * 12).usual


@pytest.mark.parametrize(
    ("current", "earlier", "said"),
    [
        (Count(0, 0), EARLIER, "No row's label is mature yet"),
        (Count(900, 400), EARLIER, "too few to judge a rate"),
        (Count(40_000, 9_000), EARLIER[:5], "too few partitions came before"),
        (Count(40_000, 9_000), [*EARLIER[:5], Count(0, 0)], "too few partitions came before"),
    ],
)
def test_what_cannot_be_judged_is_no_finding_and_says_why(current: Count, earlier: list[Count], said: str) -> None:
    opinion = judge_fraud_rate(current, earlier)
    assert opinion.usual
    assert said in opinion.message


def test_unshifted_fraud_rates_are_rarely_findings() -> None:
    """Rates that vary between partitions by a third, as the public data's months do: about one in a thousand is a finding."""
    rng = np.random.default_rng(4)
    found = judged = 0
    for _ in range(150):
        rates = np.exp(np.log(0.0055) + rng.normal(0, 0.3, 30))
        counts = [Count(50_000, int(rng.poisson(50_000 * rate))) for rate in rates]
        for place in range(volume.LEAST_RATES, len(counts)):
            judged += 1
            found += not judge_fraud_rate(counts[place], counts[max(0, place - 24) : place]).usual
    assert judged == 150 * 24
    assert found / judged < 0.004


def test_labels_are_mature_up_to_the_delay_before_the_end_of_the_last_local_day() -> None:
    last = int(datetime(2024, 3, 31, 22, 30, tzinfo=UTC).timestamp() * 1e6)
    assert mature_until(declared(), last) == datetime(2024, 3, 25, tzinfo=UTC)
    # In Zurich it is April already, and summer time.
    assert mature_until(declared("Europe/Zurich"), last) == datetime(2024, 3, 25, 23, tzinfo=UTC)
