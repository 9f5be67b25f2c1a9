"""Durable writer of history: records payments, and keeps them on this machine's disk while the store is gone."""

import json
import logging
import threading
import time
from collections.abc import Sequence

from fraud_core.errors import StoreError
from fraud_core.features.online import Event
from fraud_core.history.store import Entry, HistoryStore, Kept
from fraud_core.settings import Settings
from fraud_core.storage.spool import Spool

logger = logging.getLogger(__name__)

TEND_SECONDS = 1.0  # how often the spool is looked at
REST_SECONDS = 1.0  # a store that has failed is left alone for so long


class HistoryWriter:
    """Records payments; a thread of its own delivers the spool.

    Args:
        store: where they go.
        spool: where they go while the store cannot be used.
    """

    def __init__(self, store: HistoryStore, spool: Spool) -> None:
        self.store = store
        self.spool = spool
        self.problem: str | None = None
        """Why payments can be recorded nowhere at present; None: they can."""
        self._is_gone = False
        self._rests_until = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="history-spool", daemon=True)
        self._thread.start()

    def record(self, entries: Sequence[Entry]) -> list[Kept]:
        """See `HistoryStore.record`. While the store is gone, every payment counts as new.

        Raises:
            StoreError: neither the store nor the spool takes them; none of them is kept.
        """
        if time.monotonic() >= self._rests_until:
            try:
                kept = self.store.record(entries)
            except StoreError as error:
                if not self._is_gone:
                    logger.error("payments go to the spool %s until the history is back: %s", self.spool.path, error)
                self._is_gone = True
                self._rests_until = time.monotonic() + REST_SECONDS
            else:
                self._is_gone = False
                self.problem = None
                return kept
        try:
            self.spool.append([_to_json(entry) for entry in entries])
        except StoreError as error:
            if self.problem is None:
                logger.error("payments can be recorded nowhere, and are refused until they can: %s", error)
            self.problem = str(error)
            raise
        self.problem = None
        return [Kept(True, 0, entry.content, entry.answer) for entry in entries]

    def close(self) -> None:
        """Deliver what waits, if that is possible, and end."""
        self._closed.set()
        self._thread.join()

    def _tend(self) -> None:
        ended = False
        while not ended:
            ended = self._closed.wait(TEND_SECONDS)
            try:
                if self.problem is not None:
                    self.spool.see_that_it_takes()
                    self.problem = None
                    logger.info("payments can be recorded again")
                kept = self.spool.waiting()
                if kept:
                    self.spool.deliver(lambda lines: self.store.record([_from_json(line) for line in lines]))
                    logger.info("the history is back; %d payments were delivered from the spool", kept)
            except StoreError as error:
                logger.debug("the history is not back: %s", error)


def open_history_writer(settings: Settings, store: HistoryStore) -> HistoryWriter:
    """The writer that the settings ask for; its spool lies under the home."""
    cure = "see that FRAUD_HISTORY can be reached, or raise FRAUD_HISTORY_SPOOL"
    return HistoryWriter(store, Spool(settings.home / "spool" / "history.sqlite", settings.history_spool, cure))


def _to_json(entry: Entry) -> str:
    texts = {"answer": entry.answer.decode(), "payment": entry.payment.decode(), "event": list(entry.event)}
    return json.dumps(entry._asdict() | texts, separators=(",", ":"))


def _from_json(line: str) -> Entry:
    values = json.loads(line)
    texts = {name: values[name].encode() for name in ("answer", "payment")}
    return Entry(**(values | texts | {"event": Event(*values["event"])}))
