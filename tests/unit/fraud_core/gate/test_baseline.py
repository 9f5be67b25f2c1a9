"""The reference: bins that hold what they say, and bytes that are what was signed."""

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from fraud_core.errors import IntegrityError
from fraud_core.features import catalogue
from fraud_core.gate.baseline import Bins, Reference, make_reference, population_stability, read_reference, write_reference
from tests.conftest import ZONE, transactions

NOW = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture
def matrix(installation: Any) -> Any:
    return installation.encoder.matrix(catalogue.compute(catalogue.PLAIN, transactions(3_000), ZoneInfo(ZONE)))


@pytest.fixture
def reference(installation: Any, matrix: Any) -> Reference:
    return make_reference(installation.bundle(1), matrix, NOW)


def test_every_column_but_the_clocks_is_watched_and_its_shares_add_up(
    reference: Reference, matrix: Any, installation: Any
) -> None:
    watched = {bins.feature for bins in reference.columns}
    assert watched == {"log_amount", "age", "distance", "city_population", "category"}
    for bins in (*reference.columns, reference.scores):
        assert sum(bins.shares) == pytest.approx(1.0)
    for bins in reference.columns:
        counted = bins.counts(matrix[:, installation.encoder.features.index(bins.feature)])
        assert counted.sum() == len(matrix)
        np.testing.assert_allclose(counted / len(matrix), bins.shares, atol=0.005)


def test_a_category_has_a_bin_for_each_name_and_for_one_unseen(reference: Reference, installation: Any) -> None:
    (bins,) = [bins for bins in reference.columns if bins.feature == "category"]
    column = installation.encoder.columns[installation.encoder.features.index("category")]
    numbers = sorted({*column.categories.values(), column.unseen})
    assert bins.counts(np.array(numbers)).tolist() == [1] * len(numbers)


@pytest.mark.parametrize("value", [0.0, 7.5])
def test_a_column_that_never_changes_has_one_bin(value: float, installation: Any, matrix: Any) -> None:
    at = installation.encoder.features.index("log_amount")
    matrix[:, at] = value
    (bins,) = [b for b in make_reference(installation.bundle(1), matrix, NOW).columns if b.feature == "log_amount"]
    assert bins.shares == (1.0,)


def test_a_value_that_half_of_the_rows_share_leaves_no_bin_without_rows(installation: Any, matrix: Any) -> None:
    at = installation.encoder.features.index("distance")
    matrix[: len(matrix) // 2, at] = matrix[:, at].min()
    (bins,) = [b for b in make_reference(installation.bundle(1), matrix, NOW).columns if b.feature == "distance"]
    assert bins.counts(matrix[:, at]).min() > 0


def test_the_index_is_zero_for_the_same_and_grows_with_what_moved() -> None:
    even = [0.25] * 4
    assert population_stability(even, even) == 0.0
    assert population_stability([0.1, 0.2, 0.3, 0.4], even) == pytest.approx(0.2282, abs=1e-4)  # by hand
    assert population_stability([0.01, 0.01, 0.01, 0.97], even) > 1.0


def test_the_newest_reference_of_a_version_is_read_back(installation: Any, reference: Reference) -> None:
    assert read_reference(installation.store, installation.key, reference.version) is None
    newer = reference.model_copy(update={"created": datetime(2024, 3, 2, tzinfo=UTC)})
    write_reference(installation.store, installation.key, "a", newer)
    write_reference(installation.store, installation.key, "b", reference)
    assert read_reference(installation.store, installation.key, reference.version) == newer


def test_a_reference_that_was_changed_is_not_used(installation: Any, reference: Reference) -> None:
    write_reference(installation.store, installation.key, "a", reference)
    path = installation.store.local_path(f"models/{reference.version}/runs/a/reference.json")
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"flagged": 0.5}))
    with pytest.raises(IntegrityError, match="does not carry a valid signature"):
        read_reference(installation.store, installation.key, reference.version)


def test_bins_that_do_not_fit_together_are_refused() -> None:
    for edges, shares in [((1.0,), (1.0,)), ((2.0, 1.0), (0.3, 0.3, 0.4)), ((1.0,), (0.0, 1.0))]:
        with pytest.raises(ValueError, match="needs ascending edges"):
            Bins(feature="age", edges=edges, shares=shares)
