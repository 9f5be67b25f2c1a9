"""Alerts: every failed check, and every step or run that raised, reaches Alertmanager and a webhook, though either be down.

One path: a sensor reads Dagster's events by storage id into the book of alerts, and tells what the book holds. The cursor lies in
the book and moves in the same transaction, so that a process killed at any point neither forgets nor invents. Nothing here runs
within a run, so no receiver can fail or slow one.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster import DagsterEventType

from fraud_assets.events.alertbook import Alert, AlertStore, AlertTransaction, Receivers, Subject, tell
from fraud_assets.events.causes import chain, is_failed_check, own_sentence
from fraud_assets.events.reader import read_new_events
from fraud_assets.installation import Installation
from fraud_assets.operations.overruling import BY_PERSON_TAG, CHECK
from fraud_assets.runtime.partitioning import PARTITION_TAG
from fraud_core import gate
from fraud_core.errors import FraudError, GateRefusalError, IntegrityError
from fraud_core.gate import Finding, Verdict
from fraud_core.models.bundle import read_manifest
from fraud_core.models.manifest import Manifest
from fraud_core.models.registry import read_latest

CHECK_FAILED = "FraudCheckFailed"
STEP_FAILED = "FraudStepFailed"
RUN_FAILED = "FraudRunFailed"
ACCEPTED = "FraudPartitionAccepted"
REFUSED_BEHIND_CHAMPION = "FraudChampionOnRefusedData"
RULES_UNCONFIRMED = "FraudGateRulesUnconfirmed"
UNREADABLE = "FraudEventUnreadable"

NOTICE = timedelta(days=1)  # so long lasts an alert about what a person did, or has seen
EVENTS_A_TICK = 500
LONGEST = 400  # characters of a sentence

EVENTS = (
    DagsterEventType.ASSET_CHECK_EVALUATION,
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.RUN_FAILURE,
    DagsterEventType.RUN_SUCCESS,
)


@dataclass
class Report:
    """What a tick did; `troubles` are sentences about what could not be asked or told."""

    events: int = 0
    open: int = 0
    undelivered: int = 0
    troubles: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{self.events} new events, {self.open} open alerts, {self.undelivered} messages to deliver"
        return ". ".join([said, *self.troubles]) + "."


def open_alert_store(installation: Installation) -> AlertStore:
    """The installation's book of alerts."""
    return AlertStore(installation.settings.home / "alerts.db", installation.source.name, installation.settings.docs_url)


def receivers(installation: Installation) -> Receivers:
    """Whom the settings name."""
    secret = installation.settings.webhook_url
    return Receivers(installation.settings.alertmanager_url, "" if secret is None else secret.get_secret_value())


def tick(installation: Installation, instance: dg.DagsterInstance, now: datetime) -> Report:
    """Read what happened into the book, then tell what it holds. No receiver and no store can make this raise."""
    book, report = open_alert_store(installation), Report()
    with book.writing(now) as page:
        for storage_id, entry in _news(instance, page):
            Notifier(installation, instance, page, entry, storage_id).take()
            report.events += 1
    with book.writing(now) as page:
        try:
            _look_at_decisions(installation, page, now)
        except FraudError as error:
            report.troubles.append(f"the store cannot be asked for verdicts ({type(error).__name__})")
        page.expire(now)
    report.troubles += tell(book, receivers(installation), now)
    backlog = book.backlog(now)
    report.open, report.undelivered = backlog.open, backlog.undelivered
    return report


def _news(instance: dg.DagsterInstance, page: AlertTransaction) -> list[tuple[int, dg.EventLogEntry]]:
    """Events that were not handled yet, oldest first; marks them as handled, and moves the cursor behind them."""
    (cursor,) = page.rows.execute("SELECT storage_id FROM progress").fetchone()
    handled = {storage_id for (storage_id,) in page.rows.execute("SELECT storage_id FROM handled")}
    news = read_new_events(instance, EVENTS, cursor, handled, EVENTS_A_TICK)
    if news.restarted:
        page.rows.execute("DELETE FROM handled")
    page.rows.execute("UPDATE progress SET storage_id = ?", (news.cursor,))
    page.rows.executemany("INSERT INTO handled VALUES (?)", [(storage_id,) for storage_id, _ in news.entries])
    page.rows.execute("DELETE FROM handled WHERE storage_id <= ?", (news.settled,))
    return news.entries


