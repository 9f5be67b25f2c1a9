"""Partitions on two workers over a real Redis and a real PostgreSQL: one worker is killed at work, and nothing is missing."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from celery import Celery
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from fraud_assets.installation import Installation
from fraud_assets.operations.judging import judge_partition
from fraud_assets.runtime.spreading import JOBS
from fraud_assets.runtime.workers import answering, celery_app
from fraud_cli.commands.spread import QUEUE_DAEMON, spread
from fraud_cli.instance import environment, open_instance
from fraud_core import gate
from fraud_core.intake.landing import Landing, land
from fraud_core.intake.raw import build_raw
from fraud_core.settings import Settings
from fraud_core.storage.artifacts import Document
from fraud_core.training_data.transform import build_transformed
from tests.servers.postgres_server import POSTGRES, PostgresServer
from tests.servers.redis_server import REDIS, RedisServer
from tests.simulated import COLUMNS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(REDIS is None, reason="needs Debian's package redis-server"),
    pytest.mark.skipif(POSTGRES is None, reason="needs Debian's package postgresql"),
]

BIN = Path(sys.executable).parent
SOURCE = (
    """
name = "weeks"
timezone = "UTC"
cadence = "weekly"
first = "2024-01-01"
last = "2024-06-10"
label_delay_days = 1
history_days = 7

[simulator]
seed = 3
cardholders = 300
merchants = 100
transactions_per_card_per_day = 0.5
fraud_rate = 0.06

[split]
protocol = "time"
holdout_days = 14
validation_days = 7
training_days = 3650

[drift]
bootstrap_partitions = 3
reference_partitions = 4
"""
    + COLUMNS
)
PARTITIONS = 24
PATIENCE = 240.0


class Machines:
    """Machines with a home each; a store, keys, and, if they work together, a database and a broker."""

    def __init__(self, folder: Path, **shared: str) -> None:
        self.folder = folder
        (folder / "weeks.toml").write_text(SOURCE)
        self.shared = {
            "store": str(folder / "store"),
            "source": str(folder / "weeks.toml"),
            "card_key": "ab" * 32,
            "signing_key": "cd" * 32,
            "drift_detector": "scipy",
            "threads": "1",
            "dvc_remote": "off",
            "mlflow_url": "off",
            "automation": "off",
            **shared,
        }

    def settings(self, machine: str) -> Settings:
        return Settings(_env_file=None, home=self.folder / machine, **self.shared)

    def variables(self, machine: str) -> dict[str, str]:
        given = {f"FRAUD_{name.upper()}": value for name, value in self.shared.items()}
        return os.environ | given | {"FRAUD_HOME": str(self.folder / machine)}

    @contextmanager
    def running(self, machine: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        variables = self.variables(machine) | environment(self.settings(machine))
        with (self.folder / f"{machine}.log").open("ab") as log:
            started = {"env": variables, "stdout": log, "stderr": log, "start_new_session": True}
            process = subprocess.Popen([BIN / command[0], *command[1:]], **started)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def landed(installation: Installation) -> Document:
    """What the asset `landing` holds."""
    landing = land(installation.source, installation.artifacts.store, installation.card_key, None)
    return Document(body=landing.model_dump(mode="json"), content=landing.content())


def held(settings: Settings) -> dict[str, Any]:
    """What the store holds of every partition: contents, hashes of the files, what the gate said and to what it compared."""
    installation = Installation.load(settings)
    store, key = installation.artifacts.store, installation.artifacts.signing_key
    found: dict[str, Any] = {}
    for asset in ("raw", "quarantine", "transformed"):
        for partition, pointer in installation.artifacts.pointers(asset).items():
            assert len(store.get(pointer.key)) == pointer.size
            found[f"{asset} {partition}"] = (pointer.content, pointer.sha256, pointer.inputs, pointer.facts)
            if asset == "transformed":
                verdict = gate.read_verdict(store, key, partition)
                found[f"verdict {partition}"] = verdict and verdict.model_dump(exclude={"created_at"})
    return found


def eventually(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.2)
    return found


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process makes, partition after partition, each judged before the next is made."""
    settings = Machines(tmp_path_factory.mktemp("alone")).settings("one")
    installation = Installation.load(settings)
    source, artifacts = installation.source, installation.artifacts
    landing = Landing.model_validate(landed(installation).body)
    for key in source.keys:
        raw = build_raw(source, landing, key, artifacts.store, installation.card_key)
        artifacts.write("raw", key, raw.rows)
        artifacts.write("quarantine", key, raw.quarantine)
        artifacts.write("transformed", key, build_transformed(source, artifacts, key))
        gate.record(artifacts.store, artifacts.signing_key, judge_partition(installation, key))
    return held(settings)


