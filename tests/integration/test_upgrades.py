"""What users have stays readable: installations that earlier versions left are served, judged and trained on."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from fraud_core.access.api_keys import ApiKeys, KeyRing
from fraud_core.access.users import Users
from fraud_core.decisions.log import DecisionLog
from fraud_core.labels.log import LabelLog
from fraud_core.labels.resolve import resolve
from fraud_core.review.backlog import ReviewBacklog
from fraud_core.review.claims import Claims
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from fraud_core.storage.schema import VERSION, upgrade, version_of
from tests.api_server import Servers
from tests.earlier import VERSIONS, EarlierInstallation
from tests.schema import tables_of, triggers_of
from tests.servers.postgres_server import POSTGRES, PostgresServer

pytestmark = pytest.mark.integration
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module", params=VERSIONS)
def earlier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EarlierInstallation:
    return EarlierInstallation(request.param, tmp_path_factory.mktemp("earlier"))


@pytest.fixture(params=["sqlite", "postgresql"])
def used(
    request: pytest.FixtureRequest, earlier: EarlierInstallation, tmp_path: Path
) -> Iterator[tuple[Settings, Settings, dict[str, Any]]]:
    """Settings by which its database is opened, those of an empty one, and what was answered while it was used."""
    settings = Settings(_env_file=None, home=earlier.home)
    if request.param == "sqlite":
        yield settings, Settings(_env_file=None, home=tmp_path / "empty"), earlier.made["sqlite"]
        return
    if POSTGRES is None:
        pytest.skip("needs Debian's package postgresql")
    (tmp_path / "postgres").mkdir()
    server = PostgresServer(tmp_path / "postgres")
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE empty")
            connection.execute(earlier.dump.encode())
        empty = make_url(server.url).set(database="empty").render_as_string(hide_password=False)
        of_dump, of_empty = (Settings(_env_file=None, home=earlier.home, database=url) for url in (server.url, empty))
        yield of_dump, of_empty, earlier.made["postgresql"]
    finally:
        server.stop()


def test_decisions_labels_users_and_claims_of_an_earlier_version_are_read(
    earlier: EarlierInstallation, used: tuple[Settings, Settings, dict[str, Any]]
) -> None:
    settings, empty, made = used
    engine = open_database(settings)
    log, users = DecisionLog(engine, 36_500), Users(engine)
    found = log.find_all([answer["transaction_id"] for answer in made["answers"]])
    assert {identity: (one.probability, one.decision, one.model_version, one.degraded) for identity, one in found.items()} == {
        answer["transaction_id"]: (answer["probability"], answer["decision"], answer["model_version"], answer["degraded"])
        for answer in made["answers"]
    }
    labels = LabelLog(engine).of(["payment-03", made["judged"]])
    assert [(one.outcome, one.source) for one in labels["payment-03"]] == [("fraud", "chargeback")]
    assert [(one.outcome, one.author, one.note) for one in labels[made["judged"]]] == [("fraud", "ann", "the same shop again")]
    backlog = ReviewBacklog(log, LabelLog(engine))
    reviewed = [answer["transaction_id"] for answer in made["answers"] if answer["decision"] == "review"]
    said = LabelLog(engine).of(reviewed)
    assert backlog.outcomes(LONG_AGO) == Counter(resolve(said[one]) for one in reviewed)
    assert {one.transaction_id for one in backlog.waiting(LONG_AGO, (), 99, also_unsure=False)} == {
        one for one in reviewed if not said[one]
    }
    assert sum(backlog.judged(LONG_AGO, [LONG_AGO, datetime.now(UTC)])) == 1
    ann, lea = (users.verified(name, made["passwords"][name]) for name in ("ann", "lea"))
    assert ann is not None
    assert len(ann.cards) == 1
    assert lea is not None
    assert lea.role == "lead"
    assert users.verified("bob", made["passwords"]["bob"]) is None
    held_then = log.find(made["held"]).scored_at - timedelta(minutes=1)  # type: ignore[union-attr]
    assert Claims(engine, timedelta(minutes=30)).held(held_then) == {made["held"]: "lea"}
    ring = KeyRing(ApiKeys.of(settings, engine))
    ring.refresh()
    in_file = (earlier.home / "api_keys.sqlite").exists()  # of the use with SQLite
    key = ring.holder_of(earlier.made["sqlite" if in_file else engine.dialect.name]["api_key"])
    assert key is not None
    assert (key.name, key.scopes) == ("shop", {"score", "label"})
    assert version_of(engine) == VERSION
    new = open_database(empty)
    upgrade(new)
    assert (tables_of(engine), triggers_of(engine)) == (tables_of(new), triggers_of(new))
    new.dispose()
    engine.dispose()


def test_an_earlier_champion_is_served_with_its_history_and_answers_as_it_did(
    earlier: EarlierInstallation, servers: Servers
) -> None:
    made = earlier.made["sqlite"]
    server = servers.start(Settings(_env_file=None, home=earlier.home), FRAUD_API_AUTH="keys")
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {made['api_key']}"}) as http:
        ready = http.get("/readyz").json()
        assert ready["problem"] is None
        (version,) = {answer["model_version"] for answer in made["answers"]}
        assert ready["model_version"] == version
        answer = http.post("/v1/score", json={"timestamp": "2026-11-28T06:00:00Z", "amount": "9.99", "card": "tok_0"})
        assert answer.status_code == 200
        assert answer.json()["degraded"] is False
    server.stop()


def test_the_pipeline_goes_on_from_an_earlier_store_without_a_word_from_anyone(earlier: EarlierInstallation) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FRAUD_")}
    command = [sys.executable, "-m", "fraud_cli.main", "pipeline"]
    ran = subprocess.run(command, env=clean | earlier.variables, capture_output=True, text=True, check=False)
    assert "Traceback" not in ran.stderr
    assert '"accepted": 5, "rejected": 1' in ran.stdout, ran.stderr
    assert f'"version": "{earlier.made["sqlite"]["answers"][0]["model_version"]}"' in ran.stdout
