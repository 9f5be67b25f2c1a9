"""The figures are those of the textbooks: compared with scikit-learn, SciPy, plain re-computation and examples by hand."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
)

from fraud_core.errors import HoldoutError
from fraud_core.evaluation import calibration, daily_cards, intervals, metrics
from fraud_core.evaluation import costs as metrics_costs
from fraud_core.evaluation.metrics import NEVER

# A busy machine must not fail a property: no clock is looked at.
properties = settings(deadline=None, derandomize=True, max_examples=80, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def rows(draw, most=60):
    """Labels with both classes, and probabilities from a grid, often so coarse that many tie."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, steps = draw(st.integers(2, most)), draw(st.sampled_from([1, 4, 1000]))
    labels = generator.random(n) < draw(st.sampled_from([0.05, 0.3, 0.8]))
    labels[generator.choice(n, 2, replace=False)] = True, False
    return labels, generator.integers(0, steps + 1, n) / steps


def sample(n=4000, cards=80, seed=0, rate=0.03):
    generator = np.random.default_rng(seed)
    labels = generator.random(n) < rate
    scores = 1 / (1 + np.exp(-(generator.normal(-4, 1.5, n) + 4 * labels)))
    return labels, scores, generator.integers(0, cards, n)


# --- ranking


@properties
@given(rows())
def test_average_precision_and_roc_auc_equal_scikit_learn_with_ties(data):
    labels, scores = data
    ours = metrics.average_precision(labels, scores), metrics.roc_auc(labels, scores)
    theirs = average_precision_score(labels, scores), roc_auc_score(labels, scores)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@properties
@given(rows())
def test_the_area_is_that_of_whole_counts_divided_once_to_the_last_digit(data):
    """Stored figures and verdicts hold it: another order of the same sum may not change them."""
    labels, scores = data
    fraud, legitimate = scores[labels], scores[~labels]
    halves = sum(2 * int((legitimate < one).sum()) + int((legitimate == one).sum()) for one in fraud)
    assert metrics.roc_auc(labels, scores) == halves / 2 / (len(fraud) * len(legitimate))


def test_average_precision_of_equal_scores_is_the_fraud_rate():
    labels, _, _ = sample()
    assert metrics.average_precision(labels, np.full(len(labels), 0.5)) == pytest.approx(labels.mean())
    assert metrics.roc_auc(labels, np.full(len(labels), 0.5)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([False, False], [0.1, 0.2], "no fraud among the 2 rows"),
        ([True, True], [0.1, 0.2], "All 2 rows are fraud"),
        ([True, False], [0.1, math.nan], "not finite"),
        ([True, False], [math.inf, 0.1], "not finite"),
    ],
)
def test_rows_that_carry_no_figure_are_refused_by_every_ranking_figure(labels, scores, says):
    labels, scores = np.array(labels), np.array(scores)
    for figure in (
        lambda: metrics.average_precision(labels, scores),
        lambda: metrics.roc_auc(labels, scores),
        lambda: metrics.precision_recall_curve(labels, scores),
        lambda: metrics.average_precision_interval(labels, scores, None, draws=100, seed=0),
        lambda: metrics.paired_difference(labels, scores, scores, None, draws=100, seed=0),
    ):
        with pytest.raises(HoldoutError, match=says):
            figure()


def test_the_interval_is_that_of_repeating_the_rows_of_the_drawn_cards():
    labels, scores, cards = sample(n=600, cards=25, rate=0.1)
    scores = np.round(scores, 2)  # ties
    generator = np.random.default_rng(7)
    values = []
    for _ in range(120):
        times = np.bincount(generator.integers(0, 25, 25), minlength=25)
        chosen = np.repeat(np.arange(600), times[cards])
        values.append(average_precision_score(labels[chosen], scores[chosen]))
    interval = metrics.average_precision_interval(labels, scores, cards, draws=120, seed=7, level=0.9)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])), abs=1e-12)


def test_the_interval_covers_the_truth_where_one_that_ignores_cards_does_not():
    def population(generator, cards):
        card = np.repeat(np.arange(cards), 20)
        frauds = (generator.random(cards) < 0.15)[card] & (generator.random(len(card)) < 0.3)
        ease = generator.normal(2, 1.2, cards)[card]  # the frauds of one card are all easy or all hard
        return frauds, generator.normal(0, 1, len(card)) + ease * frauds, card

    generator = np.random.default_rng(5)
    truth = metrics.average_precision(*population(generator, 20_000)[:2])
    by_card = by_row = 0
    for _ in range(100):
        labels, scores, cards = population(generator, 150)
        interval = metrics.average_precision_interval(labels, scores, cards, draws=100, seed=1)
        by_card += interval.low <= truth <= interval.high
        interval = metrics.average_precision_interval(labels, scores, None, draws=100, seed=1)
        by_row += interval.low <= truth <= interval.high
    assert by_card >= 85
    assert by_row <= 80


