"""API keys: shown once, stored as hashes, revoked at once."""

import stat
from pathlib import Path

import pytest

from fraud_core.access.api_keys import ApiKeys, KeyRing
from fraud_core.errors import SettingsError, StoreError


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    return ApiKeys(tmp_path / "keys" / "api_keys.sqlite")


def test_a_key_has_256_bits_and_is_stored_as_its_hash_alone(keys: ApiKeys) -> None:
    key, token = keys.create("till 7", ["score"])
    prefix, identity, secret = token.split("_")
    assert (prefix, identity, len(bytes.fromhex(secret))) == ("fraud", key.id, 32)
    content = keys.path.read_bytes()
    assert secret.encode() not in content
    assert bytes.fromhex(secret) not in content
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600


def test_several_keys_live_side_by_side_and_one_is_revoked_alone(keys: ApiKeys) -> None:
    (old, old_token), (new, new_token) = keys.create("till", ["score"]), keys.create("till", ["score", "label"])
    ring = KeyRing(keys, refresh_seconds=0)
    assert ring.holder_of(old_token, 0) == old
    assert ring.holder_of(new_token, 0) == new
    revoked = keys.revoke(old.id)
    assert revoked.revoked is not None
    assert ring.holder_of(old_token, 1) is None
    assert ring.holder_of(new_token, 1) == new
    assert [key.id for key in keys.list()] == [old.id, new.id]
    assert keys.revoke(old.id) == revoked


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
    assert KeyRing(keys).holder_of(wrong[change], 0) is None


def test_a_ring_looks_at_the_file_again_only_after_its_time(keys: ApiKeys) -> None:
    ring = KeyRing(keys, refresh_seconds=1)
    assert ring.holder_of("fraud_a_b", 0) is None
    key, token = keys.create("till", ["score"])
    assert ring.holder_of(token, 0.5) is None
    assert ring.holder_of(token, 1.5) == key


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


def test_a_file_that_is_no_database_is_said_to_be_one(keys: ApiKeys) -> None:
    keys.path.parent.mkdir()
    keys.path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        keys.list()
