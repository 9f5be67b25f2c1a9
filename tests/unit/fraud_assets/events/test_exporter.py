"""The exporter: what it tells follows from Dagster's events alone, however they came there."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from prometheus_client import CollectorRegistry

from fraud_assets.events import exporter, reader
from fraud_assets.events.alertbook import Receivers, tell
from fraud_assets.events.alerts import open_alert_store
from fraud_assets.events.exporter import PipelineCollector, Reviews, next_due
from fraud_assets.installation import Installation
from fraud_core.decisions.log import DecisionLog, DecisionRecord
from fraud_core.labels.log import LabelLog
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from tests.decided import decided
from tests.home import QUIET, SOURCE, WEEKS

PARTITIONS = dg.StaticPartitionsDefinition(list(WEEKS))


@dataclass
class Stand:
    """A graph that goes as told, and the registry that Prometheus would scrape."""

    installation: Installation
    instance: dg.DagsterInstance
    outcome: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Another exporter, which remembers nothing."""
        self.registry = CollectorRegistry()
        self.registry.register(PipelineCollector(self.installation, self.instance))

    def run(self, week: str, **outcome: Any) -> None:
        told = {"passed": True, "raises": False, "metadata": {}} | outcome

        @dg.asset(partitions_def=PARTITIONS)
        def raw() -> dg.MaterializeResult[Any]:
            if told["raises"]:
                raise RuntimeError("no such file")
            return dg.MaterializeResult(metadata={"dagster/row_count": 90, "quarantined": 10})

        @dg.asset(partitions_def=PARTITIONS, deps=[raw])
        def transformed() -> None: ...

        @dg.asset_check(asset=transformed, partitions_def=PARTITIONS, blocking=True)
        def drift() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=told["passed"], metadata=told["metadata"])

        job = dg.Definitions(assets=[raw, transformed], asset_checks=[drift]).resolve_implicit_global_asset_job_def()
        job.execute_in_process(instance=self.instance, partition_key=week, raise_on_error=False, run_config=QUIET)

    def told(self, metric: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(metric, labels)

    def partitions_told(self, metric: str) -> list[str]:
        return [s.labels["partition"] for family in self.registry.collect() for s in family.samples if s.name == metric]


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    (tmp_path / "small.toml").write_text(SOURCE)
    return Installation.load(Settings(_env_file=None, home=tmp_path / "home", source=tmp_path / "small.toml"))


@pytest.fixture
def stand(installation: Installation, tmp_path: Path) -> Iterator[Stand]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield Stand(installation, instance)


def test_a_success_is_told_with_its_time_duration_and_rows(stand: Stand) -> None:
    before = datetime.now(UTC).timestamp()
    stand.run(WEEKS[0])
    at = stand.told("fraud_asset_last_success_timestamp_seconds", asset="raw", partition=WEEKS[0])
    seconds = stand.told("fraud_asset_duration_seconds", asset="raw", partition=WEEKS[0])
    assert at is not None
    assert seconds is not None
    assert before <= at <= datetime.now(UTC).timestamp()
    assert 0 <= seconds < 60
    assert stand.told("fraud_asset_rows", asset="raw", partition=WEEKS[0]) == 90
    assert stand.told("fraud_partition_quarantined_share", partition=WEEKS[0]) == pytest.approx(0.1)
    assert stand.told("fraud_quarantined_share_tolerated") == stand.installation.source.quality.quarantined_share


def test_an_exporter_that_was_restarted_tells_the_same(stand: Stand) -> None:
    stand.run(WEEKS[0])
    stand.run(WEEKS[1], passed=False)

    def everything() -> list[Any]:
        return [sample for family in stand.registry.collect() for sample in family.samples]

    before = everything()
    assert everything() == before, "looking changes nothing"
    stand.restart()
    assert everything() == before


def test_more_events_than_are_read_at_once_are_all_read(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "EVENTS_AT_ONCE", 1)
    monkeypatch.setattr(reader, "LOOK_AGAIN", 1)
    for week in WEEKS:
        stand.run(week)
    stand.restart()
    assert stand.told("fraud_check_results_total", asset="transformed", check="drift", severity="error", result="passed") == 8
    assert stand.partitions_told("fraud_asset_duration_seconds").count(WEEKS[0]) == 2


def test_a_failed_step_is_counted_and_leaves_the_last_success(stand: Stand) -> None:
    stand.run(WEEKS[0])
    at = stand.told("fraud_asset_last_success_timestamp_seconds", asset="raw", partition=WEEKS[0])
    stand.run(WEEKS[0], raises=True)
    assert stand.told("fraud_step_failures_total", step="raw") == 1
    assert stand.told("fraud_asset_last_success_timestamp_seconds", asset="raw", partition=WEEKS[0]) == at


def test_a_rejected_partition_waits_from_its_first_failure_until_a_person_or_the_gate_decides(stand: Stand) -> None:
    waiting = "fraud_partition_waiting_since_timestamp_seconds"
    stand.run(WEEKS[0])
    assert stand.told(waiting, partition=WEEKS[0]) is None
    stand.run(WEEKS[1], passed=False)
    since = stand.told(waiting, partition=WEEKS[1])
    assert since is not None
    stand.run(WEEKS[1], passed=False)
    assert stand.told(waiting, partition=WEEKS[1]) == since
    assert stand.told("fraud_checks_failing", asset="transformed", check="drift", severity="error") == 1
    assert [stand.told("fraud_partitions", state=state) for state in ("accepted", "waiting", "refused")] == [1, 1, 0]
    stand.run(WEEKS[1], passed=False, metadata={"refused_by": "ann"})
    assert stand.told(waiting, partition=WEEKS[1]) is None
    assert [stand.told("fraud_partitions", state=state) for state in ("accepted", "waiting", "refused")] == [1, 0, 1]
    stand.run(WEEKS[1], passed=True)
    assert stand.told("fraud_checks_failing", asset="transformed", check="drift", severity="error") == 0
    assert [stand.told("fraud_partitions", state=state) for state in ("accepted", "waiting", "refused")] == [2, 0, 0]


def test_of_many_partitions_the_newest_are_told(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "MOST_PARTITIONS", 3)
    for week in WEEKS[:5]:
        stand.run(week, passed=False)
    for metric in ("fraud_asset_rows", "fraud_partition_quarantined_share", "fraud_partition_waiting_since_timestamp_seconds"):
        assert stand.partitions_told(metric) == list(WEEKS[2:5])


def test_the_next_partition_is_due_when_it_is_over_and_never_after_the_last(installation: Installation) -> None:
    source = installation.source
    assert next_due(source, []) == datetime(2024, 1, 8, tzinfo=UTC)
    assert next_due(source, list(WEEKS[:3])) == datetime(2024, 1, 29, tzinfo=UTC)
    assert next_due(source, list(WEEKS)) is None


def test_backlogs_are_told(stand: Stand) -> None:
    assert stand.told("fraud_alert_round_timestamp_seconds") is None
    now = datetime.now(UTC)
    tell(open_alert_store(stand.installation), Receivers("", ""), now)
    assert stand.told("fraud_alert_round_timestamp_seconds") == pytest.approx(now.timestamp())
    assert stand.told("fraud_alerts_undelivered") == 0
    queue = stand.installation.settings.home / "outbox" / "mlflow"
    queue.mkdir(parents=True)
    for name in ("1.json", "2.json", ".3.json"):
        (queue / name).write_text("{}")
    assert stand.told("fraud_outbox_backlog", queue="mlflow") == 2


def test_the_metrics_of_another_event_log_begin_anew(installation: Installation, tmp_path: Path, stand: Stand) -> None:
    for week in WEEKS[:4]:
        stand.run(week)
    assert stand.partitions_told("fraud_asset_rows") == list(WEEKS[:4])
    (tmp_path / "other").mkdir()
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path / "other")) as other:
        (collector,) = stand.registry._collector_to_names
        collector._instance = stand.instance = other  # type: ignore[attr-defined]
        stand.run(WEEKS[5])
        assert stand.partitions_told("fraud_asset_rows") == [WEEKS[5]]


