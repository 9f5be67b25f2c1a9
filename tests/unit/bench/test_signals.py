"""What signals tell of fraud, by the product's own features: none alone tells it, and attacks are what is drawn anew."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.signals import BEGIN, END, SOURCE, Portfolio, alerted, pooled, seeded, told_by, write_page
from fraud_core.simulator.config import ONLINE_KINDS, FraudKind
from fraud_core.sources.source import load_source


@pytest.fixture(scope="module")
def portfolio(tmp_path_factory: pytest.TempPathFactory) -> Portfolio:
    """Three months of the shipped TOML with fewer cardholders, taken through raw and features."""
    source = seeded(load_source(SOURCE), 21, cardholders=1_200)
    months = source.model_copy(update={"first": "2024-03", "last": "2024-05"})
    return Portfolio.simulated(months, tmp_path_factory.mktemp("store"))


def test_no_declared_field_or_window_alone_tells_fraud(portfolio: Portfolio) -> None:
    declared = portfolio.source.declared
    learned = [name for name, field in declared.own.items() if field.is_learned]
    told = {one.feature: one for one in told_by(portfolio.transformed(), portfolio.own)}
    assert told.keys() > set(learned)
    assert len(told) == len(learned) + 20  # of the twenty windows, each with its span
    assert {name: one.precision for name, one in told.items() if one.precision > 0.5} == {}
    assert max(one.precision for one in told.values()) > 0.05  # and yet they tell something


@pytest.mark.parametrize(
    ("window", "kind", "shared"),
    [
        ("device_distinct_card_1d", FraudKind.DEVICE_RING, 500),  # call centres and tills
        ("network_distinct_email_7d", FraudKind.ACCOUNT_FARM, 500),  # carriers
        ("bin_count_cvv_false_1h", FraudKind.BIN_ENUMERATION, 10),  # an issuer's outage
    ],
)
def test_legitimate_payments_have_shared_devices_networks_and_failed_checks_as_frauds_do(
    portfolio: Portfolio, window: str, kind: FraudKind, shared: int
) -> None:
    rows = portfolio.transformed()
    typical = rows.filter(pl.col("kind") == kind.value)[window].median()
    assert rows.filter(~pl.col("label"), pl.col(window) >= typical).height > shared


def test_windows_are_what_one_model_has_beyond_the_other(portfolio: Portfolio) -> None:
    without, whole = ({one.name for one in features} for features in portfolio.features.values())
    assert without < whole
    assert len(whole - without) == 20
    assert {"channel", "account_age", "card_count_1d", "merchant_fraud_rate_30d"} <= without


def test_an_attack_is_one_cluster_and_other_payments_are_their_cardholders(portfolio: Portfolio) -> None:
    rows = portfolio.transformed()
    assert rows["cluster"].null_count() == 0
    of_kind = rows.group_by("kind").agg(pl.len(), pl.col("cluster").n_unique().alias("clusters"))
    counts = {kind: (rows, clusters) for kind, rows, clusters in of_kind.iter_rows()}
    for kind in ONLINE_KINDS:
        payments, attacks = counts[kind.value]
        assert 15 < payments / attacks < 120, kind  # as many as one attack has, or two that meet
    assert 1_000 < counts[None][1] <= 1_200
    attacks = rows.filter(pl.col("kind").is_in([kind.value for kind in ONLINE_KINDS]))
    assert attacks.select("cluster").unique().join(rows.filter(~pl.col("label")), on="cluster", how="semi").is_empty()
    takeovers = rows.filter(pl.col("kind") == FraudKind.ACCOUNT_TAKEOVER.value)
    assert takeovers.join(rows.filter(~pl.col("label")), on="cluster", how="semi").height > 0


def test_equal_alerts_are_equal_where_scores_are_tied() -> None:
    starts = np.array([0, 1, 4])  # the best alone, three alike, one behind them
    for alerts, share in ((1.0, [1, 0, 0, 0, 0]), (2.5, [1, 0.5, 0.5, 0.5, 0]), (5.0, [1, 1, 1, 1, 1])):
        assert alerted(np.ones(5), starts, alerts).tolist() == share
    assert alerted(np.array([0.0, 2, 0, 0, 1]), starts, 2.0).tolist() == [0, 1, 1, 1, 0]


def test_an_interval_over_seeds_holds_what_differs_between_them_and_a_kind_that_one_lacks_is_left_out_of_it() -> None:
    alike, other, lacking = np.zeros((501, 1)), np.ones((501, 1)), np.full((501, 1), np.nan)
    means = pooled([alike, other, lacking])
    assert means[0] == 0.5
    assert (np.nanmin(means), np.nanmax(means)) == (0, 1)
    assert np.isnan(pooled([lacking])).all()


def test_the_page_keeps_what_stands_around_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_page(page, "new")
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    page.write_text("before\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has lost the marks"):
        write_page(page, "new")
