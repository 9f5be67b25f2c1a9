"""Serving with several workers, up to where they would be started."""

from typing import Any

import pytest
import uvicorn

from fraud_api import server


def test_workers_that_take_long_to_start_are_not_killed_for_it(installation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[uvicorn.Config] = []

    class Supervisor:
        def __init__(self, config: uvicorn.Config, sockets: object) -> None:
            started.append(config)

        def run(self) -> None:
            """Nothing."""

    monkeypatch.setattr(server, "Workers", Supervisor)
    monkeypatch.setattr(server, "configure_logging", lambda settings: None)
    monkeypatch.setenv(server.FOLDER_VARIABLE, "")  # which is set for the workers, and put back after the test
    server.serve(installation.settings, port=0, workers=2)
    (config,) = started
    assert config.timeout_worker_healthcheck >= 30
