"""No skew: weeks of payments through the running API, in event order, and every feature equals the pipeline's, bit for bit.

Two sources: a public file with the standard fields and windows, and `simulated_online` with fields, entities and windows of its
own. Each payment is sent once all that its features look at was answered: the earlier payments of its entities whose payments are
looked at one by one, and those of earlier hours where whole hours are counted. The labels of days gone by are loaded from raw as
they become known, as the asset `history` does it. In the middle the scorer is killed, and started again. The stores in SQLite and
Redis are replayed side by side, each by scorers of its own.
"""

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

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
from fraud_core.features.past import window_features
from fraud_core.features.windows import Plan
from fraud_core.history.open import open_history
from fraud_core.history.store import HistoryStore
from fraud_core.intake.landing import land
from fraud_core.intake.raw import build_raw
from fraud_core.models.bundle import Fitted, make_bundle, write_bundle
from fraud_core.models.manifest import Calibration, Lineage, Lookback, Thresholds
from fraud_core.models.registry import point_at
from fraud_core.models.scorer import Scorer
from fraud_core.settings import Settings
from fraud_core.signing.keys import card_key, signing_key
from fraud_core.simulator.simulate import simulate
from fraud_core.sources import partitions
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.artifacts import Artifacts
from fraud_core.storage.database import open_database
from fraud_core.storage.directory import DirectoryStore
from fraud_core.training_data.transform import build_transformed, source_features
from tests.api_server import Server, Servers
from tests.servers.redis_server import REDIS, RedisServer
from tests.shared_data import shared_file

pytestmark = pytest.mark.integration

SOURCES = Path(__file__).resolve().parents[2] / "sources"
CALLERS = 16
DAY = timedelta(days=1)
Record = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Case:
    """What is replayed of a source.

    Attributes:
        months: the partitions, at full size; reduced, the first of them alone.
        reduced: how many payments.
        rows: start and end -> the file's rows of that time.
    """

    months: tuple[str, ...]
    reduced: int
    rows: Callable[[Source, datetime, datetime], pl.DataFrame]


def _published(source: Source, start: datetime, end: datetime) -> pl.DataFrame:
    when = pl.col("trans_date_trans_time").cast(pl.String)
    file = pl.scan_parquet(shared_file("sparkov_2019_2020.parquet"))
    return file.filter(when >= str(start.date()), when < str(end.date())).collect()


def _simulated(source: Source, start: datetime, end: datetime) -> pl.DataFrame:
    assert source.simulator is not None
    drawn = simulate(source.simulator, start, end, source.zone)
    return drawn.with_columns((pl.col("amount_cents") / 100).alias("amount")).select(source.wanted)


PAYMENTS = 62_285  # at full size: those of the public file's month
CASES = {
    "kaggle_sparkov": Case(("2020-06",), 5_000, _published),
    "simulated_online": Case(("2024-06", "2024-07", "2024-08"), 2_000, _simulated),
}


@dataclass(frozen=True)
class Sent:
    """A payment as the payment service has it.

    Attributes:
        transaction_id: by which it is known.
        body: JSON; amounts as text, the card's number and other personal ids as they are.
        timestamp: when it was made.
        entities: field -> whose past its features look at, by the names that raw has.
    """

    transaction_id: str
    body: bytes
    timestamp: datetime
    entities: dict[str, str]


@dataclass(frozen=True)
class Replay:
    """Months and what lies before them, by the pipeline; and a champion that uses every feature.

    Attributes:
        before: what history holds of the time before.
        raw: what it takes of the months, labels included.
        transformed: the payments that are sent, in event order.
    """

    source: Source
    settings: Settings
    begin: datetime
    before: pl.DataFrame
    raw: pl.DataFrame
    transformed: pl.DataFrame
    sent: list[Sent]
    scorer: Scorer

    @property
    def plan(self) -> Plan:
        """What its features need of the past."""
        return catalogue.plan_of(source_features(self.source))

    def history(self, settings: Settings) -> HistoryStore:
        """The history store that the settings name."""
        return open_history(settings, self.source.reach, self.plan)

    def beginning(self, payments: int) -> "Replay":
        """The same with so many payments."""
        return replace(self, sent=self.sent[:payments], transformed=self.transformed.head(payments))


