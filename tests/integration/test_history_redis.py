"""History in a real Redis: the promises of every store, and its own."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import example, given, settings
from pydantic import SecretStr

from fraud_core.errors import StoreError
from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.features.windows import Plan, Reach
from fraud_core.history.open import open_history
from fraud_core.history.redis import RedisHistory
from fraud_core.history.store import HistoryStore
from fraud_core.settings import Settings
from tests.history_store import *  # noqa: F403 - the promises are tests
from tests.history_store import NOON, REACH, RECORDING, Opened, counts, entry, nothing_is_half_recorded
from tests.random_windows import (
    AFTER,
    BORDER,
    CORRECTIONS,
    KEPT,
    LATE,
    NEXT,
    PAYMENTS,
    PLANS,
    REACHES,
    SETTLED,
    changes,
    kept_plan,
    table,
    through,
)
from tests.random_windows import REACH as WINDOWS_REACH
from tests.servers.redis_server import REDIS, RedisServer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(REDIS is None, reason="needs Debian's package redis-server"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    started = RedisServer(tmp_path_factory.mktemp("redis"))
    yield started
    started.stop()


@pytest.fixture
def url(server: RedisServer) -> str:
    """Of an empty Redis."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture
def opened(url: str) -> Iterator[Opened]:
    made: list[HistoryStore] = []

    def make() -> HistoryStore:
        made.append(open_history(Settings(_env_file=None, history=SecretStr(url), history_timeout=5_000), REACH))
        return made[-1]

    yield make
    for store in made:
        store.close()


def test_an_outage_is_told_in_a_sentence_and_nothing_of_the_past_is_lost(server: RedisServer, store: HistoryStore) -> None:
    store.record([entry("a"), entry("b")])
    server.kill()
    with pytest.raises(StoreError, match=rf"Redis at 127.0.0.1:{server.port} cannot be used"):
        store.record([entry("c")])
    with pytest.raises(StoreError, match="FRAUD_HISTORY"):
        store.heard()
    server.start()
    assert sorted(store.find(["a", "b", "c"])) == ["a", "b"]
    assert counts(store, NOON + 3_600_000_000) == (2, 2, 0)
    assert store.record([entry("c")])[0].new


def test_a_silent_server_is_given_up_and_a_password_is_not_told(server: RedisServer, store: HistoryStore) -> None:
    secret = SecretStr(f"redis://user:geheim@127.0.0.1:{server.port}/0")
    hasty = open_history(Settings(_env_file=None, history=secret, history_timeout=20), REACH)
    server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreError) as told:
            hasty.look([], STANDARD_PLAN)
    finally:
        server.process.send_signal(signal.SIGCONT)
        hasty.close()
    assert "geheim" not in str(told.value)
    assert "Timeout" in str(told.value)


def test_a_recorder_that_is_killed_leaves_nothing_half_recorded(url: str, store: HistoryStore) -> None:
    process = subprocess.Popen([sys.executable, "-c", RECORDING, url], stdout=subprocess.PIPE, text=True)
    nothing_is_half_recorded(process, store)


def test_a_redis_that_is_killed_while_it_records_comes_back_with_all_that_was_answered(
    server: RedisServer, url: str, store: HistoryStore
) -> None:
    def restart() -> None:
        server.kill()
        server.start()

    process = subprocess.Popen(
        [sys.executable, "-c", RECORDING, url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    nothing_is_half_recorded(process, store, restart)


@settings(deadline=None, max_examples=40)
@given(PAYMENTS, CORRECTIONS, PLANS, REACHES)
@example([BORDER, NEXT, NEXT, NEXT], [], STANDARD_PLAN, WINDOWS_REACH)
@example([BORDER, *[NEXT] * 5, AFTER], [], STANDARD_PLAN, replace(WINDOWS_REACH, newest_events=3))
@example([SETTLED, NEXT], [LATE], STANDARD_PLAN, WINDOWS_REACH)
def test_whatever_was_declared_one_payment_has_the_past_that_the_columns_have(
    server: RedisServer, rows: list[Any], corrections: list[Any], plan: Plan, reach: Reach
) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    with closing(RedisHistory(server.url, KEPT, 5_000, kept_plan(plan))) as store:
        through(store, table(rows), changes(corrections), plan, reach)
