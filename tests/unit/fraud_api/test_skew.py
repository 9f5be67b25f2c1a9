"""The proof of no skew, daily: what the scorer logged is recomputed from raw, the recorded payments and the labels."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from sqlalchemy import text

from fraud_core.decisions.log import DecisionLog
from fraud_core.features import catalogue
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.history.catch_up import CatchUp
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.open import open_history
from fraud_core.labels.log import LabelLog
from fraud_core.models.bundle import Fitted, make_bundle, read_bundle
from fraud_core.models.manifest import Calibration, Lineage, Lookback, Thresholds
from fraud_core.models.scorer import Scorer
from fraud_core.scoring import skew
from fraud_core.scoring.skew import Mismatch, Skew
from fraud_core.signing.keys import canonical_json, card_key
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Artifacts, Table
from fraud_core.storage.database import open_database
from fraud_core.transactions.transaction import Transaction
from tests import history_features

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BEGIN = datetime(2024, 3, 1, tzinfo=UTC)
LOADED = 240  # an hour apart, in raw; the rest is scored
CHOSEN = tuple(f for f in history_features.FEATURES if f.is_history or f.name in {"log_amount", "hour"})
SOURCE = {
    "name": "test",
    "paths": ["nowhere.csv"],
    "timezone": "UTC",
    "cadence": "monthly",
    "first": "2024-01",
    "label_delay_days": 1,
    "columns": {
        "timestamp": {"column": "timestamp"},
        "amount": "amount",
        "label": "label",
        "card": "card",
        "merchant": "merchant",
        "category": "category",
        "merchant_latitude": "merchant_latitude",
        "merchant_longitude": "merchant_longitude",
    },
}


def fitted(chosen: tuple[catalogue.Feature, ...]) -> Fitted:
    document = {"coefficients": [0.01] * len(chosen), "intercept": -5.0, "means": [0.0] * len(chosen)}
    return Fitted(
        kind="linear",
        model=canonical_json(document),
        encoder=Encoder(columns=tuple(ColumnEncoding(feature=feature.name, missing=0.0) for feature in chosen)),
        calibration=Calibration(slope=1.0, intercept=0.0),
        thresholds=Thresholds(review=0.4, decline=0.8),
    )


def payment(number: int) -> dict[str, Any]:
    """One of an endless row of payments, an hour apart, of five cards at three merchants."""
    rng = np.random.default_rng(number)
    return {
        "transaction_id": f"p{number}",
        "timestamp": (BEGIN + number * HOUR + timedelta(microseconds=number)).isoformat(),
        "amount": f"{rng.integers(1, 900)}.{rng.integers(0, 100):02d}",
        "card": f"card {rng.integers(0, 5)}",
        "merchant": f"shop {rng.integers(0, 3)}",
        "category": str(rng.choice(["fuel", "travel"])),
        "merchant_latitude": float(np.round(rng.uniform(40, 41), 6)),
        "merchant_longitude": float(np.round(rng.uniform(8, 9), 6)),
    }


class Day:
    """A day of scoring after raw was loaded, and its check."""

    def __init__(self, api: Any, installation: Any) -> None:
        self.api = api
        self.settings = installation.settings
        engine = open_database(self.settings)
        source = Source.model_validate(SOURCE)
        self.known = CatchUp(
            source,
            Artifacts(installation.store, installation.key),
            LabelLog(engine),
            DecisionLog(engine, 400),
            open_history(self.settings, source.reach),
        )
        self.installation = installation

    def scorer_of(self, version: str) -> Scorer:
        return Scorer(read_bundle(self.installation.store, version, self.installation.key))

    def load(self, numbers: Any) -> None:
        """Make payments of March raw, every twelfth a fraud, and load them."""
        lookup = HistoryLookup(self.known.store, card_key(self.settings))
        given = [Transaction.model_validate(payment(number)) for number in numbers]
        frame = pl.DataFrame(
            {
                "transaction_id": [one.transaction_id for one in given],
                "timestamp": pl.Series([one.timestamp for one in given], dtype=pl.Datetime("us", "UTC")),
                "amount_cents": [one.amount_cents for one in given],
                "label": [number % 12 == 0 for number in numbers],
                "card": [lookup.card(one) for one in given],
                **{name: [getattr(one, name) for one in given] for name in ("merchant", "category")},
                **{name: [getattr(one, name) for one in given] for name in ("merchant_latitude", "merchant_longitude")},
            }
        )
        content = f"{len(given)}"
        self.known.artifacts.write("raw", "2024-03", Table(frame=frame, content=content, inputs=content, facts={}))
        self.known.run()

    def score(self, *numbers: int) -> None:
        """Score payments, one after the other."""
        for number in numbers:
            answer = self.api.post("/v1/score", json=payment(number))
            assert answer.status_code == 200, answer.text

    def check(self, limit: int = 1_000) -> Skew:
        """Recompute what was logged."""
        return skew.recheck(self.known, self.scorer_of, datetime.now(UTC) - DAY, limit)

    def rewrite(self, number: int, old: str, new: str, digest: bool) -> None:
        """Change the logged features by hand, and the hash with them or not."""
        (record,) = self.known.decisions.find_all([f"p{number}"]).values()
        changed = dict(record.features or {}) | {old: float(new)}
        sha256 = catalogue.digest(changed) if digest else record.features_sha256
        with open_database(self.settings).begin() as connection:
            connection.execute(
                text("UPDATE decisions SET features = :features, features_sha256 = :sha256 WHERE transaction_id = :id"),
                {"features": json.dumps(changed), "sha256": sha256, "id": f"p{number}"},
            )


@pytest.fixture
def day(call: Callable[..., Any], installation: Any) -> Iterator[Day]:
    bundle = make_bundle(
        source="test",
        timezone="UTC",
        feature_version=catalogue.VERSION,
        **dict(fitted(CHOSEN)),
        fallback=fitted(catalogue.PLAIN[:2]),
        lookback=Lookback(history_days=30, label_delay_days=1),
        lineage=Lineage(training_set="test", partitions=(), card_key_id="k", libraries={}),
    )
    installation.write(bundle)
    installation.point(bundle.version)
    day = Day(call(installation.settings.model_copy(update={"features_logged": 1.0})), installation)
    day.load(range(LOADED))
    yield day
    day.known.store.close()


def test_what_was_logged_is_what_the_pipeline_computes_bit_for_bit(day: Day) -> None:
    day.score(*range(LOADED, LOADED + 60))
    assert day.check() == Skew(checked=60)
    logged = [one.features for one in day.known.decisions.logged(datetime.now(UTC) - DAY, 99)]
    assert len({str(one) for one in logged}) == 60
    rates = [one["merchant_fraud_rate_7d"] for one in logged if one is not None]
    assert any(rate not in {None, 0.0} for rate in rates), "the frauds of raw are seen"


@pytest.mark.parametrize(("feature", "digest"), [("card_count_7d", True), ("log_amount", True), ("card_count_7d", False)])
def test_a_feature_that_differs_is_found(day: Day, feature: str, digest: bool) -> None:
    day.score(*range(LOADED, LOADED + 5))
    day.rewrite(LOADED + 2, feature, "1.5", digest)
    found = day.check()
    assert found.checked == 5
    assert found.mismatches == [Mismatch(f"p{LOADED + 2}", (feature if digest else "features_sha256",))]


def test_a_payment_that_comes_late_is_seen_by_those_after_it_and_reported_apart(day: Day) -> None:
    first, late = LOADED, LOADED + 3
    rest = [number for number in range(first, first + 40) if number != late]
    day.score(*rest[:20], late, *rest[20:])
    found = day.check()
    assert (found.checked, found.mismatches) == (40, [])
    same = [payment(number) for number in rest[:20] if number > late]
    touched = [one for one in same if payment(late)["card"] == one["card"] or payment(late)["merchant"] == one["merchant"]]
    assert found.late_rows == len(touched) > 0


def test_raw_that_was_loaded_after_a_decision_is_reported_apart_and_hides_no_plain_feature(day: Day) -> None:
    late = range(LOADED, LOADED + 10)
    day.score(*range(LOADED + 10, LOADED + 40))
    day.load(range(LOADED + 10))
    found = day.check()
    assert (found.mismatches, found.late_rows) == ([], 30)
    assert len(late) == 10
    day.rewrite(LOADED + 20, "log_amount", "1.5", digest=True)
    assert [one.transaction_id for one in day.check().mismatches] == [f"p{LOADED + 20}"]


def test_a_label_that_was_not_heard_in_time_is_reported_apart(day: Day) -> None:
    """A word that was there at the decision and that the history heard of later, and one that it had heard."""
    day.score(*range(LOADED, LOADED + 20))
    said_of = next(number for number in range(100, LOADED) if number % 12 and payment(number)["merchant"] == "shop 1")

    def say(outcome: Any) -> None:
        day.known.labels.append(
            transaction_id=f"p{said_of}",
            outcome=outcome,
            source="chargeback",
            author="bank",
            event_time=BEGIN + said_of * HOUR,
            known_at=BEGIN + LOADED * HOUR,
        )

    say("fraud")
    day.score(*range(LOADED + 20, LOADED + 40))
    day.known.run()
    day.score(*range(LOADED + 40, LOADED + 60))
    found = day.check()
    assert (found.checked, found.mismatches) == (60, [])
    at_the_shop = [number for number in range(LOADED, LOADED + 40) if payment(number)["merchant"] == "shop 1"]
    assert 0 < found.late_labels <= len(at_the_shop)


def test_a_label_that_waited_for_its_payment_is_no_mismatch_before_it_counts_and_none_after(day: Day) -> None:
    at_the_shop = [number for number in range(100, LOADED + 60) if number % 12 and payment(number)["merchant"] == "shop 1"]
    early = next(number for number in at_the_shop if number >= LOADED)
    for number in (early, at_the_shop[0]):  # the second is heard and counted while the first waits
        day.known.labels.append(
            transaction_id=f"p{number}",
            outcome="fraud",
            source="chargeback",
            author="bank",
            event_time=BEGIN,
            known_at=BEGIN + LOADED * HOUR,
        )
        assert day.known.run().unplaced == 1
    day.score(*range(LOADED, LOADED + 45))
    assert day.known.labels_wait()
    assert day.known.run().unplaced == 0
    day.score(*range(LOADED + 45, LOADED + 60))
    found = day.check()
    assert (found.checked, found.mismatches) == (60, [])
    assert 0 < found.late_labels < len([number for number in at_the_shop if number >= early + 24])


def test_what_can_no_longer_be_checked_is_counted(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    day.score(LOADED, LOADED + 1)
    monkeypatch.setattr(day, "scorer_of", lambda _: None)
    assert day.check() == Skew(gone=2)


def test_no_more_decisions_are_checked_than_asked_for(day: Day) -> None:
    day.score(*range(LOADED, LOADED + 5))
    assert day.check(limit=3).checked == 3
