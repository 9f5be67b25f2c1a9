"""A truly new kind of fraud, through the pipeline: it is held once, trained after one acceptance, and then is nothing new."""

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from fraud_assets.installation import Installation
from fraud_assets.operations.judging import decide_partition
from fraud_core.gate.labels import label_verdict_of
from fraud_core.simulator.config import SimulatorConfig
from fraud_core.simulator.simulate import simulate
from tests.home import WEEKS, Home
from tests.simulated import COLUMNS

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("few_trees_alone")]

# Large payments online are all the fraud there is, until from the seventh week on merchants leak cards of ordinary payments.
FIRST_NEW = datetime(2024, 2, 12, tzinfo=UTC)
CONFIG = SimulatorConfig(
    seed=11,
    cardholders=600,
    merchants=120,
    transactions_per_card_per_day=0.5,
    fraud_rate=0.08,
    kinds={"card_testing": 2, "account_takeover": 2, "compromised_merchant": 5},
)
SOURCE = (
    """
name = "new_fraud"
paths = ["payments.parquet"]
timezone = "UTC"
cadence = "weekly"
first = "2024-01-01"
last = "2024-02-26"
label_delay_days = 1
history_days = 7

[split]
protocol = "time"
holdout_days = 7
validation_days = 7
training_days = 14

[drift]
bootstrap_partitions = 3
reference_partitions = 4
"""
    + COLUMNS
)


@pytest.fixture
def new_fraud(tmp_path: Path) -> Home:
    """Nine weeks; in the last three there is fraud that nobody has seen before."""
    rows = simulate(CONFIG, datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 4, tzinfo=UTC), ZoneInfo("UTC"))
    seen = pl.col("kind").is_null() | (pl.col("kind") != "compromised_merchant") | (pl.col("timestamp") >= FIRST_NEW)
    payments = rows.filter(seen).with_columns((pl.col("amount_cents") / 100).alias("amount")).drop("kind", "amount_cents")
    payments.write_parquet(tmp_path / "payments.parquet")
    (tmp_path / "small.toml").write_text(SOURCE)
    return Home(tmp_path)


def held(installation: Installation) -> dict[str, list[str]]:
    """The partitions whose labels are held, and for what."""
    store, key = installation.artifacts.store, installation.artifacts.signing_key
    verdicts = {week: label_verdict_of(store, key, week, installation.heads).follow() for week in installation.transformed()}
    return {week: [found.name for found in v.findings] for week, v in verdicts.items() if v is not None and v.is_held}


def test_a_new_kind_of_fraud_trains_after_one_acceptance_and_training_goes_on(new_fraud: Home) -> None:
    home, installation = new_fraud, new_fraud.installation
    assert home.run("land").success
    for week in WEEKS[:6]:
        assert home.run("materialize_partition", week).success
    assert home.run("train").success
    assert held(installation) == {}  # judged before there was a champion
    first = home.latest()

    weeks = (*WEEKS[6:], "2024-02-26")
    assert home.run("materialize_partition", weeks[0]).success
    home.run("train")  # the check of the labels fails, and the rest trains
    assert held(installation) in ({weeks[0]: ["fall"]}, {weeks[0]: ["unrelated"]})

    decide_partition(installation, weeks[0], accept=True, who="unverified:me", reason="merchants leaked cards")
    for week in weeks[1:]:
        assert home.run("materialize_partition", week).success
    assert home.run("train").success
    assert held(installation) == {}
    assert home.latest() != first
    lineage = installation.artifacts.estimator("model").bundle.manifest.lineage
    assert set(weeks) <= {key for key, _, _ in lineage.partitions}
    assert json.loads(home.latest())["sequence"] > json.loads(first)["sequence"]
