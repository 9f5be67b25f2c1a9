"""Prometheus exporter of the pipeline: read from Dagster's event log, the alert store and the outboxes.

A run that ends, or is killed, leaves its events behind, whoever started it; so this process may come and go, and need not be told
of anything (docs/adr/exporter.md says why this and not the Pushgateway). Events are read once, by their storage id.

Labels are bounded: assets and checks are those of the graph, and of partitions the newest are told.
"""

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, TypeVar, get_args

import dagster as dg
from dagster import DagsterEventType
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fraud_assets.events.alerts import open_alert_store
from fraud_assets.events.causes import is_failed_check
from fraud_assets.events.reader import read_new_events
from fraud_assets.installation import Installation
from fraud_assets.operations.overruling import CHECK as GATE
from fraud_core.decisions.log import DecisionLog
from fraud_core.errors import SettingsError, StoreError
from fraud_core.labels.log import LabelLog
from fraud_core.labels.resolve import LabelSource, Outcome
from fraud_core.review.backlog import ReviewBacklog
from fraud_core.sources import partitions
from fraud_core.sources.source import Source
from fraud_core.storage.database import open_database

logger = logging.getLogger(__name__)

MOST_PARTITIONS = 60  # of an asset are told, the newest
EVENTS_AT_ONCE = 1_000
EVENTS = (
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_CHECK_EVALUATION,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.STEP_FAILURE,
)
NO_PARTITION = ""
REVIEW_DAYS = (7, 30)
LABELS_AT_ONCE = 5_000
ASK_AGAIN, ASK_AFTER_FAILURE = timedelta(minutes=1), timedelta(seconds=10)


@dataclass
class Made:
    """The last success of an asset, or of one of its partitions."""

    at: float
    rows: int | None
    refused: int | None
    seconds: float | None = None


@dataclass
class Evaluated:
    """The newest evaluation of a check, of one partition."""

    passed: bool
    severity: str
    failing_since: float | None
    refused_by_person: bool


@dataclass
class Record:
    """What the events so far have told."""

    made: dict[str, dict[str, Made]] = field(default_factory=lambda: defaultdict(dict))
    evaluated: dict[tuple[str, str], dict[str, Evaluated]] = field(default_factory=lambda: defaultdict(dict))
    results: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    _of_step: dict[tuple[str, str], list[Made]] = field(default_factory=lambda: defaultdict(list))

    def take(self, entry: dg.EventLogEntry) -> None:
        """Take in one event."""
        event = entry.dagster_event
        assert event is not None
        step = (entry.run_id, event.step_key or "")
        match event.event_type:
            case DagsterEventType.ASSET_MATERIALIZATION:
                self._take_materialization(event.step_materialization_data.materialization, entry.timestamp, step)
            case DagsterEventType.ASSET_CHECK_EVALUATION:
                assert isinstance(event.event_specific_data, dg.AssetCheckEvaluation)
                self._take_evaluation(event.event_specific_data, entry.timestamp)
            case DagsterEventType.STEP_SUCCESS:
                for made in self._of_step.pop(step, ()):
                    made.seconds = event.step_success_data.duration_ms / 1_000
            case DagsterEventType.STEP_FAILURE:
                self._of_step.pop(step, None)
                error = event.step_failure_data.error
                if not is_failed_check(error):  # that one, the evaluation has told
                    self.failures[step[1]] += 1

    def _take_materialization(self, told: dg.AssetMaterialization, at: float, step: tuple[str, str]) -> None:
        rows, refused = _number(told, "dagster/row_count"), _number(told, "quarantined")
        made = Made(at, rows, refused)
        self.made[told.asset_key.to_user_string()][told.partition or NO_PARTITION] = made
        self._of_step[step].append(made)

    def _take_evaluation(self, told: dg.AssetCheckEvaluation, at: float) -> None:
        asset, severity = told.asset_key.to_user_string(), told.severity.value.lower()
        known = self.evaluated[asset, told.check_name]
        before = known.get(told.partition or NO_PARTITION)
        since = before.failing_since if before is not None and before.failing_since is not None else at
        known[told.partition or NO_PARTITION] = Evaluated(
            told.passed, severity, None if told.passed else since, "refused_by" in told.metadata
        )
        self.results[asset, told.check_name, severity, "passed" if told.passed else "failed"] += 1