def test_a_backfill_on_two_workers_of_which_one_is_killed_gives_what_one_process_gives(
    alone: dict[str, Any], redis: RedisServer, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = Machines(tmp_path, broker=redis.url, dagster_database=postgres.url)
    settings = machines.settings("first")
    said: list[str] = []
    for name, value in machines.variables("first").items():
        monkeypatch.setenv(name, value)
    with (
        open_instance(settings) as instance,
        machines.running("first", "dagster-daemon", "run", "-m", "fraud_assets.definitions"),
        machines.running("second", "fraud", "worker", "--name", "a"),
        machines.running("third", "fraud", "worker", "--name", "b") as victim,
    ):
        eventually(lambda: len(answering(redis.url)) == 2 and QUEUE_DAEMON in instance.get_daemon_heartbeats())
        installation = Installation.load(settings)
        artifacts = installation.artifacts
        artifacts.write("landing", None, landed(installation))
        with ThreadPoolExecutor(1) as thread:
            spreading = thread.submit(spread, installation, instance, installation.source.keys, said.append)
            broken = kill_at_work(victim, "b", instance, celery_app(redis.url))
            spreading.result(timeout=PATIENCE)
        runs = [run for run in instance.get_runs() if run.job_name in JOBS]
        workers = [worker_of(run, celery_app(redis.url)) for run in runs]
        resumed = instance.get_run_by_id(broken)
        told = [event.message for event in instance.all_logs(broken)]

    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert len(runs) == len(JOBS) * PARTITIONS
    assert said == [
        f"2 workers answer: {', '.join(f'{name}@{platform.node()}' for name in 'ab')}",
        f"make_raw: {PARTITIONS} partitions go to the workers",
        f"make_transformed: {PARTITIONS} partitions go to the workers",
    ]
    assert set(workers) == {"a", "b"}
    assert resumed is not None
    assert worker_of(resumed, celery_app(redis.url)) == "a"
    assert "Launching a new run worker to resume run" in told
    for key in installation.source.keys:
        gate.record(artifacts.store, artifacts.signing_key, judge_partition(installation, key))
    shared = held(settings)
    assert len(shared) == 4 * PARTITIONS
    assert shared == alone
    # A worker keeps its copies of what it read, and which of the signed documents that it saw were the newest.
    kept = {path.name for machine in ("second", "third") for path in (tmp_path / machine).iterdir()}
    assert {name for name in kept if not name.startswith("fraud.sqlite")} <= {"dagster", "cache", ".gitignore"}


def kill_at_work(victim: subprocess.Popen[bytes], name: str, instance: dg.DagsterInstance, app: Celery) -> str:
    """Kill a worker with all its processes while it makes a partition, after both have made some; returns that run's id."""

    def both_made_some() -> bool:
        done = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
        return {worker_of(run, app) for run in done if run.job_name in JOBS} == {"a", "b"}

    def caught() -> str | None:
        os.killpg(victim.pid, signal.SIGSTOP)
        for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
            if run.job_name in JOBS and worker_of(run, app) == name:
                os.killpg(victim.pid, signal.SIGKILL)
                return run.run_id
        os.killpg(victim.pid, signal.SIGCONT)
        return None

    eventually(both_made_some)
    run_id: str = eventually(caught)
    return run_id


def worker_of(run: dg.DagsterRun, app: Celery) -> str | None:
    """The worker that took a run last, None while nobody has."""
    told = app.backend.get_task_meta(run.tags.get(DAGSTER_CELERY_TASK_ID_TAG, "none"))
    address = told["result"]["hostname"] if told["status"] == "STARTED" else told.get("worker")
    return None if address is None else str(address).partition("@")[0]