@pytest.fixture(scope="module")
def replay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    name, full = request.param, request.config.getoption("--full")
    case, folder = CASES[name], tmp_path_factory.mktemp("replay")
    toml = SOURCES / f"{name}.toml"
    declared = load_source(toml)
    months = case.months if full else case.months[:1]
    begin, _ = partitions.window(months[0], declared.cadence, declared.zone)
    _, end = partitions.window(months[-1], declared.cadence, declared.zone)
    rows = case.rows(declared, begin - timedelta(days=declared.lookback_days + 1), end)
    rows.write_parquet(folder / "rows.parquet")
    source = load_source(toml, files=(str(folder / "rows.parquet"),))
    settings = Settings(_env_file=None, home=folder / "home")
    store, keys = DirectoryStore(Path(settings.store_url)), (card_key(settings), signing_key(settings))
    artifacts = Artifacts(store, keys[1])
    landing, earlier = land(source, store, keys[0], None), source.preceding(months[0])
    for key in (*earlier, *months):
        artifacts.write("raw", key, build_raw(source, landing, key, store, keys[0]).rows)
    for key in months:
        artifacts.write("transformed", key, build_transformed(source, artifacts, key))
    raw, transformed = (pl.concat([artifacts.scan(stage, key).collect() for key in months]) for stage in ("raw", "transformed"))
    transformed = transformed.sort("timestamp", "transaction_id")
    kept = pl.selectors.by_name(columns_for(catalogue.plan_of(source_features(source))), require_all=False)
    before = pl.concat([artifacts.scan("raw", key).select(kept).collect() for key in earlier])
    sent = list(_as_sent(source, raw, transformed["transaction_id"], rows))
    scorer = _promote(source, store, keys[1], transformed)
    return Replay(source, settings, begin, before, raw.select(kept), transformed, sent, scorer).beginning(PAYMENTS)


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

    lineage = Lineage(training_set="replay", partitions=(("replayed", "c0ffee", "accepted"),), card_key_id="k", libraries={})
    bundle = make_bundle(
        source=source.name,
        timezone=source.timezone,
        feature_version=catalogue.VERSION,
        **dict(fitted(chosen)),
        fallback=fitted(tuple(feature for feature in chosen if not feature.is_history)),
        lookback=Lookback(history_days=source.history_days, label_delay_days=source.label_delay_days),
        lineage=lineage,
        declared=source.declared,
    )
    write_bundle(store, bundle, key)
    point_at(store, bundle.version, key, how="promotion", who="test", at=datetime.now(UTC))
    return Scorer(bundle)


def _as_sent(source: Source, raw: pl.DataFrame, ids: pl.Series, rows: pl.DataFrame) -> Iterator[Sent]:
    """The payments of these ids, in their order; what raw keeps as a hash, or not at all, comes out of the file."""
    declared = source.declared
    hidden = {name: source.reading(name).names[0] for name in source.given if name == "card" or name in declared.personal}
    said = rows.select(
        pl.col(source.reading("transaction_id").names[0]).alias("transaction_id"),
        *(pl.col(column).cast(pl.String).alias(f"said {name}") for name, column in hidden.items()),
        pl.col(source.reading("amount_cents").names[0]).alias("said amount"),
    )
    told = {name: f"said {name}" if name in hidden else name for name in source.given if name not in {"label", "amount_cents"}}
    entities = catalogue.plan_of(source_features(source)).entities
    for row in ids.to_frame().join(raw.join(said, on="transaction_id"), on="transaction_id", maintain_order="left").to_dicts():
        body = {name: row[column] for name, column in told.items() if row[column] is not None}
        body |= {name: value.isoformat() for name, value in body.items() if hasattr(value, "isoformat")}
        in_base = f"{row['amount_cents'] // 100}.{row['amount_cents'] % 100:02d}"
        body["amount"] = row["said amount"] if declared.amounts.by else in_base
        yield Sent(
            row["transaction_id"],
            json.dumps(body).encode(),
            row["timestamp"],
            {name: row[name] for name in entities if row[name] is not None},
        )


class Turns:
    """Which calls a payment waits for: those that its features look at, and no other."""

    def __init__(self, plan: Plan) -> None:
        self._one_by_one = set(plan.sights)
        self._last: dict[tuple[str, str], list[asyncio.Task[None]]] = {}
        self._hours: dict[tuple[str, str], tuple[datetime, list[asyncio.Task[None]]]] = {}

    def before(self, payment: Sent) -> set[asyncio.Task[None]]:
        """The calls of what came before."""
        return {task for key, _ in self._keys(payment) for task in self._last.get(key, ())}

    def take(self, payment: Sent, call: asyncio.Task[None]) -> None:
        """Have later payments wait for this one's call."""
        for key, hour in self._keys(payment):
            if hour is None:
                self._last[key] = [call]
            else:
                self._hours[key][1].append(call)

    def _keys(self, payment: Sent) -> Iterator[tuple[tuple[str, str], datetime | None]]:
        """Entities; of those whose hours alone are counted with the hour, whose first payment ends the one before."""
        for entity, name in payment.entities.items():
            if entity in self._one_by_one:
                yield (entity, name), None
                continue
            key, hour = (entity, name), payment.timestamp.replace(minute=0, second=0, microsecond=0)
            now, calls = self._hours.setdefault(key, (hour, []))
            if now != hour:
                self._last[key], self._hours[key] = calls, (hour, [])
            yield key, hour


