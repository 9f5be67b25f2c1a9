"""History in an SQLite file: the promises of every store, and its own."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from fraud_core.errors import SettingsError, StoreError
from fraud_core.history.open import open_history
from fraud_core.history.store import HistoryStore
from fraud_core.settings import Settings
from tests.history_store import *  # noqa: F403 - the promises are tests
from tests.history_store import REACH, RECORDING, Opened, entry, nothing_is_half_recorded


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made: list[HistoryStore] = []

    def make() -> HistoryStore:
        made.append(open_history(Settings(_env_file=None, home=tmp_path, history_timeout=5_000), REACH))
        return made[-1]

    yield make
    for store in made:
        store.close()


def test_a_recorder_that_is_killed_leaves_nothing_half_recorded(tmp_path: Path, store: HistoryStore) -> None:
    process = subprocess.Popen([sys.executable, "-c", RECORDING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    nothing_is_half_recorded(process, store)


def test_a_file_that_is_no_database_is_said_to_be_one_until_it_is_mended(tmp_path: Path, store: HistoryStore) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"no database" * 1_000)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"history\.sqlite cannot be used"):
            store.record([entry("a")])
    path.unlink()
    assert store.record([entry("a")])[0].new


def test_a_writer_that_waits_too_long_for_another_gives_up_and_readers_do_not_wait(tmp_path: Path) -> None:
    store = open_history(Settings(_env_file=None, home=tmp_path, history_timeout=10), REACH)
    store.record([entry("a")])
    with closing(sqlite3.connect(tmp_path / "history.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.record([entry("b")])
        assert list(store.find(["a", "b"])) == ["a"]
        other.execute("ROLLBACK")
    assert store.record([entry("b")])[0].new
    store.close()


def test_what_goes_wrong_in_a_group_undoes_all_of_it(store: HistoryStore) -> None:
    with pytest.raises(StoreError):
        store.record([entry("a"), entry("b", answer=None)])
    assert store.find(["a"]) == {}
    assert store.record([entry("a")])[0].sequence == 1


@pytest.mark.parametrize("url", ["mysql://root:geheim@db/0", "redis://", "geheim"])
def test_another_store_is_refused_without_repeating_the_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="redis://") as refused:
        open_history(Settings(_env_file=None, home=tmp_path, history=SecretStr(url)), REACH)
    assert "geheim" not in str(refused.value)