@dataclass(frozen=True)
class Notifier:
    """Reads one event into the book."""

    installation: Installation
    instance: dg.DagsterInstance
    page: AlertTransaction
    entry: dg.EventLogEntry
    storage_id: int

    def take(self) -> None:
        """Open or end what the event tells of. An event that cannot be read is an alert itself, and holds up no other."""
        try:
            self._take()
        except Exception as error:
            about = Subject(UNREADABLE, self.entry.job_name or "event")
            said = f"Event {self.storage_id} could not be read; look at it yourself"
            self._open(Alert(about, "warning", said, (type(error).__name__,), self._link(), NOTICE))

    def _take(self) -> None:
        event = self.entry.dagster_event
        assert event is not None
        match event.event_type:
            case DagsterEventType.ASSET_CHECK_EVALUATION:
                assert isinstance(event.event_specific_data, dg.AssetCheckEvaluation)
                self._take_evaluation(event.event_specific_data)
            case DagsterEventType.STEP_FAILURE:
                error = event.step_failure_data.error
                if not is_failed_check(error):  # that one, the evaluation has told
                    self._open(self._raised(self._step(event.step_key), cause_of(error)))
            case DagsterEventType.STEP_SUCCESS:
                if self.page.opened(STEP_FAILED):
                    self.page.end(self._step(event.step_key), self._at)
            case DagsterEventType.RUN_FAILURE:
                steps = self.instance.get_records_for_run(self.entry.run_id, of_type=DagsterEventType.STEP_FAILURE, limit=1)
                if not steps.records:  # what a step raised, its own alert tells; this run was killed, or never began
                    self._open(self._raised(self._run(), _short(event.message or "no reason is known")))
            case DagsterEventType.RUN_SUCCESS:
                if self.page.opened(RUN_FAILED):
                    self.page.end(self._run(), self._at)

    def _take_evaluation(self, evaluation: dg.AssetCheckEvaluation) -> None:
        asset, partition = evaluation.asset_key.to_user_string(), evaluation.partition or self._partition()
        about, where = Subject(CHECK_FAILED, asset, partition, evaluation.check_name), f"{asset} {partition}".strip()
        said = {name: value.value for name, value in evaluation.metadata.items()}
        verdict = None
        if evaluation.asset_check_key == CHECK:
            with suppress(FraudError):  # where the store does not answer now, the description says enough
                verdict = _verdict(self.installation, partition, said.get("content"))
        if not evaluation.passed:
            alert = Alert(
                about,
                "error" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warning",
                f"Check {evaluation.check_name} of {where} failed",
                _findings(evaluation, said, verdict),
                self._link(asset),
                NOTICE if verdict is not None and verdict.decisions else None,
            )
            self._open(alert)
            return
        self.page.end(about, self._at)
        by = None if verdict is None else verdict.overruled_by
        accepted = Subject(ACCEPTED, asset, partition, evaluation.check_name)
        if verdict is not None and by is not None and not self.page.is_open(accepted):
            findings = (f"accepted by {by.who}: {by.reason}", *_worst(verdict))[:3]
            self._open(Alert(accepted, "info", f"{where} may train, against the drift gate", findings, self._link(asset), NOTICE))

    def _raised(self, about: Subject, cause: str) -> Alert:
        what = f"check {about.check} of {about.asset}" if about.check else about.asset
        what = f"{'Step' if about.name == STEP_FAILED else 'Run of'} {what} {about.partition}".strip()
        by_person = BY_PERSON_TAG in self._tags()
        return Alert(about, "error", f"{what} failed", (cause,), self._link(), NOTICE if by_person else None)

    def _step(self, step: str | None) -> Subject:
        """The step, by its asset, and its check if it is one's own."""
        name, partition = step or "unknown step", self._partition()
        planned = DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
        for record in self.instance.get_records_for_run(self.entry.run_id, of_type=planned).records:
            event = record.event_log_entry.dagster_event
            data: Any = None if event is None else event.event_specific_data
            if name == f"{data.asset_key.to_python_identifier()}_{data.check_name}":
                return Subject(STEP_FAILED, data.asset_key.to_user_string(), partition, data.check_name)
        return Subject(STEP_FAILED, name, partition)

    def _run(self) -> Subject:
        return Subject(RUN_FAILED, self.entry.job_name or "unknown job", self._partition())

    def _open(self, alert: Alert) -> None:
        about = alert.about
        self.page.open(alert, self._at, f"{self.entry.run_id}:{about.asset}:{about.check}:{self.storage_id}")

    @property
    def _at(self) -> datetime:
        return datetime.fromtimestamp(self.entry.timestamp, UTC)

    def _tags(self) -> dict[str, str]:
        run = self.instance.get_run_by_id(self.entry.run_id) if self.entry.run_id else None
        return {} if run is None else dict(run.tags)

    def _partition(self) -> str:
        return self._tags().get(PARTITION_TAG, "")

    def _link(self, asset: str = "") -> str:
        return link(self.installation, self.entry.run_id, asset)


def link(installation: Installation, run_id: str, asset: str) -> str:
    """Where people look: at the run, or at the asset if there is none."""
    base = installation.settings.dagster_link
    return f"{base}/runs/{run_id}" if run_id else f"{base}/assets/{asset}"