class PipelineCollector(Collector):
    """The pipeline's metrics, brought up to date whenever somebody asks.

    Args:
        installation: the installation.
        instance: its Dagster instance; the event log must be one log (consolidated SQLite, or Postgres).
    """

    def __init__(self, installation: Installation, instance: dg.DagsterInstance) -> None:
        self._project = installation
        self._instance = instance
        self._record = Record()
        self._cursor = 0
        self._handled: list[int] = []
        self._reading = threading.Lock()
        engine = open_database(installation.settings)
        self._reviews = Reviews(DecisionLog(engine, REVIEW_DAYS[-1]), LabelLog(engine))

    def collect(self) -> Iterator[Metric]:
        """Read what is new, and tell everything."""
        with self._reading:
            self._read()
            yield from _assets(self._record)
            yield from _checks(self._record)
            yield from _source(self._project.source, self._record)
        yield from _backlogs(self._project)
        yield from self._reviews.metrics(datetime.now(UTC))

    def _read(self) -> None:
        while True:
            news = read_new_events(self._instance, EVENTS, self._cursor, self._handled, EVENTS_AT_ONCE)
            if news.restarted:
                self._record = Record()
                self._handled = []
            elif news.cursor == self._cursor and not news.entries:
                return
            for _, entry in news.entries:
                self._record.take(entry)
            handled = [*self._handled, *(storage_id for storage_id, _ in news.entries)]
            self._handled = [storage_id for storage_id in handled if storage_id > news.settled]
            self._cursor = news.cursor


class Reviews:
    """Outcomes that were told, and how often the review queue was right. The database is asked once a minute at most.

    Args:
        decisions: what was sent to review.
        labels: what became of it.
    """

    def __init__(self, decisions: DecisionLog, labels: LabelLog) -> None:
        self._backlog = ReviewBacklog(decisions, labels)
        self._labels = labels
        self._next: datetime | None = None
        self._told: list[Metric] = []
        self._received: Counter[tuple[str, str]] = Counter(dict.fromkeys(product(get_args(Outcome), get_args(LabelSource)), 0))
        self._sequence = 0

    def metrics(self, now: datetime) -> list[Metric]:
        """Labels by outcome and source; precision, of windows of which something is known. Nothing while the database is gone."""
        if self._next is None or now >= self._next:
            self._next = now + ASK_AGAIN
            try:
                self._told = self._ask(now)
            except StoreError as error:
                logger.warning("reviews and labels are not told: %s", error)
                self._told, self._next = [], now + ASK_AFTER_FAILURE
        return self._told

    def _ask(self, now: datetime) -> list[Metric]:
        known: dict[tuple[str, ...], float] = {}
        precision: dict[tuple[str, ...], float] = {}
        for days in REVIEW_DAYS:
            outcomes = self._backlog.outcomes(now - timedelta(days=days))
            window = (f"{days}d",)
            known[window] = count = outcomes["fraud"] + outcomes["legitimate"]
            if count:
                precision[window] = outcomes["fraud"] / count
        share = "Share of frauds among reviewed payments whose outcome is known."
        while labels := self._labels.since(self._sequence, LABELS_AT_ONCE):
            self._received.update((label.outcome, label.source) for label in labels)
            self._sequence = labels[-1].sequence
        return [
            _counter("fraud_labels_kept", "Outcomes in the log of labels.", ("outcome", "source"), self._received),
            _gauge("fraud_review_precision", share, ("window",), precision),
            _gauge("fraud_review_known", "Reviewed payments whose outcome is known.", ("window",), known),
        ]


def serve(installation: Installation, instance: dg.DagsterInstance, host: str, port: int) -> threading.Thread:
    """Serve the pipeline's metrics at this address, in a thread that goes on until the process ends.

    Raises:
        SettingsError: the address cannot be bound.
    """
    registry = CollectorRegistry()
    registry.register(PipelineCollector(installation, instance))
    try:
        _, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(
            f"The exporter cannot bind {host}:{port} ({error.strerror}); set FRAUD_METRICS_HOST and FRAUD_EXPORTER_PORT."
        ) from error
    return thread


