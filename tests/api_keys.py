"""What API keys promise: the same tests for SQLite (tests/unit) and PostgreSQL (tests/integration).

Whoever takes them over gives a fixture `engine`: a database without tables.
"""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from fraud_core.access.api_keys import ApiKeys, KeyRing
from fraud_core.errors import SettingsError


@pytest.fixture
def keys(engine: Engine, tmp_path: Path) -> ApiKeys:
    return ApiKeys(engine, tmp_path / "none.sqlite")


def test_a_key_has_256_bits_and_is_stored_as_its_hash_alone(keys: ApiKeys, engine: Engine) -> None:
    key, token = keys.create("till 7", ["score"])
    prefix, identity, secret = token.split("_")
    assert (prefix, identity, len(bytes.fromhex(secret))) == ("fraud", key.id, 32)
    with engine.connect() as connection:
        (row,) = connection.exec_driver_sql("SELECT * FROM api_keys").all()
    assert key.sha256 in list(row)
    assert secret not in str(row)
    assert bytes.fromhex(secret) not in list(row)


def test_several_keys_live_side_by_side_and_one_is_revoked_alone(keys: ApiKeys, engine: Engine, tmp_path: Path) -> None:
    (old, old_token), (new, new_token) = keys.create("till", ["score"]), keys.create("till", ["score", "label"])
    ring = KeyRing(ApiKeys(engine, tmp_path / "none.sqlite"))
    ring.refresh()
    assert ring.holder_of(old_token) == old
    assert ring.holder_of(new_token) == new
    revoked = keys.revoke(old.id)
    assert revoked.revoked is not None
    ring.refresh()
    assert ring.holder_of(old_token) is None
    assert ring.holder_of(new_token) == new
    assert [key.id for key in keys.list()] == [old.id, new.id]
    assert keys.revoke(old.id) == revoked


def test_a_scope_that_does_not_exist_a_nameless_key_and_an_unknown_one_are_refused(keys: ApiKeys) -> None:
    with pytest.raises(SettingsError, match="not everything"):
        keys.create("till", ["score", "everything"])
    with pytest.raises(SettingsError, match="not none"):
        keys.create("till", [])
    with pytest.raises(SettingsError, match="Name the service"):
        keys.create(" ", ["score"])
    with pytest.raises(SettingsError, match="no API key"):
        keys.revoke("abc")
    assert keys.list() == []
