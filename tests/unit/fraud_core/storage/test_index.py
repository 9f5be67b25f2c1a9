"""The index of an asset: it says what the pointers say, whoever was cut off, and costs few requests."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fraud_core.settings import Settings
from fraud_core.signing.documents import signed_document
from fraud_core.signing.keys import Key, canonical_json, sign
from fraud_core.storage.artifacts import Artifacts, Table
from fraud_core.storage.database import open_database
from fraud_core.storage.directory import DirectoryStore
from fraud_core.storage.heads import Heads
from fraud_core.storage.index import CUT_OFF, MADE_ANEW
from tests.counting_store import CountingStore
from tests.stores import remove

KEY, OTHER = Key(b"k" * 32), Key(b"o" * 32)
INDEX = "index/raw.json"


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    store = CountingStore(DirectoryStore(tmp_path / "store"))
    return Artifacts(store, KEY, Heads(open_database(Settings(_env_file=None, home=tmp_path / "home")), store.url))


def write(artifacts: Artifacts, key: str, value: int = 1) -> None:
    artifacts.write("raw", key, Table(frame=pl.DataFrame({"x": [value]}), content=str(value), inputs="i"))


def is_true(artifacts: Artifacts, now: datetime | None = None) -> bool:
    return artifacts.index("raw").read(now) == artifacts.pointers("raw")


def requests(artifacts: Artifacts) -> int:
    artifacts.store.take()  # type: ignore[attr-defined]
    assert artifacts.index("raw").read()
    return artifacts.store.take()  # type: ignore[attr-defined, no-any-return]


def test_it_says_what_the_pointers_say_in_one_request(artifacts: Artifacts) -> None:
    for month in range(1, 10):
        write(artifacts, f"2024-0{month}")
    assert is_true(artifacts), "it is made of everything when it is read first"
    write(artifacts, "2024-03", 2)
    write(artifacts, "2024-11")
    assert requests(artifacts) == 1
    assert is_true(artifacts)


def test_a_store_of_before_there_was_an_index_gets_one(artifacts: Artifacts) -> None:
    write(artifacts, "2024-01")
    remove(artifacts.store._store, INDEX)  # type: ignore[attr-defined]
    assert is_true(artifacts)
    assert requests(artifacts) == 1


@pytest.mark.parametrize("forge", [lambda _: b"{", lambda body: canonical_json(sign(body | {"entries": {}}, OTHER)), None])
def test_one_that_was_damaged_forged_or_put_back_is_made_anew(artifacts: Artifacts, forge: Any) -> None:
    write(artifacts, "2024-01")
    assert is_true(artifacts)
    old = artifacts.store.get(INDEX)
    write(artifacts, "2024-02")
    artifacts.store.put(INDEX, old if forge is None else forge(json.loads(old)))
    assert is_true(artifacts)
    assert requests(artifacts) == 1
    write(artifacts, "2024-03")
    assert is_true(artifacts)


def test_a_write_that_was_cut_off_after_its_pointer_is_seen_and_healed(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(artifacts, "2024-01")
    assert is_true(artifacts)
    with monkeypatch.context() as patched:
        patched.setattr("fraud_core.storage.index.Index._take_in", lambda *_: None)
        write(artifacts, "2024-01", 2)
    assert is_true(artifacts)
    assert requests(artifacts) == 2, "the one that is marked is read in its own place"
    now = datetime.now(UTC) + CUT_OFF + timedelta(minutes=1)
    assert is_true(artifacts, now)
    assert requests(artifacts) == 1


def test_what_was_changed_without_its_knowledge_is_seen_within_the_hour(artifacts: Artifacts) -> None:
    write(artifacts, "2024-01")
    assert is_true(artifacts)
    pointer = artifacts.pointer("raw", "2024-01")
    assert pointer is not None
    artifacts.store.put("assets/raw/2024-01/latest.json", signed_document(pointer.model_copy(update={"content": "2"}), KEY))
    assert not is_true(artifacts)
    assert is_true(artifacts, datetime.now(UTC) + MADE_ANEW)


def test_what_is_written_while_it_is_made_anew_is_not_lost(artifacts: Artifacts) -> None:
    write(artifacts, "2024-01")
    index = artifacts.index("raw")
    listed = index.names

    def late() -> Any:
        found = {key: artifacts.pointer("raw", key) for key in listed()}
        write(artifacts, "2024-01", 2)
        object.__setattr__(index, "read_one", found.__getitem__)
        return found

    object.__setattr__(index, "names", late)
    index.read()
    assert is_true(artifacts)


def test_many_writers_at_once_leave_it_true(artifacts: Artifacts) -> None:
    write(artifacts, "2024-01")
    assert is_true(artifacts)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write(artifacts, f"2024-0{number % 3 + 1}", number), range(12)))
    assert is_true(artifacts)
