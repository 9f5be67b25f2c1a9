"""A real Prometheus on a port of its own, for tests."""

import json
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fraud_cli.stack import servers
from tests.servers.processes import free_port, running

PROMETHEUS = servers.find("prometheus")


class PrometheusServer:
    """Runs with the configuration in `folder / "prometheus.yml"`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = servers.prometheus(str(PROMETHEUS), folder / "prometheus.yml", folder / "data", self.port)
        self._running = ExitStack()
        self._running.enter_context(running(command, folder / "log", self._is_ready))

    def stop(self) -> None:
        """End it."""
        self._running.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series that an expression gave between two instants (seconds since 1970)."""
        found: list[dict[str, Any]] = self._ask("query_range", query=expression, start=f"{start}", end=f"{end}", step=f"{step}")[
            "result"
        ]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing, with their labels and annotations."""
        found: list[dict[str, Any]] = self._ask("alerts")["alerts"]
        return found

    def _ask(self, what: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=20) as answer:
            return json.load(answer)["data"]

    def _is_ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
            return True
