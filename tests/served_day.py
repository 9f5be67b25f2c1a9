"""A day of scoring after raw was loaded: payments an hour apart, of a source with the standard fields or with own ones."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from pydantic import SecretStr
from sqlalchemy import text

from fraud_core.decisions.log import DecisionLog
from fraud_core.features import catalogue
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.features.feature import Feature
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.history.catch_up import CatchUp
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.open import open_history
from fraud_core.labels.log import LabelLog
from fraud_core.models.bundle import Fitted, make_bundle, read_bundle
from fraud_core.models.manifest import Calibration, Lineage, Lookback, Thresholds
from fraud_core.models.scorer import Scorer
from fraud_core.scoring import skew
from fraud_core.scoring.skew import Skew
from fraud_core.signing.keys import canonical_json, card_key
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Artifacts, Table
from fraud_core.storage.database import open_database
from fraud_core.training_data.transform import source_features
from fraud_core.transactions.declared_type import transaction_type

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BEGIN = datetime(2024, 3, 1, tzinfo=UTC)
MARCH = "2024-03"
LOADED = 240  # an hour apart, in raw; the rest is scored
STANDARD: dict[str, Any] = {
    "name": "test",
    "paths": ["nowhere.csv"],
    "timezone": "UTC",
    "cadence": "monthly",
    "first": MARCH,
    "label_delay_days": 1,
    "columns": {
        "transaction_id": "transaction_id",
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
_WEEK = {"spans": ["1d", "7d"]}
# A field of every kind, personal and derived ones, and windows of every measure, over five entities and pairs of them.
OWN: dict[str, Any] = STANDARD | {
    "fields": {
        "device": {"kind": "id"},
        "ip": {"kind": "id", "personal": True},
        "network": {"kind": "id", "from": {"network": "24/48", "of": "ip"}},
        "channel": {"kind": "category"},
        "cvv": {"kind": "flag"},
        "basket": {"kind": "number"},
        "opened": {"kind": "time"},
        "account_age": {"from": {"hours_since": "opened"}},
    },
    "windows": [
        {"of": "device", "measure": ["sum", "mean", "max", "min", "std"], "over": "basket", **_WEEK},
        {"of": "device", "measure": ["fraud_rate", "fraud_count", "hourly_count"], **_WEEK},
        {"of": "network", "measure": ["count", "mean"], "over": "account_age", "spans": ["7d"]},
        {"of": "network", "measure": "share", "over": "cvv", "newest": 6, **_WEEK},
        {"of": "ip", "measure": "distinct", "over": "card", **_WEEK},
        {"of": "ip", "measure": ["seconds_since_last", "seconds_since_first"], "where": {"cvv": [False]}, "spans": ["7d"]},
        {"of": ["card", "device"], "measure": ["seen_before", "count"], "spans": ["1d"]},
        {"of": "merchant", "measure": "distinct", "over": "ip", "where": {"channel": ["web"], "night": [False]}, "spans": ["7d"]},
        {"of": "card", "measure": ["max", "std"], "over": "amount", "where": {"channel": ["web"]}, **_WEEK},
    ],
}


def chosen_of(source: Source) -> tuple[Feature, ...]:
    """What the day's model reads: everything of the past, own fields, and a little else."""
    own = source.declared.column_names
    return tuple(one for one in source_features(source) if one.is_history or one.name in {"log_amount", "hour", *own})


def fitted(chosen: tuple[Feature, ...]) -> Fitted:
    """A model whose probability tells when any feature is another one, in the last bit or so."""
    coefficients = (1e-8 * np.sqrt(np.arange(len(chosen)) + 2)).tolist()
    columns = [
        ColumnEncoding(feature=one.name, categories={"web": 1e6, "app": 2e6}, unseen=3e6)
        if one.is_category
        else ColumnEncoding(feature=one.name, missing=-1.0)
        for one in chosen
    ]
    return Fitted(
        kind="linear",
        model=canonical_json({"coefficients": coefficients, "intercept": 0.0, "means": [0.0] * len(chosen)}),
        encoder=Encoder(columns=tuple(columns)),
        calibration=Calibration(slope=1.0, intercept=0.0),
        thresholds=Thresholds(review=0.4, decline=0.8),
    )


