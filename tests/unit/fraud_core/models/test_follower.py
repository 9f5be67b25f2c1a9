"""The scorer holder: follows the pointer, and keeps what works whatever goes wrong."""

import json
import logging
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from fraud_core.errors import StoreError
from fraud_core.models.follower import ModelFollower, Status
from fraud_core.models.registry import LATEST
from fraud_core.signing.keys import Key, canonical_json, sign
from tests.stores import remove


@pytest.fixture
def follower(installation: Any) -> ModelFollower:
    return ModelFollower(installation.store, installation.key)


def flip(installation: Any, key: str, at: int) -> None:
    data = bytearray(installation.store.get(key))
    data[at % len(data)] ^= 1
    installation.store.put(key, bytes(data))


def test_it_starts_without_a_model_and_takes_the_first(installation: Any, follower: ModelFollower) -> None:
    assert follower.poll() == Status(checked_at=follower.status.checked_at)
    version = installation.promote(1)
    served = follower.poll().served
    assert served is not None
    assert (served.version, served.latest.sequence) == (version, 1)


def test_a_promotion_and_a_rollback_are_followed(installation: Any, follower: ModelFollower) -> None:
    first, second = installation.promote(1), installation.promote(2)
    assert follower.poll().served.version == second  # type: ignore[union-attr]
    installation.point(first)
    assert follower.poll().served.version == first  # type: ignore[union-attr]


def test_an_unchanged_pointer_keeps_the_very_same_object(installation: Any, follower: ModelFollower) -> None:
    installation.promote(1)
    assert follower.poll().served is follower.poll().served


@pytest.mark.parametrize("name", ["manifest.json", "encoder.json", "model.treelite"])
@pytest.mark.parametrize("at", [0, 7, 1001, -1])
def test_a_flipped_byte_in_any_file_keeps_the_present_model(
    installation: Any, follower: ModelFollower, name: str, at: int
) -> None:
    first = installation.promote(1)
    follower.poll()
    second = installation.promote(2)
    flip(installation, f"models/{second}/{name}", at)
    status = follower.poll()
    assert status.served is not None
    assert status.served.version == first
    assert status.problem_kind == "IntegrityError"


@pytest.mark.parametrize("at", range(0, 400, 13))
def test_a_flipped_byte_in_the_pointer_keeps_the_present_model(installation: Any, follower: ModelFollower, at: int) -> None:
    first = installation.promote(1)
    follower.poll()
    installation.promote(2)
    flip(installation, LATEST, at)
    status = follower.poll()
    assert status.served is not None
    assert status.served.version == first
    assert status.problem is not None


def test_a_pointer_forged_without_the_key_is_not_followed(installation: Any, follower: ModelFollower) -> None:
    installation.promote(1)
    second = installation.promote(2)
    follower.poll()
    forged = json.loads(installation.store.get(LATEST)) | {"version": "0" * 16, "sequence": 99}
    for data in (canonical_json(forged), canonical_json(sign(forged, Key(bytes(32)))), b"{}", b"[]", b""):
        installation.store.put(LATEST, data)
        assert follower.poll().served.version == second  # type: ignore[union-attr]
        assert follower.status.problem_kind == "IntegrityError"


def test_a_signed_pointer_of_old_is_not_followed_again(installation: Any, follower: ModelFollower) -> None:
    installation.promote(1)
    old = installation.store.get(LATEST)
    second = installation.promote(2)
    follower.poll()
    installation.store.put(LATEST, old)
    assert follower.poll().served.version == second  # type: ignore[union-attr]
    assert "change 2 was seen before" in str(follower.status.problem)


def test_a_pointer_that_vanishes_keeps_the_present_model(installation: Any, follower: ModelFollower) -> None:
    first = installation.promote(1)
    follower.poll()
    remove(installation.store, LATEST)
    assert follower.poll().served.version == first  # type: ignore[union-attr]
    assert follower.status.problem_kind == "StoreError"


def test_after_a_failure_it_goes_on_trying_and_logs_each_failure_once(
    installation: Any, follower: ModelFollower, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    installation.promote(1)
    follower.poll()
    second = installation.promote(2)

    def unreachable(key: str, tag: str | None) -> None:
        raise StoreError("the store cannot be reached")

    with monkeypatch.context() as patched:
        patched.setattr(installation.store, "get_changed", unreachable)
        for _ in range(5):
            follower.poll()
    assert follower.status.failures == 5
    assert sum("the store cannot be reached" in record.getMessage() for record in caplog.records) == 1
    status = follower.poll()
    assert status.served is not None
    assert (status.served.version, status.problem) == (second, None)


def test_a_bundle_whose_bytes_no_parser_takes_keeps_the_present_model(installation: Any, follower: ModelFollower) -> None:
    """Signed and hashed rightly, and still wrong: the training side made a mistake."""
    first = installation.promote(1)
    follower.poll()
    installation.model = installation.model[: len(installation.model) // 2]
    installation.promote(2)
    status = follower.poll()
    assert status.served is not None
    assert status.served.version == first
    assert status.problem is not None


def test_who_listens_is_told_how_every_look_went(installation: Any) -> None:
    told: list[Status] = []
    follower = ModelFollower(installation.store, installation.key, told.append)
    follower.poll()
    installation.promote(1)
    follower.poll()
    flip(installation, LATEST, 10)
    follower.poll()
    flip(installation, LATEST, 10)
    follower.poll()
    seen = [(status.served is not None, status.problem is None) for status in told]
    assert seen == [(False, True), (True, True), (True, False), (True, True)]


def test_its_thread_follows_the_pointer_until_it_is_stopped(installation: Any, follower: ModelFollower) -> None:
    before = threading.active_count()
    first = installation.promote(1)
    follower.start(0.01)
    assert follower.served is not None
    assert follower.served.version == first
    second = installation.promote(2)
    deadline = datetime.now(UTC).timestamp() + 20
    while follower.served.version != second and datetime.now(UTC).timestamp() < deadline:
        threading.Event().wait(0.01)
    assert follower.served.version == second
    follower.stop()
    assert threading.active_count() == before
