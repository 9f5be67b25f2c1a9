"""No skew: a month of payments through the running API, in event order, and every feature equals the pipeline's, bit for bit.

Each payment is sent once what came before it in other hours, and on its own card, was answered. The labels of days gone by are
loaded from raw as they become known, as the asset `history` does it. In the middle the scorer is killed, and started again.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import treelite
from sklearn.ensemble import HistGradientBoostingClassifier

from fraud_assets.training.preprocessing import fit_encoder
from fraud_assets.training.rows import Rows
from fraud_core.decisions.log import DecisionLog
from fraud_core.evaluation import metrics
from fraud_core.features import catalogue
from fraud_core.features.batch import columns_for
from fraud_core.features.feature import Feature
from fraud_core.history.open import open_history
from fraud_core.intake.landing import land
from fraud_core.intake.raw import build_raw
from fraud_core.models.bundle import Fitted, make_bundle, write_bundle
from fraud_core.models.manifest import Calibration, Lineage, Lookback, Thresholds
from fraud_core.models.registry import point_at
from fraud_core.models.scorer import Scorer
from fraud_core.settings import Settings
from fraud_core.signing.keys import card_key, signing_key
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.artifacts import Artifacts
from fraud_core.storage.database import open_database
from fraud_core.storage.directory import DirectoryStore
from fraud_core.training_data.transform import build_transformed, source_features
from tests.api_server import Server, Servers
from tests.servers.redis_server import REDIS, RedisServer
from tests.shared_data import shared_file

pytestmark = pytest.mark.integration

COLUMNS = pl.selectors.by_name(columns_for(catalogue.STANDARD_PLAN), require_all=False)
SOURCES = Path(__file__).resolve().parents[2] / "sources"
MONTH = "2020-06"
BEGIN = datetime(2020, 6, 1, tzinfo=UTC)
REDUCED = 5_000
CALLERS = 16
Record = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Replay:
    """A month and what lies before it, by the pipeline; and a champion that uses every feature."""

    source: Source
    settings: Settings
    before: pl.DataFrame
    raw: pl.DataFrame
    transformed: pl.DataFrame
    sent: list[dict[str, Any]]
    scorer: Scorer


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    folder = tmp_path_factory.mktemp("replay")
    file = pl.scan_parquet(shared_file("sparkov_2019_2020.parquet"))
    when = pl.col("trans_date_trans_time").cast(pl.String)
    months = file.filter(when >= "2020-04-24", when < "2020-07-01").collect()
    months.write_parquet(folder / "months.parquet")
    source = load_source(SOURCES / "kaggle_sparkov.toml", files=(str(folder / "months.parquet"),))
    source = source.model_copy(update={"first": "2020-04", "last": MONTH})
    settings = Settings(_env_file=None, home=folder / "home")
    store, keys = DirectoryStore(Path(settings.store_url)), (card_key(settings), signing_key(settings))
    artifacts = Artifacts(store, keys[1])
    landing = land(source, store, keys[0], None)
    for key in source.keys:
        artifacts.write("raw", key, build_raw(source, landing, key, store, keys[0]).rows)
    artifacts.write("transformed", MONTH, build_transformed(source, artifacts, MONTH))
    raw = artifacts.scan("raw", MONTH).collect()
    transformed = artifacts.scan("transformed", MONTH).collect()
    before = pl.concat([artifacts.scan("raw", key).select(COLUMNS).collect() for key in source.keys[:-1]])
    scorer = _promote(source, store, keys[1], transformed)
    cards = months.select(pl.col("trans_num").alias("transaction_id"), pl.col("cc_num").cast(pl.String).alias("number"))
    sent = list(_as_sent(raw.join(cards, on="transaction_id", maintain_order="left")))
    return Replay(source, settings, before, raw, transformed, sent, scorer)


def _promote(source: Source, store: DirectoryStore, key: Any, transformed: pl.DataFrame) -> Scorer:
    labels = transformed["label"].to_numpy()
    chosen = source_features(source)

    def fitted(some: tuple[Feature, ...]) -> Fitted:
        encoder = fit_encoder(Rows(transformed, np.ones(len(labels)), np.zeros(len(labels), dtype=np.int64)), some)
        model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=16, early_stopping=False, random_state=1)
        model.fit(encoder.frame_matrix(transformed), labels)
        return Fitted(
            kind="boosting",
            model=treelite.sklearn.import_model(model).serialize_bytes(),
            encoder=encoder,
            calibration=Calibration(slope=1.0, intercept=0.0),
            thresholds=Thresholds(review=0.2, decline=0.8),
        )

    lineage = Lineage(training_set="replay", partitions=((MONTH, "c0ffee", "accepted"),), card_key_id="k", libraries={})
    bundle = make_bundle(
        source=source.name,
        timezone=source.timezone,
        feature_version=catalogue.VERSION,
        **dict(fitted(chosen)),
        fallback=fitted(catalogue.PLAIN),
        lookback=Lookback(history_days=source.history_days, label_delay_days=source.label_delay_days),
        lineage=lineage,
    )
    write_bundle(store, bundle, key)
    point_at(store, bundle.version, key, how="promotion", who="test", at=datetime.now(UTC))
    return Scorer(bundle)


def _as_sent(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """As the payment service has them: amounts as text, the card's number."""
    names = ("transaction_id", "merchant", "category", "city_population")
    places = ("home_latitude", "home_longitude", "merchant_latitude", "merchant_longitude")
    for row in rows.sort("timestamp", maintain_order=True).iter_rows(named=True):
        amount = f"{row['amount_cents'] // 100}.{row['amount_cents'] % 100:02d}"
        dates = {"timestamp": row["timestamp"].isoformat(), "birth_date": row["birth_date"].isoformat()}
        yield {**{name: row[name] for name in (*names, *places)}, **dates, "amount": amount, "card": row["number"]}


