"""A store of synthetic partitions: learning and promotion without simulator, intake or Dagster."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fraud_assets.installation import Installation
from fraud_assets.training.rows import CardCodes, read_rows
from fraud_assets.training.split import SIDES, split_of
from fraud_assets.training.training import SideCount, TrainedModel
from fraud_core import gate
from fraud_core.evaluation.report import evaluate
from fraud_core.features import catalogue
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.gate import Finding, Judgement, PartitionRef, Verdict
from fraud_core.models.bundle import make_bundle
from fraud_core.models.manifest import Calibration, Thresholds
from fraud_core.models.scorer import Scorer
from fraud_core.settings import Settings
from fraud_core.signing.keys import canonical_json
from fraud_core.sources import partitions
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Table
from tests.stores import store_settings

NOW = datetime(2024, 8, 1, tzinfo=UTC)
MONTHS = ("2024-01", "2024-02", "2024-03", "2024-04", "2024-05", "2024-06")
NAMES = ("timestamp", "amount", "label", "card", "category", "birth_date", "city_population")
PLACES = ("home_latitude", "home_longitude", "merchant_latitude", "merchant_longitude")
CATEGORIES = ("fuel", "groceries", "online", "travel")


def declared(**changes: Any) -> Source:
    """A monthly source split by time, with every column; anything may be declared otherwise."""
    columns: dict[str, Any] = {name: name for name in (*NAMES, *PLACES)}
    columns |= {name: {"column": name} for name in ("timestamp", "birth_date", "label")}
    split = {"protocol": "time", "holdout_days": 30, "validation_days": 30, "training_days": 30}
    values = {"name": "bench", "paths": ["nowhere.csv"], "timezone": "America/New_York", "cadence": "monthly"}
    values |= {"first": MONTHS[0], "label_delay_days": 5, "history_days": 0, "columns": columns, "split": split}
    values |= {"history": {"enabled": False, "reason": "made rows have no past"}}
    return Source.model_validate(values | changes)


def made_rows(key: str, source: Source, rows: int = 1_200, seed: int = 1, fraud_share: float = 0.05) -> pl.DataFrame:
    """A transformed partition of n rows whose frauds are larger, by night and online; every row can be told apart."""
    rng = np.random.default_rng([seed, int(key.replace("-", ""))])
    start, end = (int(at.timestamp() * 1e6) for at in partitions.window(key, source.cadence, source.zone))
    label = rng.random(rows) < fraud_share
    card = rng.integers(0, 150, rows)
    log_amount = np.round(rng.normal(3.0 + 1.4 * label, 1.0), 9)
    hour = np.where(label & (rng.random(rows) < 0.6), rng.integers(0, 6, rows), rng.integers(0, 24, rows))
    category = np.where(label & (rng.random(rows) < 0.5), 2, rng.integers(0, len(CATEGORIES), rows))
    frame = pl.DataFrame(
        {
            "transaction_id": [f"{key}-{number}" for number in range(rows)],
            "timestamp": pl.Series(np.sort(rng.integers(start, end, rows))).cast(pl.Datetime("us", "UTC")),
            "amount_cents": np.maximum(np.round(100 * np.expm1(log_amount)), 1).astype(np.int64),
            "label": label,
            "card": [hashlib.sha256(b"one key %d" % number).hexdigest()[:32] for number in card],
            "split_bucket": pl.Series((card * 7_919) % 1_000, dtype=pl.Int16),
            "log_amount": log_amount,
            "hour": hour,
            "weekday": rng.integers(0, 7, rows),
            "night": ((hour >= 22) | (hour < 6)).astype(np.int64),
            "age": 18 + card % 60,
            "distance": rng.integers(0, 90_000, rows),
            "city_population": 1_000 + 37 * card,
            "category": np.array(CATEGORIES)[category],
        }
    )
    return frame.with_columns(pl.when(pl.int_range(pl.len()) % 97 == 0).then(None).otherwise("age").alias("age"))


@dataclass(frozen=True)
class Bench:
    """An installation whose partitions are put there by hand."""

    installation: Installation

    def put(self, key: str, frame: pl.DataFrame, *, accepted: bool = True) -> None:
        """Write a transformed partition and the gate's verdict on it."""
        installation = self.installation
        content = hashlib.sha256(frame.drop("card", strict=False).write_csv().encode()).hexdigest()
        stamps = frame["timestamp"].dt.epoch("us")
        start = int(partitions.window(key, installation.source.cadence, installation.source.zone)[0].timestamp() * 1e6)
        facts = {"first_us": start if frame.is_empty() else stamps.min(), "last_us": start if frame.is_empty() else stamps.max()}
        installation.artifacts.write("transformed", key, Table(frame=frame, content=content, inputs="", facts=facts))
        drifted = Finding(name="feature_drift", message="log_amount has drifted", feature="log_amount", value=0.9, bound=0.1)
        verdict = Verdict(
            partition=key,
            content=content,
            kind="judged",
            accepted=accepted,
            rows=len(frame),
            findings=() if accepted else (drifted,),
            sample_rows=0,
            sample_sha256="",
            seed=0,
            detector="none",
            versions={},
            created_at=NOW,
        )
        nothing = pl.DataFrame()
        gate.record(installation.artifacts.store, installation.artifacts.signing_key, Judgement(verdict, nothing, nothing, b""))

    def fill(self, frames: Mapping[str, pl.DataFrame], rejected: tuple[str, ...] = ()) -> "Bench":
        """Put partitions, those named as rejected; returns itself."""
        for key, frame in frames.items():
            self.put(key, frame, accepted=key not in rejected)
        return self

    def rows(self, **options: Any) -> dict[str, pl.DataFrame]:
        """Six months of synthetic rows."""
        return {key: made_rows(key, self.installation.source, **options) for key in MONTHS}

    def refs(self) -> list[PartitionRef]:
        """All partitions, by their present content."""
        return [PartitionRef(partition=key, content=pointer.content) for key, pointer in self.installation.transformed().items()]

    def with_settings(self, **settings: Any) -> "Bench":
        """The same store under other settings."""
        return Bench(replace(self.installation, settings=self.installation.settings.model_copy(update=settings)))

    def with_source(self, source: Source) -> "Bench":
        """The same store under another declaration of its source."""
        return Bench(replace(self.installation, source=source))