def promote(installation: Any, source: Source) -> None:
    """Make a model of this source's features champion."""
    chosen = chosen_of(source)
    bundle = make_bundle(
        source="test",
        timezone="UTC",
        feature_version=catalogue.VERSION,
        **dict(fitted(chosen)),
        fallback=fitted(tuple(one for one in chosen if not one.is_history)),
        lookback=Lookback(history_days=30, label_delay_days=1),
        lineage=Lineage(training_set="test", partitions=(), card_key_id="k", libraries={}),
        declared=source.declared,
    )
    installation.write(bundle)
    installation.point(bundle.version)


def payment(number: int, declared: Declared = NOTHING) -> dict[str, Any]:
    """One of an endless row of payments, an hour apart, of five cards at three merchants; some own fields are missing."""
    rng = np.random.default_rng(number)
    at = BEGIN + number * HOUR + timedelta(microseconds=number)
    made = {
        "transaction_id": f"p{number}",
        "timestamp": at.isoformat(),
        "amount": f"{rng.integers(1, 900)}.{rng.integers(0, 100):02d}",
        "card": f"card {rng.integers(0, 5)}",
        "merchant": f"shop {rng.integers(0, 3)}",
        "category": str(rng.choice(["fuel", "travel"])),
        "merchant_latitude": float(np.round(rng.uniform(40, 41), 6)),
        "merchant_longitude": float(np.round(rng.uniform(8, 9), 6)),
    }
    if declared.is_standard:
        return made
    own = {
        "device": f"device {rng.integers(0, 4)}",
        "ip": f"203.0.{rng.integers(1, 3)}.{rng.integers(1, 5)}",
        "channel": str(rng.choice(["web", "app"])),
        "cvv": bool(rng.random() < 0.6),
        "basket": float(np.round(rng.lognormal(3, 1), 3)),
        "opened": (at - timedelta(days=int(rng.integers(1, 400)), seconds=number)).isoformat(),
    }
    return made | {name: value for name, value in own.items() if rng.random() < 0.9}


class Day:
    """A day of scoring after raw was loaded, and its check."""

    def __init__(self, api: Any, installation: Any, source: Source) -> None:
        self.api = api
        self.source = source
        self.settings = installation.settings
        engine = open_database(self.settings)
        self.known = CatchUp(
            source,
            Artifacts(installation.store, installation.key),
            LabelLog(engine),
            DecisionLog(engine, 400),
            open_history(self.settings, source.reach, catalogue.plan_of(source_features(source))),
        )
        self.installation = installation

    def scorer_of(self, version: str) -> Scorer:
        """The scorer of a version."""
        return Scorer(read_bundle(self.installation.store, version, self.installation.key))

    def payment(self, number: int) -> dict[str, Any]:
        """One of this source."""
        return payment(number, self.source.declared)

    def write(self, numbers: Iterable[int]) -> None:
        """Make payments of March raw, every twelfth of those that are loaded a fraud."""
        lookup, declared = HistoryLookup(self.known.store, card_key(self.settings)), self.source.declared
        given = {number: transaction_type(declared, "UTC").model_validate(self.payment(number)) for number in numbers}
        rows = []
        for number, one in given.items():
            values = {name: getattr(one, name) for name in self.source.raw_schema if name in type(one).model_fields}
            hashed = {name: lookup.hashed(said) for name, said in values.items() if isinstance(said, SecretStr)}
            rows.append(values | hashed | {"label": number < LOADED and number % 12 == 0})
        columns = {name: dtype for name, dtype in self.source.raw_schema.items() if name in rows[0]}
        frame = pl.DataFrame(rows, columns, orient="row")
        content = f"{len(given)}"
        self.known.artifacts.write("raw", MARCH, Table(frame=frame, content=content, inputs=content, facts={}))

    def load(self, numbers: Iterable[int]) -> None:
        """Make them raw, and have the history know them."""
        self.write(numbers)
        self.known.run()

    def score(self, *numbers: int) -> list[float]:
        """Score payments, one after the other; their probabilities."""
        answers = [self.api.post("/v1/score", json=self.payment(number)) for number in numbers]
        assert {answer.status_code for answer in answers} == {200}, answers[-1].text
        return [answer.json()["probability"] for answer in answers]

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