class Scene:
    """A scorer that is killed and comes back, and those who call it."""

    def __init__(self, servers: Servers, replay: Replay, folder: Path, variables: dict[str, str]) -> None:
        self.replay = replay
        home = folder / "home"
        home.mkdir()
        (home / "keys").symlink_to(replay.settings.home / "keys")
        (home / "store").symlink_to(replay.settings.home / "store")
        given = {name.removeprefix("FRAUD_").lower(): value for name, value in variables.items()}
        self.settings = Settings(_env_file=None, home=home, **given)
        self._servers = servers
        self._variables = variables | {"FRAUD_FEATURES_LOGGED": "1"}
        self.server = self._start()
        self.answers: dict[str, float] = {}
        self.kills = 0

    def _start(self) -> Server:
        return self._servers.start(self.settings, **self._variables)

    def kill(self) -> None:
        """SIGKILL to the server and its workers, and a new start."""
        os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()
        self.kills += 1
        self.server = self._start()

    async def send(self, payment: dict[str, Any], http: httpx.AsyncClient) -> None:
        """Until there is an answer: whoever got none sends the same again."""
        while True:
            try:
                answer = await http.post(f"{self.server.url}/v1/score", json=payment)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code == 200, answer.text
            body = answer.json()
            assert not body["degraded"]
            self.answers[payment["transaction_id"]] = body["probability"]
            return

    async def stream(self, kill_after: int) -> None:
        """The payments in event order: hour after hour, and in an hour each card's in its own order."""
        limit = asyncio.Semaphore(CALLERS)
        history = open_history(self.settings, self.replay.source.reach)
        with closing(history):
            history.load(self.replay.before)
            day = BEGIN
            async with httpx.AsyncClient(timeout=60) as http:

                async def one_card(payments: list[dict[str, Any]]) -> None:
                    for payment in payments:
                        async with limit:
                            await self.send(payment, http)

                for hour, group in groupby(self.replay.sent, key=lambda payment: payment["timestamp"][:13]):
                    now = datetime.fromisoformat(f"{hour}:00:00+00:00")
                    while day + timedelta(days=1) <= now:  # what a day's labels say is loaded when it is over
                        history.load(
                            self.replay.raw.select(COLUMNS).filter(
                                pl.col("timestamp").is_between(day, day + timedelta(days=1), "left")
                            )
                        )
                        day += timedelta(days=1)
                    by_card: dict[str, list[dict[str, Any]]] = {}
                    for payment in group:
                        by_card.setdefault(payment["card"], []).append(payment)
                    calls = [asyncio.create_task(one_card(payments)) for payments in by_card.values()]
                    if not self.kills and len(self.answers) >= kill_after:
                        await asyncio.sleep(0.02)  # some are in flight
                        await asyncio.to_thread(self.kill)
                    await asyncio.gather(*calls)


