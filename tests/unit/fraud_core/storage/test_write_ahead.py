"""Whoever opens a new file together with others opens it as if alone."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from fraud_core.history.open import open_history
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from fraud_core.storage.queue.spool import Spool
from tests.history_store import REACH, entry

ROUNDS, WORKERS = 10, 4


def record(folder: Path, number: int) -> Any:
    store = open_history(Settings(_env_file=None, home=folder, history_timeout=5_000), REACH)
    return lambda: store.record([entry(f"t{number}")])


def append(folder: Path, number: int) -> Any:
    return lambda: Spool(folder / "spool.sqlite", 1_000, "").append([f"{number}"])


def write(folder: Path, number: int) -> Any:
    engine = open_database(Settings(_env_file=None, home=folder))

    def make() -> None:
        with engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE t{number} (a INTEGER)"))
        engine.dispose()

    return make


@pytest.mark.parametrize("work", [record, append, write])
def test_all_that_open_a_new_file_at_once_get_their_first_work_done(work: Callable[[Path, int], Any], tmp_path: Path) -> None:
    failed: list[Exception] = []
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        gate = threading.Barrier(WORKERS)

        def first(worker: int, folder: Path = folder, gate: threading.Barrier = gate) -> None:
            begin = work(folder, worker)
            gate.wait()
            try:
                begin()
            except Exception as error:  # whatever it is
                failed.append(error)

        threads = [threading.Thread(target=first, args=(worker,)) for worker in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
