"""The API whose disk is full, whose databases are moved away, locked or damaged: it says so, and loses nothing."""

import resource
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from fraud_client.client import FraudClient
from fraud_client.errors import UnavailableError
from fraud_client.types import Transaction as Payment
from fraud_core.access.api_keys import ApiKeys
from fraud_core.decisions.log import DecisionLog
from fraud_core.storage.database import open_database
from fraud_core.transactions.transaction import EXAMPLE, Transaction
from tests.api_server import Servers, eventually

pytestmark = pytest.mark.integration


def paid(url: str, identity: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/score", json=EXAMPLE | {"transaction_id": identity}, timeout=30)


def logged(settings: Any) -> set[str]:
    engine = open_database(settings)
    found = {one.transaction_id for one in DecisionLog(engine, 36_500).recent(Transaction.model_validate(EXAMPLE).timestamp, 99)}
    engine.dispose()
    return found


def test_on_a_full_disk_payments_are_refused_as_documented_and_the_scorer_is_not_ready_until_there_is_room(
    servers: Servers, installation: Any
) -> None:
    installation.promote(1)
    server = servers.start(installation.settings)
    assert paid(server.url, "before").status_code == 200
    # No file may grow beyond this: what a full disk looks like to whoever writes.
    none_left, most = (16_384, resource.RLIM_INFINITY), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, none_left)
    refused = [paid(server.url, f"full {number}") for number in range(3)]
    assert {(one.status_code, one.json()["type"]) for one in refused} == {(503, "urn:fraud:problem:decision-log")}
    assert {one.headers["Retry-After"] for one in refused} == {"5"}
    ready = httpx.get(f"{server.url}/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.json()["problem"]) == (503, False, "StoreError")
    eventually(lambda: "fraud_recording_failing 1.0" in httpx.get(f"{server.url}/metrics").text)
    payment = Payment(timestamp=Transaction.model_validate(EXAMPLE).timestamp, amount="2.86", transaction_id="client")
    with FraudClient(server.url, patience=0.1) as client, pytest.raises(UnavailableError):  # so its caller falls back
        client.score(payment)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, most)
    eventually(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
    assert paid(server.url, "after").status_code == 200
    said = server.log.read_text()
    assert "Traceback" not in said
    assert said.count("payments can be written nowhere") == 1
    assert {"before", "after"} <= logged(installation.settings)
    server.stop()


def test_a_database_that_is_moved_away_while_it_is_used_loses_no_decision(servers: Servers, installation: Any) -> None:
    installation.promote(1)
    server = servers.start(installation.settings)
    home = Path(installation.settings.home)
    assert paid(server.url, "before").status_code == 200
    moved = home / "moved"
    moved.mkdir()
    files = [file for name in ("fraud", "history") for file in home.glob(f"{name}.sqlite*")]
    for file in files:
        file.rename(moved / file.name)
    assert paid(server.url, "away").status_code == 200
    assert not (home / "history.sqlite").exists()
    assert not (home / "fraud.sqlite").exists()
    for file in files:
        (moved / file.name).rename(file)
    eventually(lambda: logged(installation.settings) == {"before", "away"})
    with closing(sqlite3.connect(home / "history.sqlite")) as history:
        eventually(lambda: history.execute("SELECT id FROM payments ORDER BY sequence").fetchall() == [("before",), ("away",)])
    assert "was moved away or deleted while it was in use" in server.log.read_text()
    server.stop()


def test_a_locked_database_holds_no_payment(servers: Servers, installation: Any) -> None:
    installation.promote(1)
    server = servers.start(installation.settings, FRAUD_DECISION_LOG_TIMEOUT="50")
    assert paid(server.url, "before").status_code == 200
    with closing(sqlite3.connect(installation.settings.home / "fraud.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert paid(server.url, "locked").status_code == 200  # or it would be waited for until the lock goes, for ever
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        other.execute("ROLLBACK")
    eventually(lambda: logged(installation.settings) == {"before", "locked"})
    server.stop()


def test_damaged_spools_and_keys_keep_nobody_from_starting_and_are_set_aside(servers: Servers, installation: Any) -> None:
    installation.promote(1)
    home = Path(installation.settings.home)
    spool, keys = home / "spool", home / "api_keys.sqlite"
    key, token = ApiKeys.of(installation.settings).create("till", ["score"])
    spool.mkdir()
    for name in ("decisions", "history"):
        (spool / f"{name}.sqlite").write_bytes(b"no database" * 1_000)
    keys.write_bytes(b"no database" * 1_000)  # those of before the database held them
    server = servers.start(installation.settings, FRAUD_API_AUTH="keys")
    mine, nobodys = ({"Authorization": f"Bearer {one}"} for one in (token, "fraud_0_0"))

    def asked(headers: dict[str, str]) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/score", json=EXAMPLE, headers=headers)

    refused = asked(mine)
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:fraud:problem:keys-unreadable")
    keys.unlink()
    eventually(lambda: asked(mine).status_code == 200)
    database = (home / "fraud.sqlite").rename(home / "moved")
    eventually(lambda: asked(nobodys).status_code == 503)
    assert "read last still hold" in server.log.read_text().rpartition("can be read again")[2]
    assert asked(mine).status_code == 200
    database.rename(home / "fraud.sqlite")
    eventually(lambda: asked(nobodys).status_code == 401)
    ApiKeys.of(installation.settings).revoke(key.id)
    eventually(lambda: asked(mine).status_code == 401)
    assert {file.name.partition(".damaged-")[0] for file in spool.glob("*.damaged-*")} == {"decisions.sqlite", "history.sqlite"}
    assert "Traceback" not in server.log.read_text()
    server.stop()
