"""Read Dagster's event log since a cursor: each event once, oldest first, whatever order the database shows them in."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterEventType

LOOK_AGAIN = 500  # storage ids that are read once more: with Postgres a smaller id can become visible after a larger one


@dataclass(frozen=True)
class NewEvents:
    """What was read.

    Attributes:
        entries: storage id and event, by ascending id, without those that were handled.
        cursor: where the next reading begins.
        settled: events up to this id are not read again; nobody need remember that they were handled.
        restarted: this is another event log, whose ids begin again: what was known of the former one is void.
    """

    entries: list[tuple[int, dg.EventLogEntry]]
    cursor: int
    settled: int
    restarted: bool


def read_new_events(
    instance: dg.DagsterInstance, kinds: Sequence[DagsterEventType], cursor: int, handled: Collection[int], at_once: int
) -> NewEvents:
    """Read the events of these kinds behind the cursor.

    Args:
        instance: its event log must be one log (consolidated SQLite, or Postgres).
        kinds: which events are of interest.
        cursor: that of the last reading; 0 at the first.
        handled: storage ids near the cursor that were read already.
        at_once: so many new events of a kind are read at most; where there are more, the cursor stays behind the last one read.
    """
    storage = instance.event_log_storage
    newest = storage.get_maximum_record_id() or 0
    restarted = newest < cursor
    if restarted:
        cursor, handled = 0, ()
    found: dict[int, dg.EventLogEntry] = {}
    for kind in kinds:
        only = dg.EventRecordsFilter(event_type=kind, after_cursor=max(cursor - LOOK_AGAIN, 0))
        records = storage.get_event_records(only, limit=LOOK_AGAIN + at_once, ascending=True)
        found |= {record.storage_id: record.event_log_entry for record in records}
        if len(records) == LOOK_AGAIN + at_once:  # there is more of this kind: the others must not run ahead of it
            newest = min(newest, records[-1].storage_id)
    known = frozenset(handled)
    fresh = sorted(storage_id for storage_id in found if storage_id <= newest and storage_id not in known)
    return NewEvents([(storage_id, found[storage_id]) for storage_id in fresh], newest, newest - LOOK_AGAIN, restarted)
