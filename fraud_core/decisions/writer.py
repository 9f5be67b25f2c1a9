"""Durable writer of the decision log: in groups, and onto this machine's disk while the database is gone.

A group is what has come in while the last one was committed: nobody waits for a later decision, and under load many share
a commit.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime

from fraud_core.decisions.log import DecisionLog, DecisionRecord, from_json, to_json
from fraud_core.settings import Settings
from fraud_core.storage.queue.spool import Spool
from fraud_core.storage.queue.spooled_writer import SpooledWriter

logger = logging.getLogger(__name__)

LARGEST_GROUP = 500
EXPIRY_SECONDS = 3_600.0
JUMP_SECONDS = 3_600.0  # a clock that gained or lost more than this beside one that cannot be set was set
_RUNNING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine sleeps, where there is one that does
Standing = Mapping[str, DecisionRecord]
_Waiting = tuple[Sequence[DecisionRecord], Future[Standing]]


class DecisionWriter(SpooledWriter[DecisionRecord]):
    """Takes decisions from any thread and commits them in groups, in a thread of its own. A second one delivers the spool.

    Args:
        log: where they go.
        spool: where they go while the log cannot be written.
    """

    def __init__(self, log: DecisionLog, spool: Spool) -> None:
        self.log = log
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._begun = time.time(), time.clock_gettime(_RUNNING)
        self._next_expiry = 0.0
        names = ("decisions", "decision log")
        super().__init__(spool, names, to_json, from_json, lambda waiting: self.log.append(waiting, answered=True), math.inf)
        self._writer = threading.Thread(target=self._write, name="decision-writer", daemon=True)
        self._writer.start()

    def submit(self, records: Sequence[DecisionRecord]) -> Future[Standing]:
        """Have decisions written.

        Returns:
            Done once they are committed, and so survive the end of this process: in the log, or in the spool while the log is
            gone. Then it holds, by id, the decisions that the log had before, which were left as they are. Fails with StoreError
            where neither takes them; then none of them is kept.
        """
        if self._closed.is_set():
            raise RuntimeError("The writer was closed.")
        future: Future[Standing] = Future()
        future.set_running_or_notify_cancel()  # whoever asked may hang up; the decision is written all the same
        self._queue.put((records, future))
        return future

    @property
    def backlog(self) -> int:
        """How many submissions wait for their commit."""
        return self._queue.qsize()

    def close(self) -> None:
        """Write what was submitted, and end."""
        self._closed.set()
        self._queue.put(None)
        self._writer.join()
        super().close()

    def _write(self) -> None:
        while True:
            group, last = self._next_group()
            if group:
                self._commit(group)
            if last:
                return

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        """What waits, once something does; and whether it was the last."""
        item = self._queue.get()
        group: list[_Waiting] = []
        size = 0
        while item is not None:
            group.append(item)
            size += len(item[0])
            if size >= LARGEST_GROUP:
                return group, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Waiting]) -> None:
        try:
            standing = self._put([record for records, _ in group for record in records], self.log.append) or {}
        except Exception as error:  # whatever it is, nobody is left waiting
            for _, future in group:
                future.set_exception(error)
        else:
            for _, future in group:
                future.set_result(standing)

    def _look(self) -> None:
        """Remove what is older than the log's retention, every hour."""
        if time.monotonic() >= self._next_expiry:
            self._next_expiry = time.monotonic() + EXPIRY_SECONDS
            self._expire()

    def _expire(self) -> None:
        """Remove what is past its days, unless this machine's clock was set since the writer began."""
        drift = (time.time() - self._begun[0]) - (time.clock_gettime(_RUNNING) - self._begun[1])
        if abs(drift) > JUMP_SECONDS:
            logger.error(
                "this machine's clock was set by %+.0f s while the scorer ran; no decision is removed for its age until it is "
                "started again with the right time",
                drift,
            )
            return
        self.log.expire(datetime.now(UTC))


def open_decision_writer(settings: Settings, log: DecisionLog) -> DecisionWriter:
    """The writer that the settings ask for; its spool lies under the home."""
    spool = Spool(
        settings.home / "spool" / "decisions.sqlite",
        settings.decision_spool,
        "see that FRAUD_DATABASE can be reached, or raise FRAUD_DECISION_SPOOL",
        durable=settings.decision_sync == "power",
    )
    return DecisionWriter(log, spool)
