"""A real Alertmanager on a port of its own, without a cluster, for tests."""

import json
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from fraud_cli.stack import servers
from tests.servers.processes import free_port, running

ALERTMANAGER = servers.find("alertmanager")


class AlertmanagerServer:
    """Can be stopped and started again on the same port; what it knows lies in `folder / "data"`."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "alertmanager.yml").write_text(config)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = servers.alertmanager(str(ALERTMANAGER), self.folder / "alertmanager.yml", self.folder / "data", self.port)
        self.process = self._running.enter_context(running(command, self.folder / "log", self._is_ready))

    def stop(self) -> None:
        """End it in peace."""
        self.process.terminate()
        self.process.wait(timeout=20)
        self._running.close()

    def firing(self) -> list[str]:
        """Names of the alerts that are open there, silenced ones too."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts?active=true", timeout=5) as answer:
            return sorted(alert["labels"]["alertname"] for alert in json.load(answer))

    def _is_ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
            return True