NO_REDIS = pytest.mark.skipif(REDIS is None, reason="needs Debian's package redis-server")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("backend", ["sqlite", pytest.param("redis", marks=NO_REDIS)])
def test_every_feature_of_a_replayed_month_equals_the_pipelines_bit_for_bit(
    backend: str, workers: int, replay: Replay, servers: Servers, tmp_path: Path, full: bool, record: Record
) -> None:
    variables = {"FRAUD_API_WORKERS": str(workers), "FRAUD_HISTORY_TIMEOUT": "5000"}
    (tmp_path / "redis").mkdir()
    redis = RedisServer(tmp_path / "redis") if backend == "redis" else None
    if redis is not None:
        variables["FRAUD_HISTORY"] = redis.url
    part = replay if full else _beginning_of(replay, REDUCED)
    assert len(part.sent) >= (50_000 if full else REDUCED)
    scene = Scene(servers, part, tmp_path, variables)
    try:
        asyncio.run(scene.stream(kill_after=len(part.sent) // 2))
        scene.server.stop()
        history = open_history(scene.settings, part.source.reach)
        with closing(history):
            recorded = history.recorded(0, 10**6)
    finally:
        if redis is not None:
            redis.stop()
    assert scene.kills == 1
    log = {one.transaction_id: one for one in DecisionLog(open_database(scene.settings), 400).recent(BEGIN, 10**6)}
    columns = part.transformed.sort("timestamp", "transaction_id")
    arrays = {feature.name: columns[feature.name] for feature in source_features(part.source)}
    mismatches = 0
    for at, identity in enumerate(columns["transaction_id"]):
        values = {name: _plain(series[at]) for name, series in arrays.items()}
        found = log[identity]
        mismatches += found.features_sha256 != catalogue.digest(values)
        if found.features is not None:
            mismatches += dict(found.features) != values
    assert mismatches == 0
    assert len(log) == len(part.sent) == len({one.transaction_id for one in recorded})
    stored = replay.scorer.score_features(columns)
    online = np.array([scene.answers[identity] for identity in columns["transaction_id"]])
    assert np.abs(online - stored).max() <= 1e-12
    labels = columns["label"].to_numpy()
    figures = {
        "payments": len(part.sent),
        "mismatches": mismatches,
        "kills": scene.kills,
        "average_precision_online": metrics.average_precision(labels, online),
        "average_precision_offline": metrics.average_precision(labels, stored),
        "fraud_rate": float(labels.mean()),
    }
    record(f"replay_{backend}_{workers}", figures)


def _beginning_of(replay: Replay, payments: int) -> Replay:
    sent = replay.sent[:payments]
    known = pl.Series([payment["transaction_id"] for payment in sent])
    transformed = replay.transformed.filter(pl.col("transaction_id").is_in(known.implode()))
    return Replay(replay.source, replay.settings, replay.before, replay.raw, transformed, sent, replay.scorer)


def _plain(value: Any) -> float | str | None:
    return value if value is None or isinstance(value, str) else float(value)
