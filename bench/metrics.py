"""What the metrics of one payment cost: processor time a request, measured in process; writes docs/proofs/metrics.json.

The middleware stands around an application that answers at once, and the calls that a decision makes follow each other as they do
there. Rounds with and without them take turns, and medians are told, since a machine's speed varies from minute to minute. Once
for one process, and once with the files that several workers share. `--quick` measures briefly, and writes nothing.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from installation import install
from starlette.types import Message, Receive, Scope, Send

from fraud_api.endpoints.score import router
from fraud_api.metrics.registry import Metrics
from fraud_api.metrics.workers import FOLDER_VARIABLE
from fraud_core.gate.baseline import make_reference, write_reference
from fraud_core.models.bundle import read_bundle
from fraud_core.models.follower import ModelFollower
from fraud_core.models.registry import read_latest
from fraud_core.settings import Settings
from fraud_core.signing.keys import signing_key
from fraud_core.storage.open import open_store

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, REQUESTS = 15, 4_000
GOAL_US = 20.0


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers at once."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def ignore(_: Message) -> None:
    """Nobody reads the answer."""


async def nothing() -> Message:
    """Nobody sends a body."""
    return {"type": "http.request", "body": b""}


async def cost_us(call: Callable[[], Awaitable[None]], requests: int) -> float:
    """Processor time of a call, in microseconds."""
    begun = time.process_time()
    for _ in range(requests):
        await call()
    return (time.process_time() - begun) / requests * 1e6


async def measure(home: Path, rounds: int, requests: int) -> float:
    """Processor time that the metrics of a payment take: median over rounds of with less without."""
    settings = Settings(_env_file=None, home=home)
    store, key = open_store(settings.store_url, home / "cache"), signing_key(settings)
    metrics = Metrics(store, key)
    follower = ModelFollower(store, key, metrics.follow)
    served = follower.poll().served
    assert served is not None
    app = FastAPI()
    app.router.routes += router.routes
    metrics.instrument(app)
    (middleware,) = app.user_middleware
    counted: Any = middleware.cls(answer, *middleware.args, **middleware.kwargs)
    matrix = np.zeros((1, len(served.scorer.bundle.encoder.features)))

    def scope() -> Scope:
        return {
            "type": "http",
            "method": "POST",
            "path": "/v1/score",
            "headers": [],
            "query_string": b"",
            "app": app,
            "state": {},
            "root_path": "",
            "http_version": "1.1",
            "scheme": "http",
            "server": ("localhost", 80),
        }

    async def bare() -> None:
        await answer(scope(), nothing, ignore)

    async def whole() -> None:
        await counted(scope(), nothing, ignore)
        metrics.history_seconds("read", 0.0004)
        metrics.scored(served, matrix, [0.01])
        metrics.history_seconds("write", 0.0004)
        metrics.decision_log_seconds(0.0004)
        metrics.decided(0.01, "approve")

    differences = []
    for _ in range(rounds):
        without = await cost_us(bare, requests)
        differences.append(await cost_us(whole, requests) - without)
    return statistics.median(differences)


def prepare(home: Path) -> None:
    """A champion with its reference."""
    measured = install(home)
    store, key = open_store(measured.settings.store_url, home / "cache"), signing_key(measured.settings)
    latest = read_latest(store, key)
    assert latest is not None
    bundle = read_bundle(store, latest.version, key)
    write_reference(store, key, "bench", make_reference(bundle, measured.matrix, datetime.now(UTC)))


def main() -> None:
    """Measure, print one JSON object, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure briefly, and write nothing")
    parser.add_argument("--home", type=Path, help="measure in this installation, and print the figure alone")
    given = parser.parse_args()
    rounds, requests = (3, 1_000) if given.quick else (ROUNDS, REQUESTS)
    if given.home is not None:
        print(asyncio.run(measure(given.home, rounds, requests)))
        return
    figures: dict[str, Any] = {"goal_us": GOAL_US}
    with tempfile.TemporaryDirectory(prefix="fraud-bench-") as folder:
        prepare(Path(folder) / "home")
        (Path(folder) / "shared").mkdir()
        command = [sys.executable, __file__, "--home", str(Path(folder) / "home"), *(["--quick"] if given.quick else [])]
        for name, variables in (("one_process_us", {}), ("shared_files_us", {FOLDER_VARIABLE: str(Path(folder) / "shared")})):
            ended = subprocess.run(command, env=os.environ | variables, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
            figures[name] = round(float(ended.stdout), 1)
    print(json.dumps(figures))
    if not given.quick:
        (ROOT / "docs" / "proofs" / "metrics.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
