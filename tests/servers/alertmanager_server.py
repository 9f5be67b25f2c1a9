"""A real Alertmanager on a port of its own, without a cluster, for tests."""

import json
import shutil
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from tests.servers.processes import free_port, running

ALERTMANAGER = shutil.which("prometheus-alertmanager")


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
        command = [
            str(ALERTMANAGER),
            f"--config.file={self.folder / 'alertmanager.yml'}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",  # else it binds every address
        ]
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
