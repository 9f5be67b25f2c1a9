"""Recorded payments are written to files that are only ever added."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fraud_core.history.export import export
from fraud_core.history.open import open_history
from tests.history_store import NOON, REACH, entry


def recorded(store: Any, *identities: str) -> None:
    store.record([entry(one)._replace(payment=b'{"amount_cents": 1, "timestamp": %d}' % NOON) for one in identities])


@pytest.fixture
def store(installation: Any) -> Any:
    return open_history(installation.settings, REACH)


def test_without_new_payments_nothing_is_written(store: Any, tmp_path: Path) -> None:
    assert export(store, tmp_path / "out").files == ()
    recorded(store, "a", "b")
    assert export(store, tmp_path / "out").payments == 2
    assert export(store, tmp_path / "out").files == ()


def test_a_store_that_was_lost_counts_anew_and_hides_no_payment(store: Any, installation: Any, tmp_path: Path) -> None:
    recorded(store, "a", "b")
    export(store, tmp_path / "out")
    store.close()
    for file in installation.settings.home.glob("history.sqlite*"):
        file.unlink()
    recorded(store, "c")
    (file,) = export(store, tmp_path / "out").files
    assert file.name.startswith("served-0002-000000000000001-")
    assert pl.read_parquet(file)["sequence"].to_list() == [1]
    recorded(store, "d")
    assert export(store, tmp_path / "out").payments == 1


def test_files_are_for_their_owner_alone(store: Any, tmp_path: Path) -> None:
    recorded(store, "a")
    (file,) = export(store, tmp_path / "out").files
    assert file.stat().st_mode & 0o077 == 0