def test_without_cards_every_row_is_its_own_cluster():
    labels, scores, _ = sample(n=500)
    without = metrics.average_precision_interval(labels, scores, None, draws=100, seed=3)
    assert without == metrics.average_precision_interval(labels, scores, np.arange(500), draws=100, seed=3)


def test_cards_without_rows_are_never_drawn():
    labels, scores, cards = sample(n=500, cards=20)
    dense = metrics.average_precision_interval(labels, scores, cards, draws=100, seed=3)
    assert dense == metrics.average_precision_interval(labels, scores, cards * 1000 + 5, draws=100, seed=3)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    labels, scores, cards = sample()
    first, again, other = (metrics.average_precision_interval(labels, scores, cards, draws=100, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_draw_without_any_fraud_is_passed_over():
    labels, scores, cards = np.zeros(40, dtype=bool), np.linspace(0, 1, 40), np.repeat(np.arange(4), 10)
    labels[35] = True  # all fraud on one card of four: about a third of the draws have none
    interval = metrics.average_precision_interval(labels, scores, cards, draws=200, seed=0)
    assert 0 < interval.low <= interval.high <= 1


def test_a_model_compared_with_itself_differs_by_nothing():
    labels, scores, cards = sample()
    difference, interval = metrics.paired_difference(labels, scores, scores, cards, draws=100, seed=1)
    assert (difference, interval.low, interval.high) == (0, 0, 0)


def test_the_paired_interval_is_narrower_than_two_separate_ones_and_turns_with_its_sides():
    labels, champion, cards = sample(rate=0.05)
    candidate = np.clip(champion + np.random.default_rng(1).normal(0, 0.05, len(champion)), 0, 1)
    difference, interval = metrics.paired_difference(labels, candidate, champion, cards, draws=200, seed=1)
    separate = [metrics.average_precision_interval(labels, s, cards, draws=200, seed=1) for s in (candidate, champion)]
    assert interval.low <= difference <= interval.high
    assert interval.high - interval.low < max(i.high - i.low for i in separate)
    turned, turned_interval = metrics.paired_difference(labels, champion, candidate, cards, draws=200, seed=1)
    assert turned == -difference
    assert (turned_interval.low, turned_interval.high) == pytest.approx((-interval.high, -interval.low))


@properties
@given(rows())
def test_operating_points_equal_scikit_learn(data):
    labels, scores = data
    threshold = float(np.median(scores))
    point = metrics.operating_point(labels, scores, threshold)
    alerted = scores >= threshold
    assert point.alerts == alerted.sum()
    assert point.precision == pytest.approx(precision_score(labels, alerted))
    assert point.recall == pytest.approx(recall_score(labels, alerted))


def test_a_threshold_that_alerts_nobody_has_no_precision():
    point = metrics.operating_point(np.array([True, False]), np.array([1.0, 0.5]), NEVER)
    assert (point.alerts, point.precision, point.recall) == (0, None, 0.0)


@properties
@given(rows(most=400), st.integers(2, 50))
def test_the_thinned_curve_lies_on_the_full_one_and_ends_at_full_recall(data, points):
    labels, scores = data
    precision, recall, threshold = precision_recall_curve(labels, scores)
    full = {t: (p, r) for t, p, r in zip(threshold, precision[:-1], recall[:-1], strict=True)}
    curve = metrics.precision_recall_curve(labels, scores, points)
    assert 1 <= len(curve) <= points
    assert curve[-1].recall == 1
    assert [p.recall for p in curve] == sorted({p.recall for p in curve})
    for point in curve:
        assert (point.precision, point.recall) == pytest.approx(full[point.threshold])


# --- cards a day


def handbook(day, cards, labels, scores, delay, known, k):
    """Card precision top-k, row by row: (precision, ceiling) of each day."""
    frauds = [*zip(cards[labels], day[labels], strict=True), *known]
    detected, answer = set(), []
    for today in sorted(set(day)):
        out = detected | {card for card, when in frauds if when + delay < today}
        highest, compromised = defaultdict(lambda: -math.inf), set()
        for i in np.flatnonzero(day == today):
            if cards[i] not in out:
                highest[cards[i]] = max(highest[cards[i]], scores[i])
                compromised |= {cards[i]} if labels[i] else set()
        top = sorted(highest, key=lambda card: (-highest[card], card))[:k]
        found = compromised & set(top)
        detected |= found
        answer.append((len(found) / k, min(k, len(compromised)) / k))
    return answer


def test_card_precision_of_an_example_by_hand():
    # k = 2. Day 0: cards 0 (fraud), 1, 2 (fraud, ranked last). Day 1: card 0 was found and is out; 2 is still in play, 3.
    # Day 2: card 2 was found on day 1; 1 is fraud but known since long before; 3, 4 are left.
    day = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    card = np.array([0, 0, 1, 2, 0, 2, 3, 1, 2, 3, 4])
    label = np.array([0, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1], dtype=bool)
    score = np.array([0.9, 0.1, 0.8, 0.2, 1.0, 0.7, 0.6, 1.0, 1.0, 0.5, 0.1])
    known = (np.array([1]), np.array([-5]))
    daily = daily_cards.daily_card_precision(day, card, label, score, label_delay_days=6, known=known, k=2)
    # Day 1 is 6 days after -5: the label is not known before day 2, but card 1 has no row on day 1 anyhow.
    np.testing.assert_array_equal(daily.day, [0, 1, 2])
    np.testing.assert_allclose(daily.precision, [1 / 2, 1 / 2, 1 / 2])
    np.testing.assert_allclose(daily.ceiling, [2 / 2, 1 / 2, 1 / 2])
    mean = daily.mean()
    assert (mean.k, mean.value, mean.ceiling, mean.days) == (2, pytest.approx(1 / 2), pytest.approx(2 / 3), 3)
    assert daily.mean(np.array([1, 1, 2])).days == 2


@pytest.mark.parametrize(("days_later", "ranked"), [(7, True), (8, False)])
def test_a_fraud_is_known_only_once_the_label_delay_has_passed(days_later, ranked):
    day, cards, labels, scores = np.array([days_later]), np.array([0]), np.array([True]), np.array([0.5])
    known = (np.array([0]), np.array([0]))
    daily = daily_cards.daily_card_precision(day, cards, labels, scores, label_delay_days=7, known=known, k=1)
    assert daily.precision.tolist() == [float(ranked)]


def test_a_card_is_ranked_by_its_highest_score_of_the_day_even_if_a_legitimate_row_has_it():
    day, cards, labels = np.zeros(3, dtype=int), np.array([0, 0, 1]), np.array([True, False, False])
    scores = np.array([0.1, 0.9, 0.5])
    daily = daily_cards.daily_card_precision(day, cards, labels, scores, label_delay_days=0, k=1)
    assert daily.precision.tolist() == [1.0]


@properties
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 5))
def test_card_precision_equals_a_row_by_row_computation(seed, k, delay):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 80))
    day, cards = generator.integers(-2, 10, n), generator.integers(0, 9, n)
    labels, scores = generator.random(n) < 0.3, generator.integers(0, 6, n) / 5
    known = (generator.integers(0, 12, 2), generator.integers(-9, -2, 2))
    daily = daily_cards.daily_card_precision(day, cards, labels, scores, label_delay_days=delay, known=known, k=k)
    expected = handbook(day, cards, labels, scores, delay, list(zip(*known, strict=True)), k)
    np.testing.assert_allclose(np.column_stack([daily.precision, daily.ceiling]), expected)
    assert (daily.precision <= daily.ceiling).all()


