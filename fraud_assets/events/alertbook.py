"""Alert store: which alerts are open and which messages are not delivered, in SQLite; and their delivery to the receivers.

Open alerts are posted on every round with an end five minutes ahead, since Alertmanager forgets when it restarts and a repeat is
harmless there. A message goes to the webhook until it is taken, and no more after that.
"""

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

AHEAD = timedelta(minutes=5)  # an open alert that nobody posts any more resolves itself after that
NEWS = timedelta(days=1)  # what had happened so long before the book was begun is no message any more
RUNBOOKS = "runbooks/pipeline"  # the page that has a section for each of our alerts
KEPT = timedelta(days=30)  # delivered messages are remembered
PATIENCE = httpx.Timeout(5.0)
MESSAGES_A_ROUND = 20

SCHEMA = """
CREATE TABLE IF NOT EXISTS alerts (
    labels TEXT PRIMARY KEY, about TEXT NOT NULL, annotations TEXT NOT NULL, link TEXT NOT NULL,
    opened REAL NOT NULL, expires REAL, ended REAL);
CREATE TABLE IF NOT EXISTS messages (
    id TEXT PRIMARY KEY, body TEXT NOT NULL, created REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, delivered REAL);
CREATE TABLE IF NOT EXISTS handled (storage_id INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS progress (storage_id INTEGER NOT NULL, begun REAL NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (told REAL NOT NULL);
"""


@dataclass(frozen=True)
class Subject:
    """What an alert tells of, however severe it is; when that is well again, the alert ends."""

    name: str
    asset: str
    partition: str = ""
    check: str = ""

    @property
    def key(self) -> str:
        """As the book has it."""
        return json.dumps([self.name, self.asset, self.partition, self.check])


@dataclass(frozen=True)
class Alert:
    """Something that somebody should know.

    Attributes:
        about: `name` is Alertmanager's alertname; `asset` the step or job where no asset is meant; the others may be empty.
        severity: "error", "warning" or "info".
        summary: a sentence.
        findings: at most three, the worst first.
        link: to the run, or to the asset where no run is behind it.
        lasts: it ends by itself after so long; None: when what it tells of is well again.
    """

    about: Subject
    severity: str
    summary: str
    findings: tuple[str, ...]
    link: str
    lasts: timedelta | None = None


@dataclass(frozen=True)
class Backlog:
    """How many alerts are open, how many messages are not delivered, and since when the oldest of these waits."""

    open: int
    undelivered: int
    waiting_since: datetime | None


@dataclass(frozen=True)
class Receivers:
    """Whom to tell, by URL; empty: nobody."""

    alertmanager: str
    webhook: str


@dataclass(frozen=True)
class AlertTransaction:
    """The book, within a transaction."""

    rows: sqlite3.Connection
    source: str
    docs: str

    def open(self, alert: Alert, at: datetime, message_id: str) -> None:
        """Open the alert, or renew what it says; and leave a message, unless it tells of old times."""
        about, expires = alert.about, None if alert.lasts is None else (at + alert.lasts).timestamp()
        given = {"alertname": about.name, "asset": about.asset, "partition": about.partition, "check": about.check}
        given |= {"severity": alert.severity, "source": self.source}
        labels = json.dumps({name: value for name, value in given.items() if value}, sort_keys=True)
        runbook = runbook_url(self.docs, about.name)
        said = {"summary": alert.summary, "findings": "\n".join(alert.findings), "run": alert.link, "runbook_url": runbook}
        annotations = json.dumps(said)
        # With another severity it has other labels, so that for Alertmanager it is another alert: the former is over.
        self.rows.execute(
            "UPDATE alerts SET ended = ? WHERE about = ? AND ended IS NULL AND labels <> ?", (at.timestamp(), about.key, labels)
        )
        self.rows.execute(
            "INSERT INTO alerts VALUES (?, ?, ?, ?, ?, ?, NULL) ON CONFLICT (labels) DO UPDATE SET "
            "annotations = excluded.annotations, link = excluded.link, expires = excluded.expires, ended = NULL",
            (labels, about.key, annotations, alert.link, at.timestamp(), expires),
        )
        (begun,) = self.rows.execute("SELECT begun FROM progress").fetchone()
        if at.timestamp() >= begun - NEWS.total_seconds():
            self.rows.execute(
                "INSERT OR IGNORE INTO messages (id, body, created) VALUES (?, ?, ?)",
                (message_id, json.dumps(_message(alert, self.source, runbook, at, message_id)), at.timestamp()),
            )

    def end(self, about: Subject, at: datetime) -> None:
        """What the alert tells of is well again; nothing happens where none is open."""
        self.rows.execute("UPDATE alerts SET ended = ? WHERE about = ? AND ended IS NULL", (at.timestamp(), about.key))

    def is_open(self, about: Subject) -> bool:
        """Whether there is an open alert about this."""
        return about in self.opened(about.name)

    def opened(self, name: str) -> list[Subject]:
        """What the open alerts of this name are about."""
        found = self.rows.execute("SELECT about FROM alerts WHERE ended IS NULL ORDER BY opened")
        return [about for about in (Subject(*json.loads(key)) for (key,) in found) if about.name == name]

    def expire(self, now: datetime) -> None:
        """End what lasts no longer, and forget messages delivered long ago."""
        self.rows.execute("UPDATE alerts SET ended = expires WHERE ended IS NULL AND expires <= ?", (now.timestamp(),))
        self.rows.execute("DELETE FROM messages WHERE delivered < ?", ((now - KEPT).timestamp(),))


