"""Durable writer of history: records payments, and keeps them on this machine's disk while the store is gone."""

import json
from collections.abc import Sequence

from fraud_core.features.online import Event
from fraud_core.history.store import Entry, HistoryStore, Kept
from fraud_core.settings import Settings
from fraud_core.storage.queue.spool import Spool
from fraud_core.storage.queue.spooled_writer import SpooledWriter

REST_SECONDS = 1.0  # a store that has failed is left alone for so long


class HistoryWriter(SpooledWriter[Entry]):
    """Records payments; a thread of its own delivers the spool.

    Args:
        store: where they go.
        spool: where they go while the store cannot be used.
    """

    def __init__(self, store: HistoryStore, spool: Spool) -> None:
        self.store = store
        super().__init__(spool, ("payments", "history"), _to_line, _from_line, self._deliver_to_store, REST_SECONDS)

    def _deliver_to_store(self, entries: Sequence[Entry]) -> object:
        return self.store.record(entries)

    def record(self, entries: Sequence[Entry]) -> list[Kept]:
        """See `HistoryStore.record`. While the store is gone, every payment counts as new.

        Raises:
            StoreError: neither the store nor the spool takes them; none of them is kept.
        """
        kept = self._put(entries, self.store.record)
        return [Kept(True, 0, entry.content, entry.answer) for entry in entries] if kept is None else kept


def open_history_writer(settings: Settings, store: HistoryStore) -> HistoryWriter:
    """The writer that the settings ask for; its spool lies under the home."""
    cure = "see that FRAUD_HISTORY can be reached, or raise FRAUD_HISTORY_SPOOL"
    return HistoryWriter(store, Spool(settings.home / "spool" / "history.sqlite", settings.history_spool, cure))


def _to_line(entry: Entry) -> str:
    texts = {"answer": entry.answer.decode(), "payment": entry.payment.decode(), "event": list(entry.event)}
    return json.dumps(entry._asdict() | texts, separators=(",", ":"))


def _from_line(line: str) -> Entry:
    values = json.loads(line)
    texts = {name: values[name].encode() for name in ("answer", "payment")}
    return Entry(**(values | texts | {"event": Event(*values["event"])}))