Benches = Callable[..., Bench]


@pytest.fixture
def new_bench(tmp_path: Path) -> Benches:
    """Makes empty installations: `new_bench(source_changes..., settings=...)`, each with a store and keys of its own."""
    made: list[Bench] = []

    def make(settings: Mapping[str, Any] | None = None, **source: Any) -> Bench:
        home = tmp_path / f"home{len(made)}"
        given: dict[str, Any] = {"min_holdout_frauds": 20, "bootstrap_draws": 100, "threads": 1}
        given |= {"dvc_remote": "off", "mlflow_url": "off"}
        given |= {**store_settings(home), **(settings or {})}
        made.append(Bench(Installation(Settings(_env_file=None, home=home, **given), declared(**source))))
        return made[-1]

    return make


@pytest.fixture
def bench(new_bench: Benches) -> Bench:
    """Six accepted months."""
    empty = new_bench()
    return empty.fill(empty.rows())


def handmade(bench: Bench, intercept: float = -5.0, **coefficients: float) -> TrainedModel:
    """A linear model with these coefficients, as training would hand it over: evaluated on the hold-out."""
    installation, names = bench.installation, tuple(coefficients)
    split = split_of(installation.source, installation.transformed())
    task = installation.training_task(installation.training_set())
    document = {"coefficients": list(coefficients.values()), "intercept": intercept, "means": [0.0] * len(names)}
    bundle = make_bundle(
        source=installation.source.name,
        timezone=installation.source.timezone,
        feature_version=catalogue.VERSION,
        kind="linear",
        model=canonical_json(document),
        encoder=Encoder(columns=tuple(ColumnEncoding(feature=name, missing=0.0) for name in names)),
        calibration=Calibration(slope=1.0, intercept=0.0),
        thresholds=Thresholds(review=0.2, decline=0.8),
        lineage=task.lineage,
    )
    thresholds = bundle.manifest.learned.thresholds
    policy = task.settings.policy(thresholds, installation.source.label_delay_days)
    rows = read_rows(task.data, task.measured, split.holdout)
    cards = CardCodes() if "card" in rows.frame.columns else None
    report = evaluate(
        rows.evaluation(Scorer(bundle).score_features(rows.frame), installation.source, cards, split.by_time), policy
    )
    return TrainedModel(
        bundle=bundle,
        estimator=None,
        split=split,
        sides={side: SideCount(report.rows, report.frauds) for side in SIDES},
        candidates=(("linear", 0.5), ("random forest", 0.4)),
        candidates_fraud_rate=0.05,
        policy=policy,
        validation=report,
        holdout=report,
        holdout_without_rejected=None,
        holdout_id="0" * 16,
        holdout_looks=1,
    )


@pytest.fixture
def make_model() -> Callable[..., TrainedModel]:
    """Makes linear models by their coefficients: `make_model(bench, log_amount=1.0)`."""
    return handmade
