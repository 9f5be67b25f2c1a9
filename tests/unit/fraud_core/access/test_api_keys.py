"""API keys in SQLite: the promises of all, and the file of before that is taken over."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fraud_core.access.api_keys import ApiKeys, KeyRing
from fraud_core.errors import StoreError
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from tests.api_keys import *  # noqa: F403 - the promises are tests
from tests.earlier import EarlierInstallation


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(Settings(_env_file=None, home=tmp_path / "home"))


@pytest.mark.parametrize("change", ["secret", "identity", "short", "empty", "surrogate"])
def test_a_token_that_is_not_quite_right_opens_nothing(keys: ApiKeys, change: str) -> None:
    _, token = keys.create("till", ["score"])
    wrong = {
        "secret": token[:-1] + ("0" if token[-1] != "0" else "1"),
        "identity": token.replace("_", "_0", 1),
        "short": token[:-1],
        "empty": "",
        "surrogate": token[:-1] + "\udc80",
    }
    ring = KeyRing(keys)
    ring.refresh()
    assert ring.holder_of(token) is not None
    assert ring.holder_of(wrong[change]) is None


def test_while_the_database_is_gone_those_that_were_read_last_hold(keys: ApiKeys, tmp_path: Path) -> None:
    (key, token), database = keys.create("till", ["score"]), tmp_path / "home" / "fraud.sqlite"
    ring = KeyRing(keys)
    ring.refresh()
    moved = database.rename(tmp_path / "moved")
    ring.refresh()
    assert (ring.holder_of(token), ring.is_damaged) == (key, True)
    moved.rename(database)
    keys.revoke(key.id)
    ring.refresh()
    assert (ring.holder_of(token), ring.is_damaged) == (None, False)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> EarlierInstallation:
    return EarlierInstallation("0.1.0", tmp_path_factory.mktemp("earlier"))


def test_keys_of_the_file_of_before_open_what_they_did_and_a_revoked_one_stays_so(
    earlier: EarlierInstallation, tmp_path: Path
) -> None:
    settings, token = Settings(_env_file=None, home=tmp_path), earlier.made["sqlite"]["api_key"]
    file = Path(shutil.copy(earlier.home / "api_keys.sqlite", tmp_path))
    before = file.read_bytes()
    (found,) = ApiKeys.of(settings).list()
    assert (found.name, found.scopes, found.revoked) == ("shop", {"score", "label"}, None)
    ring = KeyRing(ApiKeys.of(settings))
    ring.refresh()
    assert ring.holder_of(token) == found
    revoked = ApiKeys.of(settings).revoke(found.id)
    assert ApiKeys.of(settings).list() == [revoked], "the file has it as valid, and is looked at by each process"
    assert file.read_bytes() == before


def test_a_key_of_one_machine_opens_all_and_revoked_on_another_opens_none(earlier: EarlierInstallation, engine: Engine) -> None:
    one, other = (ApiKeys(engine, folder / "api_keys.sqlite") for folder in (earlier.home, earlier.folder))
    rings = [KeyRing(one), KeyRing(other)]
    for opened in (True, False):
        for ring in rings:
            ring.refresh()
            assert (ring.holder_of(earlier.made["sqlite"]["api_key"]) is not None) == opened
        for key in other.list():
            other.revoke(key.id)


def test_what_an_older_release_revokes_in_the_file_is_revoked(earlier: EarlierInstallation, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path)
    file = shutil.copy(earlier.home / "api_keys.sqlite", tmp_path)
    ApiKeys.of(settings).list()
    with closing(sqlite3.connect(file)) as old, old:
        old.execute("UPDATE keys SET revoked = '2026-11-28T12:00:00+00:00'")
    (found,) = ApiKeys.of(settings).list()
    assert found.revoked is not None
    assert found.revoked.isoformat() == "2026-11-28T12:00:00+00:00"


def test_a_file_of_before_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "api_keys.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="cannot be taken over"):
        ApiKeys.of(Settings(_env_file=None, home=tmp_path)).list()
