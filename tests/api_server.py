"""The API as it runs, for tests: real processes, and callers that never pause."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from fraud_core.settings import Settings
from fraud_core.transactions.transaction import EXAMPLE

NAMELESS = {name: value for name, value in EXAMPLE.items() if name != "transaction_id"}  # decided anew each time it is sent

SERVE = "from fraud_core.settings import Settings; from fraud_api.server import serve; serve(Settings(_env_file=None), port=0)"


@dataclass
class Server:
    """A running API."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def eventually(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What comes out once it is true."""
    deadline = time.monotonic() + seconds
    while True:
        result = what()
        if result or time.monotonic() > deadline:
            assert result
            return result
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Load:
    """Callers that never pause: what they were told, and what went wrong. They send `payment`, which may change meanwhile."""

    url: str
    payment: dict[str, Any] = field(default_factory=lambda: dict(NAMELESS))
    told: list[tuple[float, float, str, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def call(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as http:
            while not self.ended.is_set():
                begin = time.monotonic()
                try:
                    answer = http.post("/v1/score", json=self.payment)
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                if answer.status_code == 200:
                    body = answer.json()
                    self.told.append((begin, time.monotonic(), body["model_version"], body["probability"]))
                else:
                    self.failed.append(answer.text)

    @contextmanager
    def running(self, callers: int = 3) -> Iterator["Load"]:
        with ThreadPoolExecutor(callers) as pool:
            calls = [pool.submit(self.call) for _ in range(callers)]
            try:
                yield self
            finally:
                self.ended.set()
            for call in calls:
                call.result()


def version_of(url: str) -> str | None:
    version: str | None = httpx.get(f"{url}/readyz").json()["model_version"]
    return version


def problem_of(url: str) -> str | None:
    problem: str | None = httpx.get(f"{url}/readyz").json()["problem"]
    return problem


def variables_of(settings: Settings) -> dict[str, str]:
    """Where an installation is, for a process of its own."""
    keys = {"FRAUD_CARD_KEY": settings.card_key, "FRAUD_SIGNING_KEY": settings.signing_key}
    given = {name: key.get_secret_value() for name, key in keys.items() if key is not None}
    return {"FRAUD_HOME": str(settings.home), "FRAUD_STORE": settings.store, **given}


@dataclass
class Servers:
    """Starts servers; logs go to a folder."""

    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, settings: Any, **variables: str) -> Server:
        """A server that answers, on a free port, with quick polls; `variables` are FRAUD_ settings."""
        log = self.folder / f"server-{len(self.running)}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FRAUD_")}
        environment = clean | variables_of(settings) | {"FRAUD_POLL_SECONDS": "0.1", "FRAUD_API_DRAIN_SECONDS": "0.5"}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE], env=environment | variables, stdout=out, stderr=out, start_new_session=True
            )
        self.running.append(process)
        found = eventually(lambda: re.search(r"scoring API on (http://\S+:\d+)", log.read_text()) or process.poll() is not None)
        assert found is not True, log.read_text()
        url = found[1]
        eventually(lambda: answers(url))
        return Server(process, url, log)

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers, too
            process.wait()