# --- cost and thresholds

LABELS = np.array([True, False, True, False, True])
AMOUNTS = np.array([100.0, 50.0, 200.0, 10.0, 40.0])
SCORES = np.array([0.9, 0.8, 0.5, 0.4, 0.1])


def test_the_cost_of_an_example_by_hand():
    cost = metrics_costs.expected_cost(
        LABELS, AMOUNTS, SCORES, review_threshold=0.4, decline_threshold=0.8, review_cost=5, false_decline_cost=30
    )
    # Declined: 0.9 (stopped), 0.8 (false). Reviewed: 0.5 (stopped), 0.4. Approved: 0.1, which loses 40.
    assert cost == metrics_costs.Cost(
        total=40 + 2 * 5 + 30, per_thousand=16_000, fraud_lost=40, reviews=2, false_declines=1, declines=2, baseline=340
    )


def test_a_policy_that_approves_everything_costs_the_baseline():
    cost = metrics_costs.expected_cost(
        LABELS, AMOUNTS, SCORES, review_threshold=NEVER, decline_threshold=NEVER, review_cost=5, false_decline_cost=30
    )
    assert cost.total == cost.baseline == 340


@properties
@given(rows(), st.integers(0, 2**32 - 1))
def test_every_point_of_the_cost_curve_is_the_cost_of_that_policy(data, seed):
    labels, scores = data
    amounts = np.random.default_rng(seed).integers(1, 100_000, len(labels)) / 100
    low, high = float(np.quantile(scores, 0.5)), float(scores.max())
    costs = {"review_cost": 5.0, "false_decline_cost": 30.0}

    def cost(review, decline):
        policy = {"review_threshold": review, "decline_threshold": decline}
        return metrics_costs.expected_cost(labels, amounts, scores, **policy, **costs).per_thousand

    curve = metrics_costs.cost_curve(labels, amounts, scores, review_threshold=low, decline_threshold=high, **costs)
    assert {low, high} <= {point.threshold for point in curve}
    for point in curve:
        assert point.review_here == (None if point.threshold > high else pytest.approx(cost(point.threshold, high)))
        assert point.decline_here == (None if point.threshold < low else pytest.approx(cost(low, point.threshold)))


