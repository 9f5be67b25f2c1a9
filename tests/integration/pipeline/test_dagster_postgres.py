"""Dagster's runs and events in a real PostgreSQL: the pipeline, and the sensor that asks for check evaluations."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from fraud_assets.events.alerts import tick
from fraud_cli.instance import open_instance
from tests.receiver import Receiver
from tests.servers.postgres_server import POSTGRES, PostgresServer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("few_trees_alone"),
    pytest.mark.skipif(POSTGRES is None, reason="needs Debian's package postgresql"),
]

ROOT = Path(__file__).parents[3]
JULY = "2024-07"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    started = PostgresServer(tmp_path_factory.mktemp("postgres"))
    yield started
    started.stop()


@pytest.fixture
def webhook() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_the_pipeline_runs_on_it_and_each_failed_check_is_told_once(
    trained: Any, server: PostgresServer, webhook: Receiver
) -> None:
    shutil.rmtree(trained.home / "dagster")  # six months are made, and nothing is known of how
    told = (("FRAUD_DAGSTER_DATABASE", server.url), ("FRAUD_WEBHOOK_URL", webhook.url), ("FRAUD_REVIEW_CAPACITY", "20"))
    place = replace(trained, environment=told)
    run = place.fraud("pipeline")
    assert run.status == 0, run.err
    assert (run.result["accepted"], run.result["rejected"]) == (6, 1)
    assert run.result["version"] is not None
    with psycopg.connect(server.url) as connection:
        (runs,) = connection.execute("SELECT count(*) FROM runs WHERE status IN ('SUCCESS', 'FAILURE')").fetchone() or (0,)
    assert runs == 1 + 1 + 1 + 1  # landing, the seventh month, training, history
    assert [path.name for path in (place.home / "dagster").rglob("*.db")] == []

    installation = place.installation()
    with open_instance(installation.settings) as instance:
        first = tick(installation, instance, datetime.now(UTC))
        assert (first.events > 0, first.open, first.troubles) == (True, 1, [])
        assert [(told["check"], told["partition"]) for told in webhook.taken] == [("drift", JULY)]
        assert tick(installation, instance, datetime.now(UTC)).events == 0

    assert place.fraud("accept", JULY, "--reason", "prices did rise", "--who", "kim").status == 0
    with open_instance(installation.settings) as instance:
        after = tick(installation, instance, datetime.now(UTC))
    assert (after.events > 0, after.troubles) == (True, [])
    assert [told["partition"] for told in webhook.taken if told["check"] == "drift"].count(JULY) == len(webhook.taken)


def test_the_instance_that_several_machines_share_is_read_from_its_file(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAUD_DAGSTER_DATABASE", server.url.replace("postgresql:", "postgresql+psycopg2:"))
    with dg.DagsterInstance.from_config(str(ROOT / "docker")) as instance:
        run = instance.add_run(dg.DagsterRun("shared"))
        assert instance.get_run_by_id(run.run_id) is not None
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT pipeline_name FROM runs WHERE run_id = %s", [run.run_id]).fetchone() == ("shared",)


def test_a_database_that_is_gone_is_told_before_any_work_and_without_its_password(empty: Any, server: PostgresServer) -> None:
    server.stop()
    url = server.url.replace("fraud@", "fraud:hunter2@")
    run = empty.fraud("pipeline", FRAUD_DAGSTER_DATABASE=url)
    server.start()
    assert "see that PostgreSQL runs and that FRAUD_DAGSTER_DATABASE is right" in run.refusal
    assert "hunter2" not in run.err
    assert set(empty.stored()) == {"source.json"}
    assert "hunter2" not in (empty.home / "dagster" / "dagster.yaml").read_text()
