"""The API as it runs: real processes, real connections, real signals."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from fraud_api.schemas import EXAMPLE, Transaction
from fraud_api.scoring import inputs_of
from fraud_client.client import FraudClient
from fraud_client.types import Transaction as Payment
from fraud_core.bundle import LATEST
from fraud_core.keys import Key, canonical_json, sign
from fraud_core.scorer import Scorer
from fraud_core.stores.api_keys import ApiKeys

pytestmark = pytest.mark.integration

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


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Settings and variables -> a server that answers; all are ended with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(settings: Any, **variables: str) -> Server:
        log = tmp_path / f"server-{len(running)}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FRAUD_")}
        environment = clean | {"FRAUD_HOME": str(settings.home), "FRAUD_POLL_SECONDS": "0.1", "FRAUD_API_DRAIN_SECONDS": "0.5"}
        with log.open("wb") as out:
            process = subprocess.Popen([sys.executable, "-c", SERVE], env=environment | variables, stdout=out, stderr=out)
        running.append(process)
        found = eventually(lambda: re.search(r"scoring API on (http://\S+:\d+)", log.read_text()) or process.poll() is not None)
        assert found is not True, log.read_text()
        url = found[1]
        eventually(lambda: answers(url))
        return Server(process, url, log)

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Load:
    """Callers that never pause: what they were told, and what went wrong."""

    url: str
    told: list[tuple[float, float, str, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def call(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as http:
            while not self.ended.is_set():
                begin = time.monotonic()
                try:
                    answer = http.post("/v1/score", json=EXAMPLE)
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


def test_promotions_rollbacks_corruption_and_a_lost_store_fail_no_request(
    serving: Callable[..., Server], installation: Any, pytestconfig: pytest.Config
) -> None:
    store, key = installation.store, installation.key
    expected = {}
    for number in range(6):
        bundle = installation.bundle(number)
        expected[bundle.version] = float(Scorer(bundle).score_inputs(inputs_of([Transaction.model_validate(EXAMPLE)]))[0])
    installation.promote(0)
    server = serving(installation.settings)
    eventually(lambda: version_of(server.url))
    valid: list[tuple[float, str]] = [(0.0, installation.bundle(0).version)]

    def promote(number: int) -> None:
        valid.append((time.monotonic(), installation.bundle(number).version))
        version = installation.promote(number)
        eventually(lambda: version_of(server.url) == version)

    with Load(server.url).running() as load:
        for round_ in range(10):
            promote(1 + round_ % 3)
        for number in (1, 2):  # back to older ones
            promote(number)

        good = store.get(LATEST)
        present = version_of(server.url)
        fourth = installation.bundle(4).version
        for name in ("manifest.json", "encoder.json", "model.treelite"):
            installation.promote(4)
            path = store.local_path(f"models/{fourth}/{name}")
            whole = path.read_bytes()
            # The pointer was moved before the file broke; put back what an unlucky reader would not see.
            store.put(LATEST, good)
            broken = bytearray(whole)
            broken[len(broken) // 2] ^= 1
            path.write_bytes(broken)
            pointer = json.loads(good)
            moved = sign(pointer | {"version": fourth, "sequence": pointer["sequence"] + 50}, key)
            store.put(LATEST, canonical_json(moved))
            eventually(lambda: problem_of(server.url) == "IntegrityError")
            path.write_bytes(whole)
            store.put(LATEST, good)
            eventually(lambda: problem_of(server.url) is None or version_of(server.url) != present)

        for forged in (
            good.replace(b'"sequence":', b'"sequence":9'),
            canonical_json(sign(json.loads(good) | {"version": fourth, "sequence": 9_999}, Key(bytes(32)))),
            good[: len(good) // 2],
        ):
            store.put(LATEST, forged)
            eventually(lambda: problem_of(server.url) == "IntegrityError")
        store.put(LATEST, good)

        away = store.root.with_name("away")
        store.root.rename(away)
        eventually(lambda: problem_of(server.url) is not None)
        time.sleep(1)
        away.rename(store.root)
        eventually(lambda: problem_of(server.url) is None)

    assert load.failed == []
    assert len(load.told) > 100
    valid.append((float("inf"), ""))
    for begin, end, version, probability in load.told:
        assert probability == expected[version], "an answer mixed two models"
        if version != fourth:
            # Valid at some time between the poll before the request and its answer.
            spans = pairwise(valid)
            assert any(v == version and since <= end and until >= begin - 5 for (since, v), (until, _) in spans)


def test_it_starts_without_a_model_and_serves_the_first_one_that_comes(serving: Callable[..., Server], installation: Any) -> None:
    server = serving(installation.settings)
    assert httpx.get(f"{server.url}/readyz").status_code == 503
    assert httpx.post(f"{server.url}/v1/score", json=EXAMPLE).status_code == 503
    version = installation.promote(1)
    eventually(lambda: version_of(server.url) == version)
    with FraudClient(server.url) as client:
        assert (
            client.score(Payment(timestamp=Transaction.model_validate(EXAMPLE).timestamp, amount="2.86")).model_version == version
        )


def test_two_workers_agree_within_a_poll_and_share_metrics_and_keys(serving: Callable[..., Server], installation: Any) -> None:
    first = installation.promote(1)
    keys = ApiKeys(installation.settings.home / "api_keys.sqlite")
    key, token = keys.create("till", ["score"])
    server = serving(installation.settings, FRAUD_API_WORKERS="2", FRAUD_API_AUTH="keys", FRAUD_API_RATE="0.001")
    headers = {"Authorization": f"Bearer {token}"}

    def versions() -> set[str]:
        return {httpx.get(f"{server.url}/readyz").json()["model_version"] for _ in range(40)}

    eventually(lambda: versions() == {first})
    second = installation.promote(2)
    eventually(lambda: versions() == {second})
    time.sleep(0.3)  # some polls later it is still so
    assert versions() == {second}

    for _ in range(30):
        assert httpx.post(f"{server.url}/v1/score", json=EXAMPLE, headers=headers).status_code == 200
    counted = {
        re.search(r'count\{handler="/v1/score",method="POST",status="200"\} (\S+)', httpx.get(f"{server.url}/metrics").text)[1]  # type: ignore[index]
        for _ in range(20)
    }
    assert counted == {"30.0"}

    keys.revoke(key.id)
    eventually(
        lambda: {httpx.post(f"{server.url}/v1/score", json=EXAMPLE, headers=headers).status_code for _ in range(20)} == {401}
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_no_accepted_request(serving: Callable[..., Server], installation: Any, workers: str) -> None:
    """Who was let in is answered. Who still waited at the door is turned away by the kernel: nobody has seen his request."""
    installation.promote(1)
    server = serving(installation.settings, FRAUD_API_WORKERS=workers)
    eventually(lambda: version_of(server.url))
    answered: list[str] = []
    kept_open: list[str] = []

    def call() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            is_new = True
            while True:
                try:
                    answer = http.post("/v1/score", json=EXAMPLE)
                except httpx.TransportError as error:
                    if is_new:
                        return
                    kept_open.append(repr(error))  # the server had promised to read on
                else:
                    assert answer.status_code == 200
                    answered.append(answer.headers["x-request-id"])
                    is_new = answer.headers.get("connection") == "close"

    def long_batch() -> int:
        rows = [EXAMPLE] * 10_000
        return httpx.post(f"{server.url}/v1/score/batch", json={"transactions": rows}, timeout=60).json()["rows"]  # type: ignore[no-any-return]

    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(call) for _ in range(4)]
        eventually(lambda: len(answered) > 50)
        batch = pool.submit(long_batch)
        time.sleep(0.1)
        assert server.stop() in {0, -signal.SIGTERM}
        for one in calls:
            one.result()
        assert batch.result() == 10_000
    assert kept_open == []
    begun = re.findall(r"request=(\w+) method=POST route=/v1/score status", server.log.read_text())
    assert sorted(begun) == sorted(answered)


def test_after_sigkill_it_serves_again_from_the_same_home(serving: Callable[..., Server], installation: Any) -> None:
    version = installation.promote(1)
    server = serving(installation.settings)
    server.stop(signal.SIGKILL)
    again = serving(installation.settings)
    eventually(lambda: version_of(again.url) == version)
    assert httpx.post(f"{again.url}/v1/score", json=EXAMPLE).status_code == 200


def test_open_doors_on_every_address_are_refused_at_start(installation: Any) -> None:
    environment = os.environ | {
        "FRAUD_HOME": str(installation.settings.home),
        "FRAUD_API_AUTH": "off",
        "FRAUD_API_HOST": "0.0.0.0",
    }
    ended = subprocess.run(
        [sys.executable, "-c", SERVE], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert "FRAUD_API_OPEN_TO_EVERYONE_WHO_REACHES_IT" in ended.stderr


def test_the_log_has_one_json_line_a_request(serving: Callable[..., Server], installation: Any) -> None:
    version = installation.promote(1)
    server = serving(installation.settings, FRAUD_LOG_FORMAT="json")
    eventually(lambda: version_of(server.url))
    answer = httpx.post(f"{server.url}/v1/score", json=EXAMPLE)
    server.stop()
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (line,) = [line for line in lines if line.get("request") == answer.headers["x-request-id"]]
    assert (line["route"], line["status"], line["model"]) == ("/v1/score", 200, version)


PURITY = """
import asyncio, ctypes, json, pickle, sys
import httpx
from fraud_core.settings import Settings
from fraud_api.app import create_app
from fraud_api.schemas import EXAMPLE