_Labels = TypeVar("_Labels", bound=tuple[str, ...])


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[_Labels, float | None]) -> Metric:
    """A gauge by its labels' values; what is None is not told."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for told, value in values.items():
        if value is not None:
            family.add_metric(told, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], values: Mapping[_Labels, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for told, value in values.items():
        family.add_metric(told, value)
    return family


def _assets(record: Record) -> Iterator[Metric]:
    names = ("asset", "partition")
    made = {(asset, partition): by[partition] for asset, by in record.made.items() for partition in _newest(by)}
    success, seconds = "fraud_asset_last_success_timestamp_seconds", "fraud_asset_duration_seconds"
    yield _gauge(success, "When an asset was last materialized.", names, {of: one.at for of, one in made.items()})
    yield _gauge(seconds, "How long its step took then.", names, {of: one.seconds for of, one in made.items()})
    yield _gauge("fraud_asset_rows", "How many rows it has.", names, {of: one.rows for of, one in made.items()})
    failures = {(step,): count for step, count in record.failures.items()}
    yield _counter("fraud_step_failures", "Steps that raised.", ("step",), failures)


def _checks(record: Record) -> Iterator[Metric]:
    labels = ("asset", "check", "severity")
    yield _counter("fraud_check_results", "Evaluations of checks.", (*labels, "result"), record.results)
    failing: Counter[tuple[str, ...]] = Counter()
    for check, evaluated in record.evaluated.items():
        for one in evaluated.values():
            failing[*check, one.severity] += not one.passed
    yield _gauge("fraud_checks_failing", "Partitions whose newest evaluation failed.", labels, failing)
    gate = record.evaluated[GATE.asset_key.to_user_string(), GATE.name]
    waiting = {
        partition: one.failing_since
        for partition, one in gate.items()
        if one.failing_since is not None and not one.refused_by_person
    }
    accepted = sum(one.passed for one in gate.values())
    states = {("accepted",): accepted, ("waiting",): len(waiting), ("refused",): len(gate) - accepted - len(waiting)}
    yield _gauge("fraud_partitions", "Partitions, by what the drift gate says of them.", ("state",), states)
    yield _gauge(
        "fraud_partition_waiting_since_timestamp_seconds",
        "Since when a partition that the gate rejected waits for a person to accept or refuse it.",
        ("partition",),
        {(partition,): waiting[partition] for partition in _newest(waiting)},
    )


def _source(source: Source, record: Record) -> Iterator[Metric]:
    made = record.made["raw"]
    shares = {
        (key,): None if one.rows is None or one.refused is None else one.refused / max(one.rows + one.refused, 1)
        for key, one in ((key, made[key]) for key in _newest(made))
    }
    yield _gauge("fraud_partition_quarantined_share", "Share of rows that was refused.", ("partition",), shares)
    yield GaugeMetricFamily(
        "fraud_quarantined_share_tolerated",
        "Share of refused rows above which a partition is stopped.",
        value=source.quality.quarantined_share,
    )
    due = next_due(source, [partition for partition, one in made.items() if one.rows])
    if due is not None:
        yield GaugeMetricFamily(
            "fraud_next_partition_due_timestamp_seconds",
            "When the first partition is over that has no rows yet.",
            value=due.timestamp(),
        )


def next_due(source: Source, present: list[str]) -> datetime | None:
    """When the partition after the newest present one is over; None where the source has no more."""
    key = partitions.next_key(max(present), source.cadence) if present else source.first
    if not source.is_open and key not in source.keys:
        return None
    return partitions.window(key, source.cadence, source.zone)[1]


def _backlogs(installation: Installation) -> Iterator[Metric]:
    book = open_alert_store(installation)
    now = datetime.now(UTC)
    backlog = book.backlog(now)
    yield GaugeMetricFamily("fraud_alerts_open", "Alerts that the sensor keeps open.", value=backlog.open)
    yield GaugeMetricFamily("fraud_alerts_undelivered", "Messages that the webhook did not take yet.", value=backlog.undelivered)
    told = book.told_at()
    if told is not None:
        yield GaugeMetricFamily(
            "fraud_alert_round_timestamp_seconds",
            "When the alert sensor last told everything there is.",
            value=told.timestamp(),
        )
    folders = sorted((installation.settings.home / "outbox").glob("*/"))
    queues = {(folder.name,): sum(not path.name.startswith(".") for path in folder.glob("*.json")) for folder in folders}
    yield _gauge("fraud_outbox_backlog", "What waits on disk for another server.", ("queue",), queues)


def _newest(keys: dict[str, Any]) -> list[str]:
    return sorted(keys)[-MOST_PARTITIONS:]


def _number(told: dg.AssetMaterialization, name: str) -> int | None:
    value = told.metadata.get(name)
    return None if value is None else int(value.value)  # type: ignore[arg-type]
