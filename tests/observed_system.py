"""The whole of it at work, watched by real servers: scorer, pipeline, exporter, Prometheus and Alertmanager.

Prometheus runs the rules that ship, with their durations shortened and nothing else changed: what takes minutes and days there
takes seconds here.
"""

import json
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml

from fraud_assets.events import alerts
from fraud_cli.instance import environment, open_instance
from fraud_core.features import catalogue
from fraud_core.gate.baseline import make_reference, write_reference
from fraud_core.models.registry import point_at
from fraud_ui.metrics import DeskMetrics
from tests.api_server import Server, Servers
from tests.conftest import ZONE, Installation, transactions
from tests.home import SOURCE, WEEKS, Home
from tests.receiver import Receiver
from tests.servers.alertmanager_server import AlertmanagerServer
from tests.servers.postgres_server import PostgresServer
from tests.servers.processes import free_port, listens, running
from tests.servers.prometheus_server import PrometheusServer

ROOT = Path(__file__).parents[1]
OBSERVABILITY = ROOT / "observability"

WINDOWS = {"5m": 4, "10m": 4, "30m": 5, "1h": 6, "2h": 6, "6h": 8, "1d": 12, "3d": 12}  # seconds
INTERVAL, EVALUATION, FOR, DAY = "1s", "500ms", "1s", "5"
OBJECTIVE = "0.5"  # one of the histogram's edges
RATE_INTERVAL = "4s"

# Three weeks are accepted unjudged, the fourth has drifted; after it there is no more.
SMALL = SOURCE.replace("shift_from = 2024-02-19", "shift_from = 2024-01-22").replace('last = "2024-02-19"', 'last = "2024-01-22"')
LAST = WEEKS[3]


def shortened(text: str) -> str:
    """Rules or a configuration with other durations: windows, `for`, intervals, and days of 86400 seconds are shorter.

    The 50 ms of the objective become half a second, so that a busy machine that runs tests is not slow by itself.
    """
    text = re.sub(r"\[(\d+[mhd])\]", lambda found: f"[{WINDOWS[found[1]]}s]", text)
    text = re.sub(r"\bfor: \d+[mhd]\b", f"for: {FOR}", text)
    text = re.sub(r"\b(scrape_interval|scrape_timeout): \w+", rf"\1: {INTERVAL}", text)
    text = re.sub(r"\bevaluation_interval: \w+", f"evaluation_interval: {EVALUATION}", text)
    text = text.replace('le="0.05"', f'le="{OBJECTIVE}"').replace("p99_5m > 0.05", f"p99_5m > {OBJECTIVE}")
    return re.sub(r"\b86400\b", DAY, text)


def alertmanager_config(receiver: str) -> str:
    """The configuration that ships, which tells one receiver whoever it would tell, and does not wait."""
    shipped = yaml.safe_load((OBSERVABILITY / "alertmanager" / "alertmanager.yml").read_text())

    def without_waiting(route: dict[str, Any]) -> dict[str, Any]:
        timed = {"group_wait": "100ms", "group_interval": "1s", "repeat_interval": "1h"}
        kept = {name: value for name, value in route.items() if name not in timed and name != "routes"}
        return kept | timed | {"routes": [without_waiting(child) for child in route.get("routes", [])]}

    webhook = {"url": receiver, "send_resolved": True}
    return yaml.safe_dump(
        {
            "route": without_waiting(shipped["route"]),
            "receivers": [{"name": one["name"], "webhook_configs": [webhook]} for one in shipped["receivers"]],
            "inhibit_rules": shipped["inhibit_rules"],
        }
    )


