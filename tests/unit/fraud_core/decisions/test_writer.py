"""The writer of decisions: groups, and what happens while the database is gone."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fraud_core.decisions.log import DecisionLog, DecisionRecord, to_json
from fraud_core.decisions.writer import DecisionWriter, open_decision_writer
from fraud_core.errors import StoreError
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from fraud_core.storage.queue.spool import Spool
from tests.api_server import eventually
from tests.decided import NOON, decided


class MoodyLog(DecisionLog):
    """A decision log that can be gone, and that shows which groups it took."""

    gone = False

    def append(self, records: Sequence[DecisionRecord], *, answered: bool = False) -> dict[str, DecisionRecord]:
        self.attempted.set()
        self.may_go_on.wait()
        if self.gone:
            raise StoreError("The database is gone.")
        standing = super().append(records, answered=answered)
        self.groups.append([record.transaction_id for record in records])
        return standing

    def in_good_mood(self) -> "MoodyLog":
        self.groups: list[list[str]] = []
        self.attempted, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()
        return self


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud_core.storage.queue.spooled_writer.TEND_SECONDS", 0.01)


@pytest.fixture
def log(tmp_path: Path) -> MoodyLog:
    # Retained for ever, as far as a test is concerned: its decisions are of 2024.
    return MoodyLog(open_database(Settings(_env_file=None, home=tmp_path / "home")), 36_500).in_good_mood()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool" / "decisions.sqlite", most=5, cure="see that the database can be reached")


@pytest.fixture
def opened(log: MoodyLog, spool: Spool) -> Iterator[Callable[[], DecisionWriter]]:
    writers: list[DecisionWriter] = []

    def make() -> DecisionWriter:
        writers.append(DecisionWriter(log, spool))
        return writers[-1]

    yield make
    for writer in writers:
        writer.close()


def kept(log: DecisionLog) -> list[str]:
    return sorted(record.transaction_id for record in log.recent(NOON, 99))


def test_what_comes_in_during_a_commit_shares_the_next_one(log: MoodyLog, opened: Callable[[], DecisionWriter]) -> None:
    writer = opened()
    log.may_go_on.clear()
    first = writer.submit([decided("a")])
    assert log.attempted.wait(10)
    others = [writer.submit([decided(name)]) for name in "bcd"]
    assert writer.backlog == 3
    assert not first.done()
    log.may_go_on.set()
    wait([first, *others], timeout=10)
    assert log.groups == [["a"], ["b", "c", "d"]]
    assert all(future.exception() is None for future in [first, *others])


def test_while_the_log_is_gone_the_spool_takes_decisions_and_delivers_them_in_order(
    log: MoodyLog, spool: Spool, opened: Callable[[], DecisionWriter]
) -> None:
    writer = opened()
    log.gone = True
    for name in "abc":
        writer.submit([decided(name)]).result(10)
    assert writer.is_gone
    assert spool.waiting() == 3
    log.gone = False
    eventually(lambda: not writer.is_gone)
    assert spool.waiting() == 0
    assert [name for group in log.groups for name in group] == ["a", "b", "c"]
    writer.submit([decided("d")]).result(10)
    assert log.groups[-1] == ["d"]


def test_a_full_spool_takes_no_part_of_a_group_and_says_so(
    log: MoodyLog, spool: Spool, opened: Callable[[], DecisionWriter]
) -> None:
    writer = opened()
    log.gone = True
    writer.submit([decided(name) for name in "abcd"]).result(10)
    with pytest.raises(StoreError, match="takes no more; see that the database can be reached"):
        writer.submit([decided("e"), decided("f")]).result(10)
    writer.submit([decided("g")]).result(10)
    log.gone = False
    eventually(lambda: not writer.is_gone)
    assert kept(log) == ["a", "b", "c", "d", "g"]


def test_what_a_former_process_left_in_the_spool_is_delivered_once_even_if_the_log_has_it(
    log: MoodyLog, spool: Spool, opened: Callable[[], DecisionWriter]
) -> None:
    log.append([decided("a")])  # delivered, and killed before it was taken off the spool
    spool.append([to_json(decided("a", decision="decline")), to_json(decided("b"))])
    writer = opened()
    eventually(lambda: not writer.is_gone)
    assert kept(log) == ["a", "b"]
    found = log.find("a")
    assert found is not None
    assert found.decision == "approve"


def test_a_caller_who_hung_up_stops_nothing(log: MoodyLog, opened: Callable[[], DecisionWriter]) -> None:
    writer = opened()

    async def hang_up() -> None:
        log.may_go_on.clear()
        waiting = asyncio.ensure_future(asyncio.wrap_future(writer.submit([decided("a")])))
        await asyncio.sleep(0)
        waiting.cancel()
        log.may_go_on.set()
        await asyncio.wrap_future(writer.submit([decided("b")]))

    asyncio.run(hang_up())
    assert kept(log) == ["a", "b"]


def test_a_decision_that_cannot_be_written_fails_its_caller_and_not_the_writer(opened: Callable[[], DecisionWriter]) -> None:
    writer = opened()
    with pytest.raises(ValueError, match="JSON"):
        writer.submit([decided("a", features={"x": float("nan")})]).result(10)
    writer.submit([decided("b")]).result(10)


def test_closing_writes_what_was_submitted(log: MoodyLog, spool: Spool) -> None:
    writer = DecisionWriter(log, spool)
    futures = [writer.submit([decided(f"t{number}")]) for number in range(50)]
    writer.close()
    assert all(future.exception(0) is None for future in futures)
    assert len(kept(log)) == 50
    with pytest.raises(RuntimeError, match="closed"):
        writer.submit([decided("late")])


def test_the_writer_removes_what_is_past_its_retention(tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud_core.decisions.log.LARGEST_SHARE", 1.0)
    log = DecisionLog(open_database(Settings(_env_file=None, home=tmp_path / "home")), 30)
    log.append([decided("old"), decided("young", scored_at=datetime.now(UTC))])
    writer = DecisionWriter(log, spool)
    eventually(lambda: kept(log) == ["young"])
    writer.close()


def test_on_a_clock_that_was_set_while_it_ran_the_writer_removes_nothing(
    log: MoodyLog, opened: Callable[[], DecisionWriter], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fraud_core.decisions.writer.EXPIRY_SECONDS", 0.0)
    expired: list[datetime] = []
    monkeypatch.setattr(log, "expire", expired.append)
    opened()
    eventually(lambda: expired)
    real = time.time
    monkeypatch.setattr("fraud_core.decisions.writer.time.time", lambda: real() + 500 * 86_400)
    eventually(lambda: "clock was set by +432000" in caplog.text)
    before = len(expired)
    caplog.clear()
    eventually(lambda: "clock was set" in caplog.text)
    assert len(expired) == before


def test_a_decision_on_an_id_that_the_log_has_tells_what_stood_there(opened: Callable[[], DecisionWriter]) -> None:
    writer = opened()
    first = decided("a", amount_cents=500)
    assert writer.submit([first]).result(10) == {}
    again = decided("a", 9, timestamp=first.timestamp, amount_cents=500)
    other = decided("a", 9, amount_cents=900_000, decision="review")
    assert writer.submit([again, decided("b")]).result(10) == {"a": first}
    assert writer.submit([other]).result(10) == {"a": first}
    assert kept(writer.log) == ["a", "b"]


def test_what_was_answered_while_neither_history_nor_log_could_tell_is_on_record_once(
    log: MoodyLog, spool: Spool, opened: Callable[[], DecisionWriter], caplog: pytest.LogCaptureFixture
) -> None:
    first, other = decided("a", amount_cents=500), decided("a", 9, amount_cents=900_000, decision="review")
    log.append([first])
    for _ in range(2):  # a delivery that was cut short comes again
        spool.append([to_json(other), to_json(first)])
        writer = opened()
        eventually(lambda: not writer.is_gone)  # noqa: B023 - waited for here
        writer.close()
    assert log.find("a") == first
    assert log.recent(NOON, 9) == [other, first]
    assert caplog.text.count("was decided again while neither") == 1


def test_a_damaged_line_of_the_spool_is_set_aside_and_holds_up_no_other(
    log: MoodyLog, spool: Spool, opened: Callable[[], DecisionWriter], caplog: pytest.LogCaptureFixture
) -> None:
    spool.append([to_json(decided("a")), '{"transaction_id": "4111111111111111"', to_json(decided("b"))])
    writer = opened()
    eventually(lambda: not writer.are_waiting)
    assert kept(log) == ["a", "b"]
    with sqlite3.connect(spool.path) as connection:
        assert connection.execute("SELECT count(*) FROM damaged").fetchone() == (1,)
    assert "record 2 of" in caplog.text
    assert "4111" not in caplog.text


def test_when_nothing_can_be_written_the_writer_says_so_once_and_tells_when_it_can_again(
    log: MoodyLog,
    spool: Spool,
    opened: Callable[[], DecisionWriter],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    writer = opened()
    log.gone = True

    def full(*_: object) -> None:
        raise StoreError("The disk is full.")

    with monkeypatch.context() as disk:
        disk.setattr(spool, "append", full)
        disk.setattr(spool, "see_that_it_takes", full)
        for name in "abc":
            with pytest.raises(StoreError, match="full"):
                writer.submit([decided(name)]).result(10)
        assert writer.problem == "The disk is full."
    eventually(lambda: writer.problem is None and "can be written again" in caplog.text)
    assert caplog.text.count("can be written nowhere") == 1
    writer.submit([decided("d")]).result(10)
    assert spool.waiting() == 1
    log.gone = False


# Says the id of each decision that it was told is written.
WRITING = """
import sys
from pathlib import Path
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from fraud_core.decisions.writer import open_decision_writer
from fraud_core.decisions.log import DecisionLog
from tests.decided import decided
settings = Settings(_env_file=None, home=Path(sys.argv[1]))
writer = open_decision_writer(settings, DecisionLog(open_database(settings), 36_500))
number = 0
while True:
    for future in [writer.submit([decided(f"t{number + more}")]) for more in range(7)]:
        future.result()
        print(f"t{number}", flush=True)
        number += 1
"""


@pytest.mark.parametrize("gone", [False, True])
def test_a_decision_that_was_answered_survives_the_kill_of_the_process(tmp_path: Path, gone: bool) -> None:
    home = tmp_path / "home"
    if gone:  # the database is no database: all goes to the spool
        home.mkdir()
        (home / "fraud.sqlite").write_bytes(b"no database" * 100)
    process = subprocess.Popen([sys.executable, "-c", WRITING, str(home)], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read().split("\n")[:-1]
    process.wait(10)
    process.stdout.close()
    if gone:
        (home / "fraud.sqlite").unlink()
    settings = Settings(_env_file=None, home=home)
    log = DecisionLog(open_database(settings), 36_500)
    writer = open_decision_writer(settings, log)
    eventually(lambda: not writer.is_gone)
    writer.close()
    assert "" not in told
    found = {record.transaction_id for record in log.recent(NOON, 10**6)}
    assert set(told) <= found