def cause_of(error: Any) -> str:
    """The sentence of our own error behind a step's failure. Of a foreign error the name alone: its message may hold data."""
    said = own_sentence(error)
    if said is not None:
        return _short(said)
    *_, first = [each.cls_name for each in chain(error)] or ["an unknown error"]
    return f"{first}; the run's log says more"


def _look_at_decisions(installation: Installation, page: AlertTransaction, now: datetime) -> None:
    """What follows from the store as it is, whichever event told of it or got lost on the way.

    An alert about a partition ends when its verdict accepts it, a notice of an acceptance when that is taken back; and a champion
    that was trained on a partition which is refused now is an alert until another takes its place.

    Raises:
        StoreError: the store cannot be asked.
    """
    for about in [*page.opened(CHECK_FAILED), *page.opened(ACCEPTED)]:
        if (about.asset, about.check) != (CHECK.asset_key.to_user_string(), CHECK.name):
            continue
        verdict = _verdict(installation, about.partition, None)
        if verdict is not None and (verdict.is_accepted if about.name == CHECK_FAILED else verdict.overruled_by is None):
            page.end(about, now)
    present = {alert.about: alert for alert in _refused_behind_champion(installation)}
    for about in page.opened(REFUSED_BEHIND_CHAMPION):
        if about not in present:
            page.end(about, now)
    for about, alert in present.items():
        if not page.is_open(about):
            page.open(alert, now, f":champion:{about.partition}:{now.isoformat()}")
    _look_at_rules(installation, page, now)


def _look_at_rules(installation: Installation, page: AlertTransaction, now: datetime) -> None:
    """While the gate waits for a person, because its rules were changed, the sensors do nothing: that has to be told."""
    about = Subject(RULES_UNCONFIRMED, "transformed")
    try:
        installation.rules()
    except GateRefusalError as refusal:
        if not page.is_open(about):
            said = "Nothing is judged or trained: the rules of the drift gate wait for a person"
            alert = Alert(about, "error", said, (_short(str(refusal)),), link(installation, "", "transformed"))
            page.open(alert, now, f":rules:{now.isoformat()}")
    else:
        page.end(about, now)


def _refused_behind_champion(installation: Installation) -> Iterator[Alert]:
    champion = _champion(installation)
    for partition, content, _ in () if champion is None else champion.lineage.partitions:
        verdict = _verdict(installation, partition, content)
        if champion is not None and verdict is not None and not verdict.is_accepted:
            by = verdict.refused_by
            yield Alert(
                Subject(REFUSED_BEHIND_CHAMPION, "champion", partition),
                "error",
                f"Champion {champion.version} was trained on {partition}, which is refused now",
                (
                    "refused" if by is None else f"refused by {by.who}: {by.reason}",
                    '`fraud rollback VERSION --reason "..."` points at an older version; `fraud models` lists them',
                ),
                link(installation, "", "champion"),
            )


def _champion(installation: Installation) -> Manifest | None:
    """The champion's manifest alone: it is asked for on every tick. None where there is none to trust, which the scorer tells."""
    store, key = installation.artifacts.store, installation.artifacts.signing_key
    try:
        latest = read_latest(store, key)
        if latest is None:
            return None
        return read_manifest(store, latest.version, key)
    except IntegrityError:
        return None


def _verdict(installation: Installation, partition: str, content: object) -> Verdict | None:
    """The verdict on this content of the partition (None: on its present one); None where there is none to trust."""
    try:
        verdict = gate.read_verdict(installation.artifacts.store, installation.artifacts.signing_key, partition)
        if verdict is not None and content is None:
            pointer = installation.artifacts.pointer("transformed", partition)
            content = None if pointer is None else pointer.content
    except IntegrityError:
        return None
    return verdict if verdict is not None and verdict.content == content else None


def _findings(evaluation: dg.AssetCheckEvaluation, said: dict[str, Any], verdict: Verdict | None) -> tuple[str, ...]:
    """What the check found. What it raised is named and not quoted: a foreign error may hold data."""
    if "error" in said:
        return (f"it could not judge ({said['error']}); the run's log says why",)
    if verdict is not None and verdict.refused_by is not None:
        return (f"refused by {verdict.refused_by.who}: {verdict.refused_by.reason}", *_worst(verdict))[:3]
    if verdict is not None and verdict.findings:
        return _worst(verdict)
    return (_short(evaluation.description or "it says nothing more"),)


def _worst(verdict: Verdict) -> tuple[str, ...]:
    """The three worst findings: those that block first, then by how far they lie beyond their bound."""

    def badness(finding: Finding) -> tuple[bool, float]:
        return finding.blocking, finding.value / finding.bound if finding.bound else float("inf")

    return tuple(_short(finding.message) for finding in sorted(verdict.findings, key=badness, reverse=True)[:3])


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
