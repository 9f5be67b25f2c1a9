"""History in an SQLite file, which all processes of a machine share: readers never wait, writers wait for each other.

A commit survives the end of the process (WAL, synchronous=NORMAL).
"""

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pydantic_core

from fraud_core.errors import StoreError
from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.features.online import NO_HOURS, Correction, EntityHours, Event, Events, Past, Query, event_span, hour_span
from fraud_core.features.windows import KEPT, Plan, Reach
from fraud_core.history.layout import (
    EMPTY_DAY,
    HOURS_A_DAY,
    add_to_hour,
    columns_of,
    day_and_hour,
    days_of,
    entity_hours,
    events_of,
    in_groups,
    kept_us,
    own_values,
)
from fraud_core.history.store import Entry, Heard, Kept, Loaded, Place, Recorded, entity_key, hours_key, places_of
from fraud_core.storage.database import file_identity, moved_away
from fraud_core.storage.write_ahead import opening
from fraud_core.units.time import DAY_US

_SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (
    sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, timestamp INTEGER NOT NULL,
    declined INTEGER NOT NULL, answer BLOB NOT NULL, payment BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    keeper TEXT NOT NULL, timestamp INTEGER NOT NULL, id TEXT NOT NULL, amount_cents INTEGER NOT NULL,
    merchant TEXT, category TEXT, latitude REAL, longitude REAL, fraud INTEGER NOT NULL, own TEXT,
    PRIMARY KEY (keeper, timestamp, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS days (
    merchant TEXT NOT NULL, day INTEGER NOT NULL, counts BLOB NOT NULL, PRIMARY KEY (merchant, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS corrections (
    merchant TEXT NOT NULL, hour INTEGER NOT NULL, known INTEGER NOT NULL, frauds INTEGER NOT NULL, dropped INTEGER NOT NULL,
    PRIMARY KEY (merchant, hour, known)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS loads (partition TEXT PRIMARY KEY, stamp TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (ids TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_OPENING_SECONDS = 10.0  # several processes may make the file at once
_LOADED_AT_ONCE = 1_000  # payments in one transaction: a scorer that waits for it waits some milliseconds
_REMOVED_AT_ONCE = 4  # a payment removes up to so many that are past their days: more than come in, and never a crowd
_ASKED_AT_ONCE = 500


_FROM_EVENTS = "FROM events WHERE keeper = ? AND timestamp >= ? AND timestamp < ? ORDER BY timestamp DESC, id DESC LIMIT ?"
# An entity may have a thousand of them, so that they are put together where they lie: a row each takes three times as long.
_TIMES = f"SELECT group_concat(timestamp) FROM (SELECT timestamp {_FROM_EVENTS})"  # noqa: S608 - our own text alone
_OWN = "coalesce(own, '{}') AS own"
_TIMES_AND_OWN = f"SELECT group_concat(timestamp), group_concat(own) FROM (SELECT timestamp, {_OWN} {_FROM_EVENTS})"  # noqa: S608
_KEPT = frozenset(KEPT)
_NAMES = {"merchant_latitude": "latitude", "merchant_longitude": "longitude"}


@lru_cache(maxsize=256)
def _select(names: tuple[str, ...]) -> str:
    """The statement that reads these columns of an entity's payments, a row each."""
    base = [_NAMES.get(name, name) for name in names if name in _KEPT]
    return f"SELECT timestamp, {', '.join(base)}, own {_FROM_EVENTS}"


class SqliteHistory:
    """See `history.HistoryStore`.

    Args:
        path: the file; made at the first use.
        reach: how far back anything counts.
        timeout: a writer that has waited for others for so many milliseconds gives up.
        plan: what is kept of each payment.
    """

    def __init__(self, path: Path, reach: Reach, timeout: int, plan: Plan = STANDARD_PLAN) -> None:
        self.path = path
        self.reach = reach
        self.plan = plan
        self._timeout = timeout
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._was_there = False

    def look(self, queries: Sequence[Query], plan: Plan) -> list[Past]:
        with self._transaction("BEGIN") as connection:
            sequence = connection.execute("SELECT coalesce(max(sequence), 0) FROM payments").fetchone()[0]
            return [self._past(connection, sequence, query, plan) for query in queries]

    def _past(self, connection: sqlite3.Connection, sequence: int, query: Query, plan: Plan) -> Past:
        events: dict[str, Events] = {}
        hours: dict[str, EntityHours] = {}
        for entity in plan.sights:
            name = query.values.get(entity)
            if name is not None:
                events[entity] = self._events(connection, entity_key(entity, name), query, entity, plan)
        for entity in plan.hours:
            name = query.values.get(entity)
            hours[entity] = NO_HOURS if name is None else self._hours(connection, hours_key(entity, name), query)
        return Past(sequence, events, hours)

    def _events(self, connection: sqlite3.Connection, key: str, query: Query, entity: str, plan: Plan) -> Events:
        """The newest payments with their columns, and of those before them, as far as they are asked for, the times."""
        names, limit = plan.reads[entity], plan.newest_of(entity, self.reach) + 1
        begin, end = event_span(query, plan.span_of(entity, self.reach))
        since, _ = event_span(query, plan.values_span_of(entity, self.reach)) if names else (end, end)
        times: list[int] = []
        own: list[dict[str, Any]] = []
        base: list[tuple[Any, ...]] = []
        if since < end and _KEPT.isdisjoint(names):
            found = connection.execute(_TIMES_AND_OWN, (key, since, end, limit)).fetchone()
            times, own = (_listed(joined)[::-1] for joined in found)
        elif since < end:
            rows = connection.execute(_select(names), (key, since, end, limit)).fetchall()[::-1]
            moments, *base, kept = zip(*rows, strict=True) if rows else [()] * (2 + sum(name in _KEPT for name in names))
            times = list(moments)
            own = _listed(",".join([one or "{}" for one in kept])) if len(names) > len(base) else []
        if begin < since and len(times) < limit:
            (older,) = connection.execute(_TIMES, (key, begin, since, limit - len(times))).fetchone()
            times = _listed(older)[::-1] + times
        return Events(times, columns_of(names, base, own))

    def _hours(self, connection: sqlite3.Connection, key: str, query: Query) -> EntityHours:
        begin, end = hour_span(query, self.reach)
        days = days_of(begin, end)
        found: sqlite3.Cursor = connection.execute(
            "SELECT day, counts FROM days WHERE merchant = ? AND day >= ? AND day < ?", (key, days.start, days.stop)
        )
        corrections = connection.execute(
            "SELECT hour, known, frauds, dropped FROM corrections WHERE merchant = ? AND hour >= ? AND hour < ?",
            (key, begin, end),
        )
        counted = dict(found)
        counts = b"".join([counted.get(day, EMPTY_DAY) for day in days])
        return entity_hours(days, counts, map(Correction._make, corrections))

    def record(self, entries: Sequence[Entry]) -> list[Kept]:
        with self._transaction("BEGIN IMMEDIATE") as connection:
            counting = _Counting(connection, self.reach, self.plan)
            kept = [self._record(connection, counting, entry) for entry in entries]
            counting.finish()
            if entries:
                newest = max(entry.event.timestamp for entry in entries)
                connection.execute(
                    "DELETE FROM payments WHERE sequence IN (SELECT sequence FROM payments ORDER BY sequence LIMIT ?) "
                    "AND timestamp < ?",
                    (_REMOVED_AT_ONCE * len(entries), newest - self.reach.history_us),
                )
        return kept

    def _record(self, connection: sqlite3.Connection, counting: "_Counting", entry: Entry) -> Kept:
        event = entry.event
        inserted = connection.execute(
            "INSERT INTO payments (id, content, timestamp, declined, answer, payment) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO NOTHING",
            (entry.transaction_id, entry.content, event.timestamp, entry.declined, entry.answer, entry.payment),
        )
        if inserted.rowcount == 0:
            return self._find(connection, [entry.transaction_id])[entry.transaction_id]
        assert inserted.lastrowid is not None
        counting.count(entry.card, event, fraud=None)
        return Kept(True, inserted.lastrowid, entry.content, entry.answer)

    def find(self, ids: Sequence[str]) -> dict[str, Kept]:
        with self._transaction("BEGIN") as connection:
            return self._find(connection, ids)

    def _find(self, connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Kept]:
        found = {}
        for some in in_groups(ids, _ASKED_AT_ONCE):
            places = ", ".join("?" * len(some))
            statement = f"SELECT id, sequence, content, answer FROM payments WHERE id IN ({places})"  # noqa: S608 - marks alone
            for identity, *kept in connection.execute(statement, some):
                found[identity] = Kept(False, *kept)
        return found

    def recorded(self, after: int, limit: int) -> list[Recorded]:
        with self._transaction("BEGIN") as connection:
            rows = connection.execute(
                "SELECT sequence, id, payment, declined FROM payments WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (after, limit),
            )
            return [Recorded(sequence, identity, payment, bool(declined)) for sequence, identity, payment, declined in rows]

    def load(self, payments: pl.DataFrame) -> int:
        new = 0
        for some in in_groups(events_of(payments, self.plan), _LOADED_AT_ONCE):
            with self._transaction("BEGIN IMMEDIATE") as connection:
                counting = _Counting(connection, self.reach, self.plan)
                begun = time.monotonic()
                new += sum(counting.count(*payment) for payment in some)
                counting.finish()
            time.sleep((time.monotonic() - begun) / 2)  # those who record come in between
        return new

    def note_loaded(self, partition: str, loaded: Loaded) -> None:
        with self._transaction("BEGIN IMMEDIATE") as connection:
            connection.execute("INSERT OR REPLACE INTO loads VALUES (?, ?, ?)", (partition, *loaded))

    def loaded(self) -> dict[str, Loaded]:
        with self._transaction("BEGIN") as connection:
            rows = connection.execute("SELECT partition, stamp, at FROM loads")
            return {partition: Loaded(*rest) for partition, *rest in rows}

    def correct(self, corrections: Mapping[str, Sequence[Correction]], before: Heard, now: Heard) -> None:
        with self._transaction("BEGIN IMMEDIATE") as connection:
            if self._heard(connection) != before:
                return
            connection.executemany(
                "INSERT INTO corrections VALUES (?, ?, ?, ?, ?) ON CONFLICT (merchant, hour, known) "
                "DO UPDATE SET frauds = frauds + excluded.frauds, dropped = dropped + excluded.dropped",
                [(merchant, *one) for merchant, changes in corrections.items() for one in changes],
            )
            connection.execute("INSERT OR REPLACE INTO marks VALUES ('labels', ?)", (now.through,))
            connection.execute("DELETE FROM waiting")
            if now.waiting is not None:
                connection.execute("INSERT INTO waiting VALUES (?)", (now.kept,))

    def heard(self) -> Heard:
        with self._transaction("BEGIN") as connection:
            return self._heard(connection)

    def _heard(self, connection: sqlite3.Connection) -> Heard:
        through = connection.execute("SELECT value FROM marks WHERE name = 'labels'").fetchone()
        waiting = connection.execute("SELECT ids FROM waiting").fetchone()
        return Heard.of(0 if through is None else int(through[0]), None if waiting is None else waiting[0])

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()
        self._local = threading.local()
        self._was_there = False

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connection()
            connection.execute(begin)
            try:
                yield connection
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._let_go()
            raise StoreError(
                f"The history in {self.path} cannot be used ({error}); see that its disk is writable and has room."
            ) from error

    def _connection(self) -> sqlite3.Connection:
        """This thread's own one, to the file that stands at the path now; as `database.open_database` does."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        file = file_identity(self.path)
        if found is not None and file != self._local.file:
            self._let_go()
            found = None
        if found is None:
            if file is None and self._was_there:
                raise sqlite3.OperationalError(moved_away(self.path))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            found = sqlite3.connect(self.path, timeout=_OPENING_SECONDS, isolation_level=None, check_same_thread=False)
            self._local.connection = found
            self._opened.append(found)
            with opening(found, self.path, "NORMAL"):
                found.executescript(_SCHEMA)
                if "own" not in {row[1] for row in found.execute("PRAGMA table_info(events)")}:  # a file of a release before
                    found.execute("ALTER TABLE events ADD COLUMN own TEXT")
            for pragma in ("mmap_size=1073741824", "cache_size=-65536"):
                found.execute(f"PRAGMA {pragma}")
            found.execute(f"PRAGMA busy_timeout={self._timeout}")
            self._local.file = file_identity(self.path)
            self._was_there = True
        return found

    def _let_go(self) -> None:
        """Of this thread's connection, so that the next call opens the file anew."""
        broken = self._local.__dict__.pop("connection", None)
        if broken is not None and broken in self._opened:
            self._opened.remove(broken)
            broken.close()


class _Counting:
    """Counts payments within a transaction; an entity's day is read and written once, however many payments it gets."""

    def __init__(self, connection: sqlite3.Connection, reach: Reach, plan: Plan) -> None:
        self._connection = connection
        self._reach = reach
        self._plan = plan
        self._newest: dict[str, int] = {}  # of each keeper, as it was before
        self._latest: dict[str, tuple[int, int]] = {}  # as it is now, and how long it is kept
        self._days: dict[tuple[str, int], bytearray] = {}
        self._new_days: list[tuple[str, int]] = []

    def count(self, card: str | None, event: Event, fraud: int | None) -> bool:
        """Count a payment in each of its places, unless it is counted there already or too late.

        Args:
            card: of the payment.
            event: the payment.
            fraud: what a file's label says (1 or 0); None: nothing.

        Returns:
            Whether it was counted anywhere just now.
        """
        counted = [self._count(place, event, card, fraud) for place in places_of(card, event, self._plan, self._reach)]
        return any(counted)

    def _count(self, place: Place, event: Event, card: str | None, fraud: int | None) -> bool:
        keeper, hours, kept_us, names = place
        own = pydantic_core.to_json(own_values(event, names, card)).decode() if names else None
        newest = self._newest.get(keeper)
        if newest is None:
            newest = self._newest[keeper] = self._newest_of(keeper, kept_us)
            self._latest[keeper] = newest, kept_us
        if event.timestamp < newest - kept_us:
            return False
        timestamp, identity, *rest = event[:7]
        inserted = self._connection.execute(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (keeper, timestamp, identity, *rest, fraud or 0, own),
        )
        if inserted.rowcount == 1:
            self._latest[keeper] = max(self._latest[keeper][0], timestamp), kept_us
            self._add(hours, timestamp, 1, fraud or 0)
            return True
        there = (keeper, timestamp, identity)
        if fraud is not None:
            changed = self._connection.execute(
                "UPDATE events SET fraud = ? WHERE keeper = ? AND timestamp = ? AND id = ? AND fraud <> ?", (fraud, *there, fraud)
            )
            if changed.rowcount == 1:
                self._add(hours, timestamp, 0, 1 if fraud else -1)
        if own is not None:  # what is kept of payments may be more than it was
            self._connection.execute(
                "UPDATE events SET own = ? WHERE keeper = ? AND timestamp = ? AND id = ? AND own IS NOT ?", (own, *there, own)
            )
        return False

    def finish(self) -> None:
        """Write the days, and remove what is past its time."""
        execute_each = self._connection.executemany
        execute_each(
            "INSERT INTO days VALUES (?, ?, ?) ON CONFLICT (merchant, day) DO UPDATE SET counts = excluded.counts",
            [(*place, counts) for place, counts in self._days.items()],
        )
        execute_each(
            "DELETE FROM events WHERE keeper = ? AND timestamp < ?",
            [(keeper, latest - kept) for keeper, (latest, kept) in self._latest.items()],
        )
        kept = kept_us(self._reach)
        for key in {key for key, _ in self._new_days}:
            newest = self._connection.execute("SELECT max(day) FROM days WHERE merchant = ?", (key,)).fetchone()[0]
            oldest = (newest * DAY_US - kept) // DAY_US
            self._connection.execute("DELETE FROM days WHERE merchant = ? AND day < ?", (key, oldest))
            self._connection.execute("DELETE FROM corrections WHERE merchant = ? AND hour < ?", (key, oldest * HOURS_A_DAY))

    def _newest_of(self, keeper: str, kept_us: int) -> int:
        found = self._connection.execute("SELECT max(timestamp) FROM events WHERE keeper = ?", (keeper,)).fetchone()[0]
        return kept_us if found is None else int(found)

    def _add(self, key: str | None, timestamp: int, payments: int, frauds: int) -> None:
        if key is None:
            return
        day, hour = day_and_hour(timestamp)
        place = key, day
        counts = self._days.get(place)
        if counts is None:
            found = self._connection.execute("SELECT counts FROM days WHERE merchant = ? AND day = ?", place).fetchone()
            if found is None:
                self._new_days.append(place)
            counts = self._days[place] = bytearray(EMPTY_DAY if found is None else found[0])
        add_to_hour(counts, hour, payments, frauds)


def _listed(joined: str | None) -> list[Any]:
    """What was put together, of JSON, with commas; None: nothing was."""
    listed: list[Any] = pydantic_core.from_json(f"[{joined or ''}]", cache_strings="keys")
    return listed
