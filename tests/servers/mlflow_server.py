"""A real MLflow tracking server on a port of its own, for tests."""

import os
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

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
        command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        # Without its consumers of jobs it is two processes instead of ten, and up in half the time.
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = self.folder / "mlflow.log"
        started = running(command, log, self._answers, seconds=120, environment=os.environ | quiet)
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