_HEAD = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Caller:
    """A connection that is kept, over plain HTTP/1.1: a replay waits for the scorer, and not for a client."""

    def __init__(self) -> None:
        self._url = ""

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            OSError, asyncio.IncompleteReadError: there is none; the next call connects anew.
        """
        try:
            if self._url != url:
                self.close()  # of a scorer that is gone
                at = urlsplit(url)
                self._reader, self._writer = await asyncio.open_connection(at.hostname, at.port)
                self._url = url
            self._writer.write(_HEAD % len(body) + body)
            told = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", told, re.IGNORECASE)
            assert length is not None, told
            return int(told.split(b" ", 2)[1]), await self._reader.readexactly(int(length[1]))
        except BaseException:  # whoever was interrupted leaves half an answer behind
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection."""
        if self._url:
            self._writer.close()
        self._url = ""


class Scene:
    """A scorer that is killed and comes back, and those who call it."""

    def __init__(self, replay: Replay, folder: Path, variables: dict[str, str]) -> None:
        self.replay = replay
        home = folder / "home"
        home.mkdir(parents=True)
        (home / "keys").symlink_to(replay.settings.home / "keys")
        (home / "store").symlink_to(replay.settings.home / "store")
        given = {name.removeprefix("FRAUD_").lower(): value for name, value in variables.items()}
        self.settings = Settings(_env_file=None, home=home, **given)
        self.servers = Servers(folder)
        self._variables = variables | {"FRAUD_FEATURES_LOGGED": "1", "FRAUD_POLL_SECONDS": "10"}  # there is but one champion
        self.answers: dict[str, float] = {}
        self.calling = 0
        self.kills = 0
        self.cut_off = 0

    def __enter__(self) -> Self:
        self.server = self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.servers.end()

    def _start(self) -> Server:
        return self.servers.start(self.settings, **self._variables)

    def kill(self) -> None:
        """SIGKILL to the server and its workers, and a new start."""
        self.cut_off = self.calling
        os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()
        self.kills += 1
        self.server = self._start()

    async def _kill_after(self, answers: int) -> None:
        while len(self.answers) < answers or not self.calling:  # some are in flight
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self.kill)

    async def send(self, payment: Sent, caller: Caller) -> None:
        """Until there is an answer: whoever got none sends the same again."""
        while True:
            self.calling += 1
            try:
                async with asyncio.timeout(60):
                    status, answer = await caller.post(self.server.url, payment.body)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.05)
                continue
            finally:
                self.calling -= 1
            assert status == 200, answer
            told = json.loads(answer)
            assert not told["degraded"]
            self.answers[payment.transaction_id] = told["probability"]
            return

    async def stream(self, kill_after: int) -> None:
        """The payments in event order, each once what it looks at was answered."""
        turns, begin, loaded = Turns(self.replay.plan), self.replay.begin, 0
        callers: asyncio.Queue[Caller] = asyncio.Queue()
        for _ in range(CALLERS):
            callers.put_nowait(Caller())
        with closing(self.replay.history(self.settings)) as history:
            await asyncio.to_thread(history.load, self.replay.before)
            async with asyncio.TaskGroup() as tasks:

                async def call(payment: Sent, earlier: set[asyncio.Task[None]]) -> None:
                    if earlier:
                        await asyncio.wait(earlier)
                    caller = await callers.get()
                    await self.send(payment, caller)
                    callers.put_nowait(caller)

                tasks.create_task(self._kill_after(kill_after))
                for day, group in groupby(self.replay.sent, key=lambda payment: (payment.timestamp - begin) // DAY):
                    for over in range(loaded, day):  # what a day's labels say is loaded when it is over
                        since, until = begin + over * DAY, begin + (over + 1) * DAY
                        rows = self.replay.raw.filter(pl.col("timestamp").is_between(since, until, "left"))
                        await asyncio.to_thread(history.load, rows)
                    loaded, calls = day, []
                    for payment in group:
                        calls.append(tasks.create_task(call(payment, turns.before(payment))))
                        turns.take(payment, calls[-1])
                    await asyncio.wait(calls)
        while not callers.empty():
            callers.get_nowait().close()


@pytest.mark.parametrize("workers", [2, 1])
@pytest.mark.parametrize("replay", CASES, indirect=True)
def test_every_feature_of_a_replay_equals_the_pipelines_bit_for_bit(
    workers: int, replay: Replay, tmp_path: Path, full: bool, record: Record
) -> None:
    source = replay.source
    if not full and (source.name, workers) not in {("kaggle_sparkov", 1), ("simulated_online", 2)}:
        pytest.skip("at full size alone: a rehearsal replays each source, and each number of workers, once")
    part = replay if full else replay.beginning(CASES[source.name].reduced)
    assert len(part.sent) == (PAYMENTS if full else CASES[source.name].reduced)
    with ExitStack() as running:
        variables = {"FRAUD_API_WORKERS": str(workers), "FRAUD_HISTORY_TIMEOUT": "5000"}
        if source.currency is not None and source.currency.rates:
            variables["FRAUD_RATES"] = source.currency.rates
        stores = {"sqlite": variables}
        if REDIS is not None:
            redis = RedisServer(tmp_path)
            running.callback(redis.stop)
            stores["redis"] = variables | {"FRAUD_HISTORY": redis.url}
        scenes = {name: running.enter_context(Scene(part, tmp_path / name, given)) for name, given in stores.items()}
        asyncio.run(_side_by_side(list(scenes.values())))
        figures = {name: _compared(scene) for name, scene in scenes.items()}
    own = "" if source.name == "kaggle_sparkov" else f"{source.name}_"
    for name, found in figures.items():
        record(f"replay_{own}{name}_{workers}", found)
    if REDIS is None:
        pytest.skip("SQLite was replayed; Redis needs Debian's package redis-server")


async def _side_by_side(scenes: Sequence[Scene]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for scene in scenes:
            tasks.create_task(scene.stream(kill_after=len(scene.replay.sent) // 2))


def _compared(scene: Scene) -> dict[str, Any]:
    """The figures of a replay that is over; every feature of every payment was what the pipeline has."""
    part = scene.replay
    source = part.source
    scene.server.stop()
    with closing(part.history(scene.settings)) as history:
        recorded = history.recorded(0, 10**6)
    assert scene.kills == 1
    log = {one.transaction_id: one for one in DecisionLog(open_database(scene.settings), 400).recent(part.begin, 10**6)}
    features = [feature.name for feature in source_features(source)]
    windows = {feature.name for feature in window_features(source.declared)}
    assert windows <= set(features), "none is left out"
    rows = part.transformed
    mismatches, by_hash, differing = 0, 0, Counter[str]()
    for identity, *values in rows.select("transaction_id", *features).iter_rows():
        expected = {name: _plain(value) for name, value in zip(features, values, strict=True)}
        found = log[identity]
        # A decision that was recorded and killed before it was logged is logged by its hash alone when it is sent again.
        by_hash += found.features is None
        differs = [name for name in expected if found.features and found.features.get(name, "none") != expected[name]]
        differing.update(differs)
        mismatches += bool(differs) or found.features_sha256 != catalogue.digest(expected)
    assert mismatches == 0, differing
    assert by_hash <= scene.cut_off
    assert len(log) == len(part.sent) == recorded[-1].sequence
    assert len({one.transaction_id for one in recorded}) == len(recorded)
    stored = part.scorer.score_features(rows)
    online = np.array([scene.answers[identity] for identity in rows["transaction_id"]])
    assert np.abs(online - stored).max() <= 1e-12
    labels = rows["label"].to_numpy()
    return {
        "payments": len(part.sent),
        "features": len(features),
        "windows": len(windows),
        "own_windows": len(windows - {feature.name for feature in catalogue.STANDARD.features}),
        "entities": list(part.plan.entities),
        "windows_of_one_value": sorted(name for name in windows if rows[name].n_unique() == 1),
        "mismatches": mismatches,
        "kills": scene.kills,
        "cut_off_by_the_kill": scene.cut_off,
        "average_precision_online": metrics.average_precision(labels, online),
        "average_precision_offline": metrics.average_precision(labels, stored),
        "fraud_rate": float(labels.mean()),
    }


def _plain(value: Any) -> float | str | None:
    return value if value is None or isinstance(value, str) else float(value)