@dataclass
class Callers:
    """Callers of the scorer that never pause; what they send can be changed while they do."""

    url: str
    rows: list[dict[str, Any]]
    shifted: bool = False
    _sent: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def calling(self, count: int) -> Iterator["Callers"]:
        """So many callers at once."""
        threads = [threading.Thread(target=self._call, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _call(self) -> None:
        while not self._ended.is_set():
            url = self.url
            with closing(HTTPConnection(url.removeprefix("http://"), timeout=10)) as connection, suppress(OSError, HTTPException):
                while not self._ended.is_set() and url == self.url:
                    connection.request("POST", "/v1/score", json.dumps(self._next()), {"Content-Type": "application/json"})
                    with closing(connection.getresponse()) as answer:
                        answer.read()
            self._ended.wait(0.1)

    def _next(self) -> dict[str, Any]:
        with self._lock:
            self._sent += 1
            number = self._sent
        row = self.rows[number % len(self.rows)] | {"transaction_id": f"payment-{number}"}
        return row | {"amount": "0.01", "category": "gas_transport"} if self.shifted else row


class ObservedSystem:
    """Everything, in a folder of its own.

    Args:
        folder: empty.
        installation: where the scorer's models are.
        servers: starts the scorer.
        postgres: holds the decision log, and can be stopped.
    """

    def __init__(self, folder: Path, installation: Installation, servers: Servers, postgres: PostgresServer) -> None:
        self._closing = ExitStack()
        self.installation, self._servers, self.postgres = installation, servers, postgres
        self.receiver, self.webhook = Receiver(), Receiver(status=503)  # who sends messages is not told yet
        self._closing.callback(self.receiver.close)
        self._closing.callback(self.webhook.close)
        self.alertmanager = AlertmanagerServer(folder / "alertmanager", alertmanager_config(self.receiver.url))
        self._closing.callback(self.alertmanager.stop)

        (folder / "small.toml").write_text(SMALL)
        told = {"alertmanager_url": self.alertmanager.url, "webhook_url": self.webhook.url, "database": postgres.url}
        self.home = Home(folder, told)
        self.home.close()
        self.home.instance = open_instance(self.home.installation.settings)
        self._closing.callback(self.home.close)
        self.targets = folder / "prometheus" / "targets"
        self._prometheus_folder(folder / "prometheus")
        self.exporter_port = free_port()
        self._target("pipeline", self.exporter_port)
        self.desk = DeskMetrics()  # stands for the desk, of which Prometheus sees no more
        self.desk_server = Receiver(tells=self.desk.exposition)
        self._closing.callback(self.desk_server.close)
        self._target("desk", self.desk_server.port)
        self.scorer: Server | None = None
        self.started = time.time()
        self.prometheus = PrometheusServer(folder / "prometheus")
        self._closing.callback(self.prometheus.stop)
        self._exporter = ExitStack()
        self._closing.callback(self._exporter.close)
        self._folder = folder
        self.fired: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """End everything."""
        self._closing.close()

    # ---- parts

    def start_scorer(self) -> str:
        """Start it; returns its URL."""
        self.scorer = self._servers.start(self.installation.settings, FRAUD_DATABASE=self.postgres.url)
        self._target("scorer", int(self.scorer.url.rpartition(":")[2]))
        return self.scorer.url

    def start_exporter(self) -> None:
        """Start `fraud exporter`, and wait until it answers."""
        command = [sys.executable, "-m", "fraud_cli.main", "exporter", "--port", str(self.exporter_port)]
        variables = os.environ | self.home.environment | environment(self.home.installation.settings)
        self._exporter.enter_context(
            running(
                command, self._folder / "exporter.log", lambda: listens(self.exporter_port), seconds=120, environment=variables
            )
        )

    def stop_exporter(self) -> None:
        """Kill it."""
        self._exporter.close()

    def promote(self, number: int, at: datetime) -> str:
        """Make a bundle champion, with its reference, as of an instant; returns its version."""
        bundle = self.installation.bundle(number)
        self.installation.write(bundle)
        matrix = bundle.encoder.matrix(catalogue.compute(catalogue.PLAIN, transactions(4_000), ZoneInfo(ZONE)))
        write_reference(self.installation.store, self.installation.key, "run", make_reference(bundle, matrix, at))
        point_at(
            self.installation.store,
            bundle.version,
            self.installation.key,
            how="promotion",
            who="test",
            at=at,
            reason="for a test",
        )
        return bundle.version

    @contextmanager
    def alert_sensor(self) -> Iterator[None]:
        """The sensor that tells of failed checks, at work."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(0.5):
                alerts.tick(self.home.installation, self.home.instance, datetime.now(UTC))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """No file of the scorer's may grow beyond a page: what a full disk looks like to whoever writes."""
        assert self.scorer is not None
        before = resource.prlimit(self.scorer.process.pid, resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
        yield
        resource.prlimit(self.scorer.process.pid, resource.RLIMIT_FSIZE, before)

    @contextmanager
    def slow_scorer(self) -> Iterator[None]:
        """The scorer's process gets no processor for longer than the objective allows, again and again."""
        assert self.scorer is not None
        process, ended = self.scorer.process, threading.Event()

        def hold() -> None:
            while not ended.wait(0.3):
                process.send_signal(signal.SIGSTOP)
                time.sleep(1.2 * float(OBJECTIVE))
                process.send_signal(signal.SIGCONT)

        thread = threading.Thread(target=hold, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    # ---- what the watchers say

    def firing(self) -> set[str]:
        """Names of the alerts that fire now; what they say is kept in `fired`."""
        found = [alert for alert in self.prometheus.alerts() if alert["state"] == "firing"]
        for alert in found:
            self.fired[alert["labels"]["alertname"]] = alert
        return {alert["labels"]["alertname"] for alert in found}

    def wait_until_fires(self, *names: str, seconds: float = 90.0) -> None:
        """Wait until these fire, not necessarily at the same time."""
        waited_for = set(names)

        def all_seen() -> bool:
            waited_for.difference_update(self.firing())
            return not waited_for

        wait(all_seen, lambda: f"{waited_for} do not fire", seconds)

    def wait_until_over(self, *names: str, seconds: float = 90.0) -> None:
        """Wait until none of these fires."""
        wait(lambda: not set(names) & self.firing(), lambda: f"{set(names) & self.firing()} go on", seconds)

    def notified(self, status: str) -> set[str]:
        """Names of the alerts of which the receiver was told."""
        return {
            alert["labels"]["alertname"] for body in self.receiver.taken for alert in body["alerts"] if alert["status"] == status
        }

    def _prometheus_folder(self, folder: Path) -> None:
        for path in (OBSERVABILITY / "prometheus").rglob("*.yml"):
            target = folder / path.relative_to(OBSERVABILITY / "prometheus")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(shortened(path.read_text()))
        self._target("alertmanager", self.alertmanager.port)

    def _target(self, name: str, port: int) -> None:
        draft = self.targets / f".{name}"
        draft.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}"]}]))
        draft.replace(self.targets / f"{name}.yml")


def wait(holds: Callable[[], bool], what: Callable[[], str], seconds: float) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.3)


def long_ago(days: float) -> datetime:
    """An instant so many days ago."""
    return datetime.now(UTC) - timedelta(days=days)
