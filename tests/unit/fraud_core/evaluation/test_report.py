"""A report holds every figure of a block, of each of its months, and says so where there is none."""

import subprocess
import sys
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from fraud_core.errors import HoldoutError
from fraud_core.evaluation import metrics
from fraud_core.evaluation.report import EvaluationRows, KnownFraud, Policy, Report, evaluate

POLICY = Policy(
    review_threshold=0.05,
    decline_threshold=0.6,
    review_cost=5.0,
    false_decline_cost=30.0,
    label_delay_days=7,
    draws=100,
    seed=1,
    min_frauds=30,
)
FIRST_DAY = (date(2020, 5, 20) - date(1970, 1, 1)).days


@pytest.fixture(scope="module")
def block() -> EvaluationRows:
    generator = np.random.default_rng(3)
    n = 12_000
    scores = 1 / (1 + np.exp(-generator.normal(-6, 2.5, n)))
    day = FIRST_DAY + np.sort(generator.integers(0, 45, n))
    day[[0, -1]] = FIRST_DAY, FIRST_DAY + 44
    return EvaluationRows(
        labels=generator.random(n) < scores,
        scores=scores,
        amounts_cents=generator.integers(100, 50_000, n),
        cards=generator.integers(0, 300, n),
        local_day=day,
        month=np.datetime_as_string(day.astype("datetime64[D]"), unit="M"),
    )


@pytest.fixture(scope="module")
def report(block: EvaluationRows) -> Report:
    return evaluate(block, POLICY)


def test_a_report_survives_json(report: Report):
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_a_report_holds_the_figures_of_the_block(block: EvaluationRows, report: Report):
    assert (report.rows, report.frauds) == (12_000, int(block.labels.sum()))
    assert report.fraud_rate == report.frauds / report.rows
    assert report.average_precision == metrics.average_precision(block.labels, block.scores)
    assert report.average_precision_interval.low < report.average_precision < report.average_precision_interval.high
    assert report.alerts_per_day == report.at_review.alerts / 45
    assert (report.first_day, report.last_day) == (date(2020, 5, 20), date(2020, 7, 3))
    assert report.cost.baseline == pytest.approx(block.amounts_cents[block.labels].sum() / 100)
    assert report.card_precision_at_100 is not None
    assert report.card_precision_at_100.days == 45


def test_the_months_add_up_to_the_block(report: Report):
    assert [month.month for month in report.months] == ["2020-05", "2020-06", "2020-07"]
    for figure in ("rows", "frauds"):
        assert sum(getattr(month, figure) for month in report.months) == getattr(report, figure)
    assert sum(month.cost.total for month in report.months) == pytest.approx(report.cost.total)
    assert report.card_precision_at_100 is not None
    found = sum(m.card_precision_at_100.value * m.card_precision_at_100.days for m in report.months if m.card_precision_at_100)
    assert found / 45 == pytest.approx(report.card_precision_at_100.value)


def test_a_month_with_too_few_frauds_gives_no_average_precision_but_its_counts(block: EvaluationRows, report: Report):
    july = report.months[-1]
    assert july.frauds < POLICY.min_frauds
    assert (july.average_precision, july.average_precision_interval, july.roc_auc) == (None, None, None)
    assert july.rows == (block.month == "2020-07").sum()


def test_the_order_of_the_rows_does_not_matter(block: EvaluationRows, report: Report):
    shuffled = evaluate(block.where(np.random.default_rng(0).permutation(12_000)), POLICY)
    exact = {"rows", "frauds", "average_precision", "average_precision_interval", "precision_recall", "at_review"}
    assert shuffled.model_dump(include=exact) == report.model_dump(include=exact)
    assert shuffled.card_precision_at_100 == report.card_precision_at_100


def test_the_same_policy_gives_the_same_report(block: EvaluationRows, report: Report):
    assert evaluate(block, POLICY) == report


def test_a_block_without_time_has_no_daily_figures_and_one_without_cards_no_card_figures(block: EvaluationRows):
    timeless = evaluate(replace(block, local_day=None, month=None), POLICY)
    assert (timeless.alerts_per_day, timeless.card_precision_at_100, timeless.months) == (None, None, ())
    assert (timeless.first_day, timeless.last_day) == (None, None)
    assert timeless.fraud_cards is not None
    cardless = evaluate(replace(block, cards=None), POLICY)
    assert (cardless.card_precision_at_100, cardless.fraud_cards) == (None, None)
    assert len(cardless.months) == 3


def test_cards_known_compromised_before_the_block_are_left_out(block: EvaluationRows, report: Report):
    known = KnownFraud(cards=np.arange(150), days=np.full(150, FIRST_DAY - 30))
    fewer = evaluate(block, POLICY, known).card_precision_at_100
    assert fewer is not None
    assert report.card_precision_at_100 is not None
    assert fewer.ceiling < report.card_precision_at_100.ceiling


def test_a_block_with_too_few_frauds_is_refused_with_their_number_and_what_to_do(block: EvaluationRows):
    scarce = block.where(~block.labels | (np.cumsum(block.labels) <= 12))
    with pytest.raises(HoldoutError, match=r"validation B holds 12 frauds .* at least 30 .* FRAUD_MIN_HOLDOUT_FRAUDS"):
        evaluate(scarce, POLICY, name="validation B")


def test_a_block_without_a_legitimate_row_and_a_diverged_model_are_refused(block: EvaluationRows):
    with pytest.raises(HoldoutError, match="are fraud"):
        evaluate(block.where(block.labels), POLICY)
    with pytest.raises(HoldoutError, match="not finite"):
        evaluate(replace(block, scores=np.where(block.labels, np.nan, block.scores)), POLICY)


def test_reading_a_report_loads_no_learning_library():
    heavy = "{'sklearn', 'scipy', 'pandas', 'matplotlib'}"
    program = f"import sys, fraud_core.evaluation.figures, fraud_core.evaluation.model_card; print({heavy} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