def forbidden(*_, **__):
    raise AssertionError("the scorer unpickled something or loaded a shared object")

async def main():
    app = create_app(Settings(_env_file=None), asks_for_keys=False)
    pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = forbidden
    ctypes.CDLL.__init__ = forbidden
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            answer = await http.post("/v1/score?explain=true", json=EXAMPLE)
            assert answer.status_code == 200, answer.text
            await http.post("/v1/score/batch", json={"transactions": [EXAMPLE]})
            csv = b"timestamp,amount\\n2020-01-01T00:00:00Z,1\\n"
            file = await http.post("/v1/score/file", content=csv, headers={"content-type": "text/csv"})
            assert file.status_code == 200, file.text
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))

asyncio.run(main())
"""


def test_the_process_imports_nothing_heavy_and_unpickles_nothing(installation: Any) -> None:
    installation.promote(1)
    environment = os.environ | {"FRAUD_HOME": str(installation.settings.home)}
    ended = subprocess.run(
        [sys.executable, "-c", PURITY], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    imported = set(json.loads(ended.stdout.splitlines()[-1]))
    heavy = {
        "dagster",
        "mlflow",
        "gradio",
        "shap",
        "alibi_detect",
        "joblib",
        "sklearn",
        "cloudpickle",
        "skops",
        "pandas",
        "matplotlib",
    }
    assert imported & heavy == set()