def test_the_review_queues_precision_is_that_of_known_outcomes(tmp_path: Path) -> None:
    engine = open_database(Settings(_env_file=None, home=tmp_path))
    decisions, labels = DecisionLog(engine, 30), LabelLog(engine)
    now = datetime.now(UTC)
    ages = {"a": 1, "b": 1, "c": 1, "d": 1, "e": 20}
    decisions.append([decision(name, now - timedelta(days=days)) for name, days in ages.items()])
    for name, outcome in {"a": "fraud", "b": "legitimate", "c": "unsure", "e": "fraud"}.items():
        labels.append(
            transaction_id=name,
            outcome=outcome,
            source="analyst",
            author="ann",
            event_time=now,
            known_at=now,  # type: ignore[arg-type]
        )
    reviews = Reviews(decisions, labels)

    def told(at: datetime) -> dict[tuple[str, str], float]:
        return {
            (s.name, s.labels["window"]): s.value
            for family in reviews.metrics(at)
            for s in family.samples
            if "window" in s.labels
        }

    assert told(now) == {
        ("fraud_review_precision", "7d"): 0.5,
        ("fraud_review_precision", "30d"): pytest.approx(2 / 3),
        ("fraud_review_known", "7d"): 2,
        ("fraud_review_known", "30d"): 3,
    }
    labels.append(transaction_id="d", outcome="fraud", source="chargeback", author="bank", event_time=now, known_at=now)
    assert told(now + timedelta(seconds=59))["fraud_review_known", "7d"] == 2
    assert told(now + timedelta(seconds=60))["fraud_review_known", "7d"] == 3


def test_without_its_database_the_exporter_tells_the_rest(stand: Stand) -> None:
    (stand.installation.settings.home / "fraud.sqlite").mkdir(parents=True)
    stand.run(WEEKS[0])
    assert stand.told("fraud_asset_rows", asset="raw", partition=WEEKS[0]) == 90
    assert stand.told("fraud_review_known", window="7d") is None


def test_labels_are_counted_once_each_by_outcome_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "LABELS_AT_ONCE", 2)
    engine = open_database(Settings(_env_file=None, home=tmp_path))
    labels = LabelLog(engine)
    reviews = Reviews(DecisionLog(engine, 30), labels)
    now = datetime.now(UTC)

    def told(at: datetime) -> dict[tuple[str, str], float]:
        samples = [s for family in reviews.metrics(at) for s in family.samples if s.name == "fraud_labels_kept_total"]
        return {(s.labels["outcome"], s.labels["source"]): s.value for s in samples if s.value}

    assert told(now) == {}
    for number in range(5):
        labels.append(
            transaction_id=f"{number}", outcome="fraud", source="chargeback", author="bank", event_time=now, known_at=now
        )
    assert told(now + timedelta(minutes=1)) == {("fraud", "chargeback"): 5}
    labels.append(transaction_id="0", outcome="legitimate", source="analyst", author="ann", event_time=now, known_at=now)
    assert told(now + timedelta(minutes=2)) == {("fraud", "chargeback"): 5, ("legitimate", "analyst"): 1}


def decision(transaction_id: str, at: datetime) -> DecisionRecord:
    """A payment that was sent to review."""
    return decided(transaction_id, decision="review", scored_at=at)
