"""The statistics behind the gate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, false_discovery_control, ks_2samp
from scipy.stats.contingency import association

from fraud_core import drift

SHARES = np.array([0.4, 0.3, 0.2, 0.1])


def test_numbers_get_the_kolmogorov_smirnov_distance_and_its_asymptotic_p_value() -> None:
    rng = np.random.default_rng(1)
    reference, current = rng.normal(size=900), rng.normal(0.1, 1, size=700)
    statistic, p_value = drift.scipy_detector({"x": reference}, {"x": current}, set())["x"]
    expected = ks_2samp(reference, current, method="asymp")
    assert (statistic, p_value) == (expected.statistic, expected.pvalue)


def test_categories_that_only_one_sample_has_count_in_the_chi_squared_test() -> None:
    reference, current = np.repeat([0, 1, 2], [50, 30, 20]), np.repeat([0, 1, 3], [50, 30, 20])
    statistic, p_value = drift.scipy_detector({"x": reference}, {"x": current}, {"x"})["x"]
    expected = chi2_contingency([[50, 30, 20, 0], [50, 30, 0, 20]])
    assert (statistic, p_value) == (expected.statistic, expected.pvalue)


def test_cramers_v_is_the_textbook_one_where_both_samples_are_equally_large() -> None:
    counts = np.array([[400, 350, 250], [500, 250, 250]])
    assert drift.cramers_v(counts) == pytest.approx(association(counts, method="cramer"), abs=1e-12)


def test_cramers_v_does_not_depend_on_how_large_the_samples_are() -> None:
    counts = np.array([[400, 350, 250], [500, 250, 250]])
    assert drift.cramers_v(counts * [[20], [1]]) == pytest.approx(drift.cramers_v(counts), abs=1e-12)


def test_disjoint_categories_are_as_far_apart_as_can_be() -> None:
    assert drift.cramers_v(np.array([[10, 0], [0, 3]])) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_correction_for_false_discoveries_is_benjamini_and_hochbergs(p_values: list[float]) -> None:
    assert drift.benjamini_hochberg(p_values) == pytest.approx(list(false_discovery_control(p_values)), abs=1e-12)


@pytest.mark.parametrize(("m", "n"), [(20_000, 1_000), (3_000, 3_000)])
def test_samples_of_one_distribution_stay_under_the_noise_in_99_of_100_draws(m: int, n: int) -> None:
    rng = np.random.default_rng(5)
    draws = 400
    numeric = [ks_2samp(rng.random(m), rng.random(n), method="asymp").statistic for _ in range(draws)]
    category = [drift.cramers_v(np.stack([rng.multinomial(m, SHARES), rng.multinomial(n, SHARES)])) for _ in range(draws)]
    # 4 of 400 are expected above; 12 or more come once in 2,000 times.
    assert 0 < np.sum(np.array(numeric) > drift.numeric_noise(m, n)) < 12
    assert 0 < np.sum(np.array(category) > drift.category_noise(m, n, len(SHARES))) < 12


def test_a_single_category_has_no_noise() -> None:
    assert drift.category_noise(100, 100, 1) == 0.0


def test_each_feature_is_compared_on_the_values_that_both_samples_have() -> None:
    reference = {"x": np.arange(100.0), "gone": np.arange(5.0), "empty": np.arange(0.0)}
    current = {"x": np.arange(50.0), "new": np.arange(5.0), "empty": np.arange(5.0)}
    compared = drift.compare(reference, current, set(), drift.scipy_detector)
    assert set(compared) == {"x"}
    assert (compared["x"].rows_reference, compared["x"].rows_current) == (100, 50)
    assert compared["x"].distance == pytest.approx(0.5)
    assert compared["x"].excess == pytest.approx(0.5 - drift.numeric_noise(100, 50))


def test_no_excess_is_below_zero() -> None:
    same = {"x": np.arange(100.0)}
    assert drift.compare(same, same, set(), drift.scipy_detector)["x"].excess == 0.0


def test_a_bound_follows_natural_variation_between_its_floor_and_its_ceiling() -> None:
    assert drift.bound([]) == drift.bound([0.001, 0.0]) == drift.FLOOR
    assert drift.bound([0.0, 0.02, 0.01]) == pytest.approx(drift.MARGIN * 0.02)
    assert drift.bound([0.5]) == drift.CEILING
