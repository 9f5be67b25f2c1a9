"""One holder a case, whoever asks at the same moment."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fraud_core.review.claims import Claims
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from tests.servers.postgres_server import POSTGRES, PostgresServer

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
CASES = [f"case-{number:02d}" for number in range(40)]


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param(
            "postgresql",
            marks=[pytest.mark.integration, pytest.mark.skipif(POSTGRES is None, reason="PostgreSQL is not installed")],
        ),
    ]
)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = open_database(Settings(_env_file=None, home=tmp_path))
        yield engine
        engine.dispose()
        return
    server = PostgresServer(tmp_path)
    try:
        engine = open_database(Settings(_env_file=None, home=tmp_path, database=server.url))
        yield engine
        engine.dispose()
    finally:
        server.stop()


def test_many_who_ask_at_once_never_get_the_same_case(engine: Engine) -> None:
    claims = Claims(engine, timedelta(minutes=30))
    with ThreadPoolExecutor(10) as pool:
        taken = list(pool.map(lambda number: claims.take(CASES, f"analyst-{number}", NOW), range(40)))
    assert sorted(case or "" for case in taken) == CASES
    assert claims.take(CASES, "latecomer", NOW) is None
    assert claims.held(NOW) == {case: f"analyst-{number}" for number, case in enumerate(taken)}


def test_a_claim_is_its_holders_until_it_lapses(engine: Engine) -> None:
    claims = Claims(engine, timedelta(minutes=30))
    assert claims.take(["one"], "anna", NOW) == "one"
    assert claims.take(["one"], "anna", NOW) == "one"
    assert claims.take(["one", "two"], "ben", NOW) == "two"
    assert not claims.renew("one", "ben", NOW)
    assert claims.renew("one", "anna", NOW + timedelta(minutes=29))
    later = NOW + timedelta(minutes=58)
    assert claims.take(["one"], "ben", later) is None
    lapsed = NOW + timedelta(minutes=59)
    assert claims.held(lapsed) == {}
    assert not claims.renew("one", "anna", lapsed)
    assert claims.take(["one"], "ben", lapsed) == "one"


def test_only_the_holder_lets_go(engine: Engine) -> None:
    claims = Claims(engine, timedelta(minutes=30))
    claims.take(["one"], "anna", NOW)
    claims.release("one", "ben")
    assert claims.held(NOW) == {"one": "anna"}
    claims.release("one", "anna")
    assert claims.take(["one"], "ben", NOW) == "one"