@properties
@given(rows(), st.floats(0.5, 20), st.floats(0.1, 10))
def test_the_review_threshold_fills_the_capacity_and_never_exceeds_it(data, days, capacity):
    _, scores = data
    threshold = metrics_costs.review_threshold(scores, days=days, capacity=capacity)
    alerts = (scores >= threshold).sum()
    assert alerts <= capacity * days
    lower = scores[scores < threshold]
    if len(lower):  # one step lower would be too many
        assert (scores >= lower.max()).sum() > capacity * days


def test_a_tie_at_the_top_that_is_too_large_alerts_nobody():
    scores = np.array([0.7] * 10 + [0.1])
    threshold = metrics_costs.review_threshold(scores, days=1, capacity=9)
    assert 0.7 < threshold < 0.7000001


@properties
@given(rows(), st.sampled_from([0, 1, 5, 7.25]), st.sampled_from([0, 3, 30, 500]))
def test_the_decline_threshold_is_the_cheapest_of_all_and_the_highest_of_the_cheapest(data, review_cost, false_decline_cost):
    labels, scores = data
    review = float(np.median(scores))
    costs = {"review_cost": review_cost, "false_decline_cost": false_decline_cost}
    chosen = metrics_costs.decline_threshold(labels, scores, review_threshold=review, **costs)

    def cost(decline):
        amounts = np.full(len(labels), 50.0)
        return metrics_costs.expected_cost(
            labels, amounts, scores, review_threshold=review, decline_threshold=decline, **costs
        ).total

    everything = [*np.unique(scores[scores >= review]).tolist(), NEVER]
    cheapest = min(cost(threshold) for threshold in everything)
    assert chosen == max(threshold for threshold in everything if cost(threshold) == cheapest)


def test_where_declining_never_pays_nothing_is_declined_not_even_a_certainty():
    labels, scores = np.array([False, True, False, True]), np.array([1.0, 0.9, 0.8, 0.1])
    chosen = metrics_costs.decline_threshold(labels, scores, review_threshold=0.5, review_cost=1, false_decline_cost=100)
    assert chosen == NEVER > 1


# --- calibration


@properties
@given(rows(most=300), st.integers(1, 12))
def test_calibration_bins_hold_every_row_once_in_order_and_never_part_a_score(data, bins):
    labels, scores = data
    table = calibration.calibration_table(labels, scores, bins)
    assert len(table) <= bins
    assert sum(b.rows for b in table) == len(labels)
    assert sum(b.rows * b.observed_rate for b in table) == pytest.approx(labels.sum())
    assert sum(b.rows * b.mean_score for b in table) == pytest.approx(scores.sum())
    ends = np.cumsum([b.rows for b in table])[:-1]
    ranked = np.sort(scores)
    assert all(ranked[end - 1] < ranked[end] for end in ends)


def test_calibration_bins_spread_over_the_scores_where_fraud_is_rare():
    generator = np.random.default_rng(0)
    scores = 1 / (1 + np.exp(-generator.normal(-7, 2.5, 100_000)))
    labels = generator.random(100_000) < scores
    table = calibration.calibration_table(labels, scores)
    assert len(table) == 10
    assert sum(b.interval.low <= b.mean_score <= b.interval.high for b in table) >= 8
    assert sum(b.rows * b.observed_rate for b in table[-1:]) < labels.sum() / 2  # one bin does not hold all fraud
    assert calibration.expected_calibration_error(table) < 0.002


def test_the_calibration_error_of_scores_twice_too_high_is_half_their_mean():
    generator = np.random.default_rng(0)
    scores = generator.random(200_000)
    labels = generator.random(200_000) < scores / 2
    error = calibration.expected_calibration_error(calibration.calibration_table(labels, scores))
    assert error == pytest.approx(0.25, abs=0.01)


def test_certain_scores_make_one_bin():
    (only,) = calibration.calibration_table(np.array([True, False]), np.array([1.0, 0.0]))
    assert (only.rows, only.mean_score, only.observed_rate) == (2, 0.5, 0.5)


@properties
@given(rows())
def test_the_brier_score_equals_scikit_learn(data):
    labels, scores = data
    assert calibration.brier_score(labels, scores) == pytest.approx(brier_score_loss(labels, scores))


@properties
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_equals_scipy(counts):
    successes, trials = counts
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    interval = intervals.wilson_interval(successes, trials)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
