"""The API as it runs: real processes, real connections, real signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from fraud_api.server import WORKER_SECONDS
from fraud_client.client import FraudClient
from fraud_client.types import Transaction as Payment
from fraud_core.access.api_keys import ApiKeys
from fraud_core.features.encoder import Encoder
from fraud_core.transactions.transaction import EXAMPLE, Transaction
from tests.api_server import NAMELESS, SERVE, Server, Servers, eventually, variables_of, version_of
from tests.conftest import new_installation
from tests.documents import ROOT, blocks

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, learned: tuple[bytes, Encoder]) -> Iterator[tuple[Server, str]]:
    """A server for tests that leave it as it is, and its champion."""
    folder = tmp_path_factory.mktemp("serving")
    installation, servers = new_installation(folder, learned), Servers(folder)
    version = installation.promote(1)
    server = servers.start(installation.settings, FRAUD_ALLOWED_HOSTS="fraud.example", FRAUD_LOG_FORMAT="json")
    eventually(lambda: version_of(server.url) == version)
    yield server, version
    servers.end()


def test_it_starts_without_a_model_and_serves_the_first_one_that_comes(servers: Servers, installation: Any) -> None:
    server = servers.start(installation.settings)
    assert httpx.get(f"{server.url}/readyz").status_code == 503
    assert httpx.post(f"{server.url}/v1/score", json=EXAMPLE).status_code == 503
    version = installation.promote(1)
    eventually(lambda: version_of(server.url) == version)
    with FraudClient(server.url) as client:
        assert (
            client.score(Payment(timestamp=Transaction.model_validate(EXAMPLE).timestamp, amount="2.86")).model_version == version
        )


def test_the_pages_examples_work_each_time_they_are_pasted(serving: tuple[Server, str], tmp_path: Path) -> None:
    """Time goes on between two pastings, so an id that stood in the text would stand under another payment the second time."""
    server, _ = serving
    pages = [ROOT / "docs" / "guides" / "service.md", ROOT / "docs" / "api.md"]
    calls = [block for page in pages for block in blocks(page) if re.search(r"curl .*/v1/|FraudClient\(", block.text)]
    assert {block.language for block in calls} == {"bash", "python"}
    for block in [*calls, *calls]:
        command = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[block.language]
        text = block.text.replace("http://127.0.0.1:8000", server.url)
        done = subprocess.run([*command, text], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "urn:fraud:problem" not in done.stdout, (block.where, done.stdout)


def test_on_loopback_a_name_of_somebody_elses_that_leads_here_reaches_nothing(serving: tuple[Server, str]) -> None:
    server, _ = serving
    rebound = httpx.post(
        f"{server.url}/v1/labels", json={}, headers={"host": "evil.example:8000", "origin": "http://evil.example:8000"}
    )
    assert (rebound.status_code, rebound.json()["type"]) == (421, "urn:fraud:problem:unknown-host")
    assert httpx.get(f"{server.url}/healthz", headers={"host": "fraud.example"}).status_code == 200


def test_two_workers_agree_within_a_poll_and_share_metrics_and_keys(servers: Servers, installation: Any) -> None:
    first = installation.promote(1)
    keys = ApiKeys.of(installation.settings)
    key, token = keys.create("till", ["score"])
    server = servers.start(installation.settings, FRAUD_API_WORKERS="2", FRAUD_API_AUTH="keys", FRAUD_API_RATE="0.001")
    headers = {"Authorization": f"Bearer {token}"}

    def versions() -> set[str]:
        return {httpx.get(f"{server.url}/readyz").json()["model_version"] for _ in range(40)}

    eventually(lambda: versions() == {first})
    second = installation.promote(2)
    eventually(lambda: versions() == {second})
    time.sleep(0.3)  # some polls later it is still so
    assert versions() == {second}

    for _ in range(30):
        assert httpx.post(f"{server.url}/v1/score", json=NAMELESS, headers=headers).status_code == 200
    counted = {
        re.search(r'count\{handler="/v1/score",method="POST",status="200"\} (\S+)', httpx.get(f"{server.url}/metrics").text)[1]  # type: ignore[index]
        for _ in range(20)
    }
    assert counted == {"30.0"}

    keys.revoke(key.id)
    eventually(
        lambda: {httpx.post(f"{server.url}/v1/score", json=NAMELESS, headers=headers).status_code for _ in range(20)} == {401}
    )


def test_a_worker_that_is_killed_leaves_its_counts_and_no_file(servers: Servers, installation: Any) -> None:
    installation.promote(1)
    server = servers.start(installation.settings, FRAUD_API_WORKERS="2")
    folder = installation.settings.home / "run" / f"metrics-{server.url.rpartition(':')[2]}"

    def refused() -> float:
        found = re.search(r'fraud_refused_total\{kind="invalid-input"\} (\S+)', metrics_text(server.url))
        return 0.0 if found is None else float(found[1])

    def owners() -> set[str]:
        return {path.stem.rpartition("_")[2] for path in folder.glob("*.db")}

    def send() -> int:
        return httpx.post(f"{server.url}/v1/score", json={}, timeout=60).status_code

    assert send() == 422
    eventually(lambda: refused() == 1)
    first = next(iter(owners()))  # which worker takes a connection is for the kernel to say, so one of them is held
    os.kill(int(first), signal.SIGSTOP)
    assert send() == 422
    eventually(lambda: refused() == 2)
    victims = owners()
    assert len(victims) == 2
    time.sleep(1)  # by now the supervisor has asked the held one whether it lives, and waits for the answer
    for pid in victims:
        os.kill(int(pid), signal.SIGKILL)
    eventually(lambda: metrics_text(server.url) and not owners() & victims, WORKER_SECONDS / 2)
    assert "dead" in owners()
    assert refused() == 2


def metrics_text(url: str) -> str:
    """The metrics; nothing while no worker answers."""
    try:
        return httpx.get(f"{url}/metrics").text
    except httpx.TransportError:
        return ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_no_accepted_request(servers: Servers, installation: Any, workers: str) -> None:
    """Who was let in is answered. Who still waited at the door is turned away by the kernel: nobody has seen his request."""
    installation.promote(1)
    server = servers.start(installation.settings, FRAUD_API_WORKERS=workers)
    eventually(lambda: version_of(server.url))
    answered: list[str] = []
    kept_open: list[str] = []

    def call() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            is_new = True
            while True:
                try:
                    answer = http.post("/v1/score", json=NAMELESS)
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


def test_after_sigkill_it_serves_again_from_the_same_home(servers: Servers, installation: Any) -> None:
    version = installation.promote(1)
    server = servers.start(installation.settings)
    server.stop(signal.SIGKILL)
    again = servers.start(installation.settings)
    eventually(lambda: version_of(again.url) == version)
    assert httpx.post(f"{again.url}/v1/score", json=NAMELESS).status_code == 200


def test_open_doors_on_every_address_are_refused_at_start(installation: Any) -> None:
    environment = os.environ | variables_of(installation.settings) | {"FRAUD_API_AUTH": "off", "FRAUD_API_HOST": "0.0.0.0"}
    ended = subprocess.run(
        [sys.executable, "-c", SERVE], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert "FRAUD_API_OPEN_TO_EVERYONE_WHO_REACHES_IT" in ended.stderr


def test_the_log_has_one_json_line_a_request(serving: tuple[Server, str]) -> None:
    server, version = serving
    answers = [httpx.post(f"{server.url}/v1/score", json=EXAMPLE) for _ in range(2)]
    of_each = [answer.headers["x-request-id"] for answer in answers]
    eventually(lambda: of_each[1] in server.log.read_text().rpartition("\n")[0])  # the first one's line is whole before that
    lines = [json.loads(line) for line in server.log.read_text().rpartition("\n")[0].splitlines()]
    (line,) = [line for line in lines if line.get("request") == of_each[0]]
    assert (line["route"], line["status"], line["model"]) == ("/v1/score", 200, version)


PURITY = """
import asyncio, ctypes, json, pickle, sys
import httpx
from fraud_core.settings import Settings
from fraud_api.app import create_app
from fraud_core.transactions.transaction import EXAMPLE

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
    environment = os.environ | variables_of(installation.settings)
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
