"""The statistics behind the gate."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, false_discovery_control, ks_2samp, kstwobign
from scipy.stats.contingency import association

from fraud_core.gate import statistics
from fraud_core.gate.distances import cramers_v, kolmogorov_smirnov
from fraud_core.gate.distances.catalogue import CATEGORIES, NUMBERS

SHARES = np.array([0.4, 0.3, 0.2, 0.1])


def test_numbers_get_the_kolmogorov_smirnov_distance_and_its_asymptotic_p_value() -> None:
    rng = np.random.default_rng(1)
    reference, current = rng.normal(size=900), rng.normal(0.1, 1, size=700)
    statistic, p_value = statistics.scipy_detector({"x": reference}, {"x": current}, set())["x"]
    expected = ks_2samp(reference, current, method="asymp")
    assert (statistic, p_value) == (expected.statistic, expected.pvalue)


def test_categories_that_only_one_sample_has_count_in_the_chi_squared_test() -> None:
    reference, current = np.repeat([0, 1, 2], [50, 30, 20]), np.repeat([0, 1, 3], [50, 30, 20])
    statistic, p_value = statistics.scipy_detector({"x": reference}, {"x": current}, {"x"})["x"]
    expected = chi2_contingency([[50, 30, 20, 0], [50, 30, 0, 20]])
    assert (statistic, p_value) == (expected.statistic, expected.pvalue)


def test_cramers_v_is_the_textbook_one_where_both_samples_are_equally_large() -> None:
    counts = np.array([[400, 350, 250], [500, 250, 250]])
    assert cramers_v.cramers_v(counts) == pytest.approx(association(counts, method="cramer"), abs=1e-12)


def test_cramers_v_does_not_depend_on_how_large_the_samples_are() -> None:
    counts = np.array([[400, 350, 250], [500, 250, 250]])
    assert cramers_v.cramers_v(counts * [[20], [1]]) == pytest.approx(cramers_v.cramers_v(counts), abs=1e-12)


def test_disjoint_categories_are_as_far_apart_as_can_be() -> None:
    assert cramers_v.cramers_v(np.array([[10, 0], [0, 3]])) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_correction_for_false_discoveries_is_benjamini_and_hochbergs(p_values: list[float]) -> None:
    assert statistics.benjamini_hochberg(p_values) == pytest.approx(list(false_discovery_control(p_values)), abs=1e-12)


def test_the_noise_of_numbers_is_kolmogorovs_with_the_digits_that_verdicts_were_judged_by() -> None:
    assert round(kstwobign.isf(0.01), 4) == kolmogorov_smirnov.KOLMOGOROV_99


@pytest.mark.parametrize(("m", "n"), [(20_000, 1_000), (3_000, 3_000)])
def test_samples_of_one_distribution_stay_under_the_noise_in_99_of_100_draws(m: int, n: int) -> None:
    rng = np.random.default_rng(5)
    draws = 400
    numeric = [ks_2samp(rng.random(m), rng.random(n), method="asymp").statistic for _ in range(draws)]
    category = [cramers_v.cramers_v(np.stack([rng.multinomial(m, SHARES), rng.multinomial(n, SHARES)])) for _ in range(draws)]
    # 4 of 400 are expected above; 12 or more come once in 2,000 times.
    assert 0 < np.sum(np.array(numeric) > kolmogorov_smirnov.noise(m, n)) < 12
    assert 0 < np.sum(np.array(category) > cramers_v.noise(m, n, len(SHARES))) < 12


def test_a_single_category_has_no_noise() -> None:
    assert cramers_v.noise(100, 100, 1) == 0.0


def correlation_of_rows_that_share_a_card(values: np.ndarray, cards: np.ndarray) -> float:
    """The definition, pair by pair: mean product over all pairs of rows, of which those of different cards count as 0."""
    deviations = (values - values.mean()) / values.std()
    same = (cards[:, None] == cards[None, :]) & ~np.eye(len(cards), dtype=bool)
    return float((np.outer(deviations, deviations) * same).sum() / (len(cards) * (len(cards) - 1)))


def test_clustering_is_the_correlation_of_ranks_that_comes_from_shared_cards() -> None:
    rng = np.random.default_rng(2)
    cards = rng.integers(0, 40, 600)
    values = np.round(rng.normal(size=40)[cards] + rng.normal(size=600), 1)
    ranks = (values[:, None] > values[None, :]).sum(axis=1) + (values[:, None] >= values[None, :]).sum(axis=1)
    expected = correlation_of_rows_that_share_a_card(ranks, cards)
    assert expected > 0.005
    assert NUMBERS.clustering(values, cards) == pytest.approx(expected, rel=1e-9)


def test_clustering_of_two_categories_is_that_of_the_number_which_tells_them_apart() -> None:
    rng = np.random.default_rng(3)
    cards = rng.integers(0, 40, 600)
    values = (rng.random(600) < rng.random(40)[cards]).astype(np.int64)
    expected = correlation_of_rows_that_share_a_card(values, cards)
    assert expected > 0.003
    assert CATEGORIES.clustering(values, cards) == pytest.approx(expected, rel=1e-9)


def test_what_a_card_has_once_for_all_counts_cards_and_not_rows() -> None:
    cards = np.repeat(np.arange(500), 20)
    assert NUMBERS.clustering(cards % 50, cards) == pytest.approx(1 / 500, rel=0.1)
    assert CATEGORIES.clustering(cards % 50, cards) == pytest.approx(1 / 500, rel=0.1)


@pytest.mark.parametrize("clustering", [NUMBERS.clustering, CATEGORIES.clustering])
def test_rows_of_which_each_has_a_card_of_its_own_are_not_clustered(clustering: Callable[..., float]) -> None:
    assert clustering(np.arange(100) % 7, np.arange(100)) == 0.0
    assert clustering(np.zeros(100, dtype=np.int64), np.repeat([0, 1], 50)) == 0.0


@pytest.mark.parametrize("categories", [set(), {"age"}])
def test_new_people_of_the_same_kind_stay_under_the_noise(categories: set[str]) -> None:
    rng = np.random.default_rng(11)
    excess = []
    for _ in range(200):
        cards = [np.repeat(np.arange(300), 10) for _ in range(2)]
        reference, current = (rng.integers(18, 28, 300)[c] for c in cards)
        compared = statistics.compare(
            {"age": reference}, {"age": current}, categories, statistics.scipy_detector, {"age": cards[1]}
        )
        excess.append(compared["age"].excess)
    # 2 of 200 are expected beyond the noise; 8 or more come once in 1,000 times. Without the cards it would be most of them.
    assert np.count_nonzero(excess) < 8


def test_each_feature_is_compared_on_the_values_that_both_samples_have() -> None:
    reference = {"x": np.arange(100.0), "gone": np.arange(5.0), "empty": np.arange(0.0)}
    current = {"x": np.arange(50.0), "new": np.arange(5.0), "empty": np.arange(5.0)}
    compared = statistics.compare(reference, current, set(), statistics.scipy_detector)
    assert set(compared) == {"x"}
    assert (compared["x"].rows_reference, compared["x"].rows_current) == (100, 50)
    assert compared["x"].distance == pytest.approx(0.5)
    assert compared["x"].excess == pytest.approx(0.5 - kolmogorov_smirnov.noise(100, 50))


def test_no_excess_is_below_zero() -> None:
    same = {"x": np.arange(100.0)}
    assert statistics.compare(same, same, set(), statistics.scipy_detector)["x"].excess == 0.0


def test_a_bound_follows_natural_variation_between_its_floor_and_its_ceiling() -> None:
    assert statistics.bound([]) == statistics.bound([0.001, 0.0]) == statistics.FLOOR
    assert statistics.bound([0.0, 0.02, 0.01]) == pytest.approx(statistics.MARGIN * 0.02)
    assert statistics.bound([0.5]) == statistics.CEILING
