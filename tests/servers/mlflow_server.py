"""A real MLflow tracking server on a port of its own, for tests."""

import os
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from fraud_cli.stack import servers
from tests.servers.processes import free_port, running


class MlflowServer:
    """Not started yet, so that a test can begin with one that is down. What it was told is kept in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._running = ExitStack()

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = servers.mlflow(self.port, self.folder / "mlflow.db", str(self.folder / "artifacts"))
        log = self.folder / "mlflow.log"
        started = running(command, log, self._answers, seconds=120, environment=os.environ | servers.MLFLOW_VARIABLES)
        self._running.enter_context(started)

    def stop(self) -> None:
        """End it; what it holds stays."""
        self._running.close()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.URLError:
            return False
