"""What alerts promise: each failed check and run is told, once to the webhook and for as long as it lasts to Alertmanager."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import httpx
import pytest

from fraud_assets.events import alertbook, alerts, reader
from fraud_assets.events.alerts import tick
from fraud_assets.operations.judging import decide_partition
from fraud_assets.operations.overruling import build_jobs
from fraud_core.errors import GateRefusalError
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.models.bundle import make_bundle, write_bundle
from fraud_core.models.manifest import Calibration, Lineage, Thresholds
from fraud_core.models.registry import point_at
from tests.receiver import Receiver

QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
MONTH = "2024-06"
PARTITIONS = dg.StaticPartitionsDefinition(["2024-05", MONTH])


@dataclass
class Outcome:
    """How the assets and checks below go."""

    passed: bool = True
    blocking: bool = False
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    description: str = "amounts are off"
    asset_raises: Exception | None = None
    check_raises: Exception | None = None


@dataclass
class Bench:
    """An installation with receivers, on which runs go as told."""

    installation: Any
    instance: dg.DagsterInstance
    alertmanager: Receiver
    webhook: Receiver
    stand: Any
    outcome: Outcome = field(default_factory=Outcome)

    def run(self, partition: str = MONTH, **outcome: Any) -> dg.ExecuteInProcessResult:
        """Materialize and check."""
        self.outcome.__dict__.update(Outcome(**outcome).__dict__)
        told = self.outcome

        @dg.asset(partitions_def=PARTITIONS)
        def transformed() -> int:
            if told.asset_raises is not None:
                raise told.asset_raises
            return 1

        @dg.asset_check(asset=transformed, partitions_def=PARTITIONS, blocking=told.blocking)
        def amounts() -> dg.AssetCheckResult:
            if told.check_raises is not None:
                raise told.check_raises
            return dg.AssetCheckResult(passed=told.passed, severity=told.severity, description=told.description)

        job = dg.define_asset_job("materialize_partition")
        definitions = dg.Definitions([transformed], asset_checks=[amounts], jobs=[job])
        return definitions.resolve_job_def("materialize_partition").execute_in_process(
            instance=self.instance, partition_key=partition, run_config=QUIET, raise_on_error=False
        )

    def judge(self, passed: bool, partition: str = MONTH) -> None:
        """The gate's check says so."""
        evaluation = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("transformed"),
            check_name="drift",
            passed=passed,
            description="rejected",
            metadata={"content": self.installation.transformed()[partition].content},
            partition=partition,
        )
        self.instance.report_runless_asset_event(evaluation)

    def decide(self, action: str, partition: str = MONTH) -> None:
        """A person does, by the job."""
        job = next(job for job in build_jobs(self.installation) if job.name == f"{action}_partition")
        self.instance.add_dynamic_partitions("bench_partitions", [partition])  # as landing does
        config = QUIET | {"ops": {action: {"config": {"reason": "a known <campaign>", "who": "ann"}}}}
        assert job.execute_in_process(instance=self.instance, partition_key=partition, run_config=config).success

    def tick(self, later: timedelta = timedelta()) -> alerts.Report:
        return tick(self.installation, self.instance, datetime.now(UTC) + later)

    def posted(self) -> dict[str, list[dict[str, Any]]]:
        """The last post to Alertmanager: alerts by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in self.alertmanager.taken[-1]:
            found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def is_open(self, name: str) -> bool:
        """Whether the last post holds an alert of this name that has not ended."""
        return any(datetime.fromisoformat(alert["endsAt"]) > datetime.now(UTC) for alert in self.posted().get(name, []))


@pytest.fixture
def receivers() -> Iterator[Callable[[], Receiver]]:
    made: list[Receiver] = []

    def make() -> Receiver:
        made.append(Receiver())
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture
def bench(new_bench: Any, receivers: Callable[[], Receiver], tmp_path: Path) -> Iterator[Bench]:
    """Six months, of which the gate rejected the last."""
    alertmanager, webhook = receivers(), receivers()
    told = {
        "alertmanager_url": alertmanager.url,
        "webhook_url": f"{webhook.url}/T0/secret",
        "dagster_url": "https://dagster.test/",
        "docs_url": "https://docs.test/",
    }
    stand = new_bench(settings=told)
    stand.fill(stand.rows(rows=50), rejected=(MONTH,))
    instance = dg.DagsterInstance.ephemeral(tempdir=str(tmp_path))
    yield Bench(stand.installation, instance, alertmanager, webhook, stand)
    instance.dispose()


def test_a_failed_check_reaches_both_receivers_with_what_one_needs_to_know(bench: Bench) -> None:
    run = bench.run(passed=False)
    bench.tick()
    (alert,) = bench.posted()["FraudCheckFailed"]
    assert alert["labels"] == {
        "alertname": "FraudCheckFailed",
        "asset": "transformed",
        "partition": MONTH,
        "check": "amounts",
        "severity": "error",
        "source": "bench",
    }
    link = f"https://dagster.test/runs/{run.run_id}"
    assert alert["generatorURL"] == alert["annotations"]["run"] == link
    assert alert["annotations"]["findings"] == "amounts are off"
    assert alert["annotations"]["runbook_url"] == "https://docs.test/runbooks/pipeline.html#fraudcheckfailed"
    (message,) = bench.webhook.taken
    assert message["runbook_url"] == alert["annotations"]["runbook_url"]
    assert (message["asset"], message["partition"], message["check"]) == ("transformed", MONTH, "amounts")
    assert (message["severity"], message["findings"], message["url"]) == ("error", ["amounts are off"], link)
    assert message["text"].startswith(f"*Check amounts of transformed {MONTH} failed* (error)")
    run_id, asset, check, storage_id = message["id"].split(":")
    assert (run_id, asset, check) == (run.run_id, "transformed", "amounts")
    assert int(storage_id) > 0
    assert bench.webhook.headers[0]["Idempotency-Key"] == message["id"]


def test_a_warning_of_a_run_that_succeeded_is_told_too(bench: Bench) -> None:
    assert bench.run(passed=False, severity=dg.AssetCheckSeverity.WARN).success
    bench.tick()
    assert bench.posted()["FraudCheckFailed"][0]["labels"]["severity"] == "warning"
    assert len(bench.webhook.taken) == 1


def test_a_blocking_check_that_failed_its_run_is_told_once(bench: Bench) -> None:
    assert not bench.run(passed=False, blocking=True).success
    bench.tick()
    assert [message["alert"] for message in bench.webhook.taken] == ["FraudCheckFailed"]
    assert set(bench.posted()) == {"FraudCheckFailed"}


def test_what_went_well_is_not_told(bench: Bench) -> None:
    bench.run()
    report = bench.tick()
    assert (report.open, bench.alertmanager.taken, bench.webhook.taken) == (0, [], [])


def test_an_open_alert_is_posted_on_every_tick_with_an_end_five_minutes_ahead(bench: Bench) -> None:
    bench.run(passed=False)
    begun = datetime.now(UTC)
    for minutes in (0, 1, 60):
        tick(bench.installation, bench.instance, begun + timedelta(minutes=minutes))
        (alert,) = bench.posted()["FraudCheckFailed"]
        ahead = datetime.fromisoformat(alert["endsAt"]) - begun
        assert abs(ahead - timedelta(minutes=minutes + 5)) < timedelta(seconds=1)
    assert len({post[0]["startsAt"] for post in bench.alertmanager.taken}) == 1
    assert len(bench.webhook.taken) == 1


def test_the_alert_ends_when_the_check_passes_for_that_partition_and_not_for_another(bench: Bench) -> None:
    bench.run(passed=False)
    bench.tick()
    bench.run("2024-05")
    bench.tick()
    assert bench.is_open("FraudCheckFailed")
    bench.run()
    bench.tick()
    assert not bench.is_open("FraudCheckFailed")
    posts = len(bench.alertmanager.taken)
    bench.tick()
    assert len(bench.alertmanager.taken) == posts, "an ended alert is posted once, and forgotten"


def test_an_alert_that_comes_back_begins_anew(bench: Bench) -> None:
    for passed in (False, True, False):
        bench.run(passed=passed)
        bench.tick()
    first, _, second = (post[0]["startsAt"] for post in bench.alertmanager.taken)
    assert second > first
    assert len(bench.webhook.taken) == 2


def test_of_two_severities_only_the_last_stays_open(bench: Bench) -> None:
    bench.run(passed=False, severity=dg.AssetCheckSeverity.WARN)
    bench.tick()
    bench.run(passed=False)
    report = bench.tick()
    ends = {alert["labels"]["severity"]: alert["endsAt"] for alert in bench.posted()["FraudCheckFailed"]}
    assert ends["warning"] < ends["error"]
    assert report.open == 1


def test_a_step_that_raised_is_told_and_ends_when_it_succeeds(bench: Bench) -> None:
    bench.run(asset_raises=GateRefusalError("Partition 2024-06 is rejected."))
    bench.tick()
    (alert,) = bench.posted()["FraudStepFailed"]
    assert (alert["labels"]["asset"], alert["labels"]["partition"]) == ("transformed", MONTH)
    assert alert["annotations"]["findings"] == "Partition 2024-06 is rejected."
    assert [message["alert"] for message in bench.webhook.taken] == ["FraudStepFailed"], "the step tells it, not the run again"
    bench.run()
    bench.tick()
    assert not bench.is_open("FraudStepFailed")


def test_of_a_foreign_error_only_its_name_is_told(bench: Bench) -> None:
    bench.run(asset_raises=ValueError("cannot parse card 4000123412341234"))
    bench.tick()
    assert bench.posted()["FraudStepFailed"][0]["annotations"]["findings"] == "ValueError; the run's log says more"
    assert "4000" not in json.dumps([bench.alertmanager.taken, bench.webhook.taken])


def test_a_check_that_raised_is_told_by_its_name_and_ends_when_it_succeeds(bench: Bench) -> None:
    bench.run(check_raises=ValueError("no"))
    bench.tick()
    (alert,) = bench.posted()["FraudStepFailed"]
    assert (alert["labels"]["asset"], alert["labels"]["check"]) == ("transformed", "amounts")
    bench.run()
    bench.tick()
    assert not bench.is_open("FraudStepFailed")


def test_a_run_that_was_killed_is_told_and_ends_when_its_job_succeeds(bench: Bench) -> None:
    killed = bench.instance.create_run_for_job(
        dg.GraphDefinition("materialize_partition").to_job(), tags={"dagster/partition": MONTH}
    )
    bench.instance.report_run_failed(killed, "The process was killed.")
    bench.tick()
    (alert,) = bench.posted()["FraudRunFailed"]
    assert (alert["labels"]["asset"], alert["labels"]["partition"]) == ("materialize_partition", MONTH)
    bench.run()
    bench.tick()
    assert not bench.is_open("FraudRunFailed")


def test_a_message_waits_until_the_webhook_takes_it_and_is_taken_once(bench: Bench) -> None:
    bench.webhook.status = 503
    bench.run(passed=False)
    report = bench.tick()
    assert report.undelivered == 1
    assert "the webhook does not take messages (it answers 503)" in str(report)
    bench.run("2024-05", passed=False)
    assert bench.tick().undelivered == 2
    bench.webhook.status = 200
    for _ in range(3):
        report = bench.tick()
    assert report.undelivered == 0
    assert sorted(message["partition"] for message in bench.webhook.taken) == ["2024-05", MONTH]


def test_a_message_that_is_never_taken_does_not_hold_up_the_others(bench: Bench) -> None:
    bench.webhook.refuses = "2024-05"
    bench.run("2024-05", passed=False)
    bench.run(passed=False)
    for _ in range(2):
        report = bench.tick()
    assert [message["partition"] for message in bench.webhook.taken] == [MONTH]
    assert report.undelivered == 1


def test_a_webhook_that_is_down_does_not_keep_alertmanager_from_being_told(bench: Bench) -> None:
    bench.webhook.close()
    bench.run(passed=False)
    report = bench.tick()
    assert "the webhook does not take messages (ConnectError)" in str(report)
    assert bench.is_open("FraudCheckFailed")


def test_an_end_waits_until_alertmanager_takes_it(bench: Bench) -> None:
    bench.run(passed=False)
    bench.tick()
    bench.alertmanager.status = 500
    bench.run()
    assert "Alertmanager does not take the alerts (it answers 500)" in str(bench.tick())
    bench.alertmanager.status = 200
    bench.tick()
    assert not bench.is_open("FraudCheckFailed")


def test_a_receiver_that_never_answers_is_given_up_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # accepts by its backlog, and serves nobody
    monkeypatch.setattr(alertbook, "PATIENCE", httpx.Timeout(0.2))
    url = f"http://127.0.0.1:{silent.server_address[1]}"
    bench.run(passed=False)
    report = tick(bench.stand.with_settings(alertmanager_url=url).installation, bench.instance, datetime.now(UTC))
    silent.server_close()
    assert "Alertmanager does not take the alerts (ReadTimeout)" in str(report)
    assert len(bench.webhook.taken) == 1


def test_no_report_names_the_webhooks_address(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    bench.webhook.status = 404
    bench.run(passed=False)
    report = bench.tick()
    assert "404" in str(report)
    assert "secret" not in str(report) + caplog.text


def test_a_process_killed_while_it_reads_neither_forgets_nor_doubles(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run("2024-05", passed=False)
    bench.run(passed=False)
    take, calls = alerts.Notifier.take, []

    def killed(teller: alerts.Notifier) -> None:
        calls.append(teller)
        take(teller)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(alerts.Notifier, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        bench.tick()
    monkeypatch.undo()
    bench.tick()
    assert sorted(message["partition"] for message in bench.webhook.taken) == ["2024-05", MONTH]


def test_a_process_killed_before_it_tells_tells_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> list[str]:
        raise KeyboardInterrupt

    bench.run(passed=False)
    monkeypatch.setattr(alerts, "tell", killed)
    with pytest.raises(KeyboardInterrupt):
        bench.tick()
    monkeypatch.undo()
    bench.tick()
    assert len(bench.webhook.taken) == 1
    assert bench.is_open("FraudCheckFailed")


def test_an_event_that_becomes_visible_late_is_told(bench: Bench) -> None:
    """With Postgres, of two writers the one with the smaller id may commit last."""
    bench.run("2024-05", passed=False)
    bench.run(passed=False)
    storage = bench.instance.event_log_storage
    hidden = True

    def records(only: dg.EventRecordsFilter, **options: Any) -> list[Any]:
        found = storage.get_event_records(only, **options)
        evaluations = only.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
        return list(found[1:] if hidden and evaluations else found)

    late = SimpleNamespace(
        event_log_storage=SimpleNamespace(get_event_records=records, get_maximum_record_id=storage.get_maximum_record_id),
        get_run_by_id=bench.instance.get_run_by_id,
        get_records_for_run=bench.instance.get_records_for_run,
    )
    tick(bench.installation, late, datetime.now(UTC))  # type: ignore[arg-type]
    assert [message["partition"] for message in bench.webhook.taken] == [MONTH]
    hidden = False
    for _ in range(2):
        tick(bench.installation, late, datetime.now(UTC))  # type: ignore[arg-type]
    assert [message["partition"] for message in bench.webhook.taken] == [MONTH, "2024-05"]


def test_more_events_than_a_tick_takes_are_read_in_order_over_several(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "EVENTS_A_TICK", 2)
    monkeypatch.setattr(reader, "LOOK_AGAIN", 0)
    for passed in (False, True, False, True):
        bench.run(passed=passed)
    reports = [bench.tick() for _ in range(12)]
    assert reports[0].events < sum(report.events for report in reports)
    assert (reports[-1].events, reports[-1].open) == (0, 0)
    assert len(bench.webhook.taken) == 2


def test_another_event_log_is_read_from_its_beginning(bench: Bench, tmp_path: Path) -> None:
    for _ in range(3):
        bench.run()
    bench.tick()
    (tmp_path / "anew").mkdir()
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path / "anew")) as instance:
        bench.instance.dispose()
        bench.instance = instance
        bench.run(passed=False)
        bench.tick()
    assert bench.is_open("FraudCheckFailed")


def test_what_failed_long_before_the_book_was_begun_is_open_but_no_message(bench: Bench) -> None:
    bench.run(passed=False)
    report = bench.tick(later=timedelta(days=3))
    assert (report.open, bench.webhook.taken) == (1, [])


def test_the_findings_of_a_rejected_partition_are_the_verdicts_worst(bench: Bench) -> None:
    bench.judge(passed=False)
    bench.tick()
    (alert,) = bench.posted()["FraudCheckFailed"]
    assert alert["annotations"]["findings"] == "log_amount has drifted"
    assert alert["generatorURL"] == "https://dagster.test/assets/transformed"


def test_an_acceptance_ends_the_alert_and_is_told(bench: Bench) -> None:
    bench.judge(passed=False)
    bench.tick()
    bench.decide("accept")
    bench.tick()
    assert not bench.is_open("FraudCheckFailed")
    (notice,) = bench.posted()["FraudPartitionAccepted"]
    assert notice["labels"]["severity"] == "info"
    assert "accepted by unverified:ann: a known <campaign>" in notice["annotations"]["findings"]
    assert "accepted by unverified:ann: a known &lt;campaign&gt;" in bench.webhook.taken[-1]["text"], (
        "Slack reads no markup of ours"
    )
    bench.tick(later=timedelta(hours=25))
    assert bench.tick().open == 0


def test_an_accepted_partition_that_is_judged_again_is_not_told_again(bench: Bench) -> None:
    bench.decide("accept")
    bench.tick()
    bench.judge(passed=True)
    bench.tick()
    assert [message["alert"] for message in bench.webhook.taken] == ["FraudPartitionAccepted"]


def test_an_acceptance_that_dagster_never_heard_of_ends_the_alert_too(bench: Bench) -> None:
    bench.judge(passed=False)
    bench.tick()
    decide_partition(bench.installation, MONTH, accept=True, who="ann", reason="seen and discussed")
    bench.tick()
    assert not bench.is_open("FraudCheckFailed")


def test_a_refusal_by_a_person_is_told_for_a_day(bench: Bench) -> None:
    bench.judge(passed=False)
    bench.decide("refuse")
    bench.tick()
    assert "refused by unverified:ann" in bench.posted()["FraudCheckFailed"][0]["annotations"]["findings"]
    assert bench.is_open("FraudCheckFailed")
    bench.tick(later=timedelta(hours=25))
    assert bench.tick().open == 0


def test_a_champion_trained_on_a_partition_that_is_refused_later_is_told_with_the_way_back(bench: Bench) -> None:
    make_champion(bench)
    bench.run()
    assert bench.tick().open == 0
    bench.decide("refuse", "2024-05")
    bench.tick()
    (alert,) = bench.posted()["FraudChampionOnRefusedData"]
    assert alert["labels"]["partition"] == "2024-05"
    assert "fraud rollback" in alert["annotations"]["findings"]
    bench.tick()
    assert sum(message["alert"] == "FraudChampionOnRefusedData" for message in bench.webhook.taken) == 1
    bench.decide("accept", "2024-05")
    bench.tick()
    assert not bench.is_open("FraudChampionOnRefusedData")


def test_rules_of_the_gate_that_wait_for_a_person_are_told_until_they_are_confirmed_or_taken_back(bench: Bench) -> None:
    bench.installation.rules(record=True)
    drift = bench.installation.source.drift.model_copy(update={"bootstrap_partitions": 99})
    other = replace(bench.installation, source=bench.installation.source.model_copy(update={"drift": drift}))
    for _ in range(2):
        tick(other, bench.instance, datetime.now(UTC))
    (alert,) = bench.posted()["FraudGateRulesUnconfirmed"]
    assert "drift.bootstrap_partitions was" in alert["annotations"]["findings"]
    bench.tick()
    assert not bench.is_open("FraudGateRulesUnconfirmed")


def test_an_event_that_cannot_be_read_holds_up_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = alerts._findings

    def stumbling(evaluation: dg.AssetCheckEvaluation, *rest: Any) -> tuple[str, ...]:
        if evaluation.partition == "2024-05":
            raise RuntimeError
        return findings(evaluation, *rest)

    monkeypatch.setattr(alerts, "_findings", stumbling)
    bench.run("2024-05", passed=False)
    bench.run(passed=False)
    bench.tick()
    assert set(bench.posted()) == {"FraudCheckFailed", "FraudEventUnreadable"}


def test_without_receivers_the_book_is_kept_and_messages_are_not_hoarded(bench: Bench) -> None:
    nobody = bench.stand.with_settings(alertmanager_url="", webhook_url=None).installation
    bench.run(passed=False)
    report = tick(nobody, bench.instance, datetime.now(UTC))
    assert (report.open, report.undelivered, report.troubles) == (1, 0, [])


def test_the_backlog_says_since_when_a_message_waits(bench: Bench) -> None:
    bench.webhook.status = 500
    bench.run(passed=False)
    bench.tick()
    backlog = alerts.open_alert_store(bench.installation).backlog(datetime.now(UTC))
    assert (backlog.open, backlog.undelivered) == (1, 1)
    assert backlog.waiting_since is not None
    assert backlog.waiting_since <= datetime.now(UTC)


def make_champion(bench: Bench) -> None:
    """A champion that says it was trained on all months but the last; its model is no model."""
    artifacts = bench.installation.artifacts
    present = bench.installation.transformed()
    bundle = make_bundle(
        source="bench",
        timezone="UTC",
        feature_version=1,
        kind="linear",
        model=b"{}",
        encoder=Encoder(columns=(ColumnEncoding(feature="log_amount", missing=0.0),)),
        calibration=Calibration(slope=1.0, intercept=0.0),
        thresholds=Thresholds(review=0.5, decline=0.9),
        lineage=Lineage(
            training_set="some",
            partitions=tuple((key, pointer.content, "accepted") for key, pointer in present.items() if key != MONTH),
            card_key_id="some",
            libraries={},
        ),
    )
    write_bundle(artifacts.store, bundle, artifacts.signing_key)
    point_at(artifacts.store, bundle.version, artifacts.signing_key, how="promotion", who="test", at=datetime.now(UTC))