class AlertStore:
    """The book on disk. One writer at a time; any process may look."""

    def __init__(self, path: Path, source: str, docs: str = "") -> None:
        self.path = path
        self.source = source
        self.docs = docs

    @contextmanager
    def writing(self, now: datetime) -> Iterator[AlertTransaction]:
        """A transaction: all of it is written, or nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            connection.executescript(SCHEMA)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO progress SELECT 0, ? WHERE NOT EXISTS (SELECT 1 FROM progress)", (now.timestamp(),))
            yield AlertTransaction(connection, self.source, self.docs)
            connection.execute("COMMIT")
        finally:
            connection.close()  # without a commit, this rolls back

    def backlog(self, now: datetime) -> Backlog:
        """The figures that observability wants."""
        with self.writing(now) as page:
            (opened,) = page.rows.execute("SELECT count(*) FROM alerts WHERE ended IS NULL").fetchone()
            waiting, oldest = page.rows.execute("SELECT count(*), min(created) FROM messages WHERE delivered IS NULL").fetchone()
        return Backlog(opened, waiting, None if oldest is None else datetime.fromtimestamp(oldest, UTC))

    def told_at(self) -> datetime | None:
        """When the last round ended; None before the first."""
        with self.writing(datetime.now(UTC)) as page:
            (told,) = page.rows.execute("SELECT max(told) FROM rounds").fetchone()
        return None if told is None else datetime.fromtimestamp(told, UTC)


def runbook_url(docs: str, name: str) -> str:
    """Where it stands what to do about an alert: on the site of the documentation, or else which page of the repository it is."""
    page = f"{docs.rstrip('/')}/{RUNBOOKS}.html" if docs else f"docs/{RUNBOOKS}.md"
    return f"{page}#{name.lower()}"


def tell(book: AlertStore, receivers: Receivers, now: datetime) -> list[str]:
    """Tell the receivers what the book holds; a sentence for each that did not take it, which is tried again next time."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses, and a webhook's address is a secret
    with httpx.Client(timeout=PATIENCE) as client:
        troubles = _post_alerts(book, client, receivers.alertmanager, now) + _send_messages(book, client, receivers.webhook, now)
    with book.writing(now) as page:
        page.rows.execute("DELETE FROM rounds")
        page.rows.execute("INSERT INTO rounds VALUES (?)", (now.timestamp(),))
    return troubles


def _post_alerts(book: AlertStore, client: httpx.Client, url: str, now: datetime) -> list[str]:
    """Post open alerts with an end ahead, and ended ones with theirs; these are forgotten once that has arrived."""
    with book.writing(now) as page:
        found = page.rows.execute("SELECT labels, annotations, link, opened, ended FROM alerts").fetchall()
    if url and found:
        alerts = [
            {
                "labels": json.loads(labels),
                "annotations": json.loads(annotations),
                "startsAt": _rfc3339(opened),
                "endsAt": _rfc3339((now + AHEAD).timestamp() if ended is None else max(ended, opened)),
                "generatorURL": link,
            }
            for labels, annotations, link, opened, ended in found
        ]
        trouble = _post(client, f"{url.rstrip('/')}/api/v2/alerts", alerts, {})
        if trouble is not None:
            return [f"Alertmanager does not take the alerts ({trouble}); they are posted again"]
    over = [(labels, ended) for labels, _, _, _, ended in found if ended is not None]
    with book.writing(now) as page:
        page.rows.executemany("DELETE FROM alerts WHERE labels = ? AND ended = ?", over)
    return []


def _send_messages(book: AlertStore, client: httpx.Client, url: str, now: datetime) -> list[str]:
    """Send what is not delivered, the least tried first; after a refusal the others wait too, so that a round stays short."""
    with book.writing(now) as page:
        if not url:  # there is nobody to tell
            page.rows.execute("DELETE FROM messages WHERE delivered IS NULL")
            return []
        waiting = page.rows.execute(
            "SELECT id, body FROM messages WHERE delivered IS NULL ORDER BY attempts, created LIMIT ?", (MESSAGES_A_ROUND,)
        ).fetchall()
    for message_id, body in waiting:
        trouble = _post(client, url, json.loads(body), {"Idempotency-Key": message_id})
        delivered = now.timestamp() if trouble is None else None
        with book.writing(now) as page:
            page.rows.execute("UPDATE messages SET attempts = attempts + 1, delivered = ? WHERE id = ?", (delivered, message_id))
        if trouble is not None:
            return [f"the webhook does not take messages ({trouble}); they are sent again"]
    return []


def _post(client: httpx.Client, url: str, body: object, headers: dict[str, str]) -> str | None:
    """None if it was taken, else why not, without the address, which may be a secret."""
    try:
        answer = client.post(url, json=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    return None if answer.is_success else f"it answers {answer.status_code}"


def _message(alert: Alert, source: str, runbook: str, at: datetime, message_id: str) -> dict[str, object]:
    about = alert.about
    return {
        "text": _slack(alert),
        "id": message_id,
        "alert": about.name,
        "source": source,
        "asset": about.asset,
        "partition": about.partition,
        "check": about.check,
        "severity": alert.severity,
        "summary": alert.summary,
        "findings": list(alert.findings),
        "url": alert.link,
        "runbook_url": runbook,
        "at": at.isoformat(),
    }


def _slack(alert: Alert) -> str:
    """Slack's mrkdwn. What people and data wrote is escaped, so that it can neither link nor call a channel."""

    def escaped(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    lines = [f"*{escaped(alert.summary)}* ({alert.severity})", *(f"• {escaped(finding)}" for finding in alert.findings)]
    return "\n".join([*lines, f"<{alert.link}|open in Dagster>"])


def _rfc3339(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
