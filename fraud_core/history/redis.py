"""History in Redis (or Valkey): for several machines that score. Every call is one script, and so whole or not at all.

What was answered survives the end of the Redis process where `appendonly yes` is set, but for what `appendfsync everysec` holds
back while the disk is busy (two seconds at most), and a loss of power with `appendfsync always`.
`maxmemory-policy` must be `noeviction`: nothing here may be dropped but by its own rule. Keys begin with `fraud:`

    sequence, head      strings: the number of the newest recorded payment; up to which they were removed
    ids                 hash: transaction id -> sequence
    payment:<sequence>  hash: id, content, timestamp, declined, answer, payment
    events:<keeper>     sorted set by time: [timestamp, id, cents, merchant, category, latitude, longitude, fraud] as JSON
    days:<merchant>     hash: day -> counts of its hours (see `history.EMPTY_DAY`); newest -> the newest day
    corrections:<merchant>  hash: hour:known:frauds, hour:known:dropped -> number
    loads               hash: partition -> when it was loaded, and its stamp
    labels              string: up to which label's number corrections were added
    waiting             string: ids of payments that these labels are about and that nobody knew of then, as JSON
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import polars as pl

from fraud_core.errors import StoreError
from fraud_core.features.online import NO_HOURS, Correction, Event, Past, Query, Seen, event_span, hour_span
from fraud_core.features.windows import Reach
from fraud_core.history.layout import EMPTY_DAY, day_and_hour, days_of, events_of, in_groups, kept_us, merchant_hours
from fraud_core.history.store import Entry, Heard, Kept, Loaded, Recorded, shard_key

_LOADED_AT_ONCE = 200  # payments in one call, for which all others wait

_LOOK = """
local found = {redis.call('GET', 'fraud:sequence') or '0'}
local empty_day = string.rep('\\0', tonumber(ARGV[1]))
for at = 3, #ARGV, 6 do
  local keeper, begin, before, merchant, first_day, end_day = unpack(ARGV, at, at + 5)
  local events, days, corrections = '', '', {}
  if keeper ~= '' then
    local newest = redis.call('ZREVRANGEBYSCORE', 'fraud:events:' .. keeper, '(' .. before, begin, 'LIMIT', 0, ARGV[2])
    events = table.concat(newest, ',')
  end
  if merchant ~= '' then
    merchant = string.sub(merchant, 2)
    local asked = {}
    for day = tonumber(first_day), tonumber(end_day) - 1 do asked[#asked + 1] = day end
    local counts = redis.call('HMGET', 'fraud:days:' .. merchant, unpack(asked))
    for place = 1, #asked do counts[place] = counts[place] or empty_day end
    days = table.concat(counts)
    corrections = redis.call('HGETALL', 'fraud:corrections:' .. merchant)
  end
  found[#found + 1] = {events, days, corrections}
end
return found
"""

# Numbers of 16 digits lose some where Lua turns them into text by itself.
_COUNT = """
local kept_us, day_us, empty_day = tonumber(ARGV[1]), 86400000000, string.rep('\\0', tonumber(ARGV[2]))
local function text(number) return string.format('%.0f', number) end

local function add(merchant, day, hour, payments, frauds)
  if merchant == '' then return end
  merchant = string.sub(merchant, 2)
  local key = 'fraud:days:' .. merchant
  local newest = tonumber(redis.call('HGET', key, 'newest'))
  if not newest or tonumber(day) > newest then
    newest = tonumber(day)
    redis.call('HSET', key, 'newest', day)
    local oldest = math.floor((newest * day_us - kept_us) / day_us)
    for _, one in ipairs(redis.call('HKEYS', key)) do
      if one ~= 'newest' and tonumber(one) < oldest then redis.call('HDEL', key, one) end
    end
    local corrections = 'fraud:corrections:' .. merchant
    for _, one in ipairs(redis.call('HKEYS', corrections)) do
      if tonumber(string.match(one, '^%d+')) < oldest * 24 then redis.call('HDEL', corrections, one) end
    end
  elseif tonumber(day) < math.floor((newest * day_us - kept_us) / day_us) then
    return
  end
  local counts, place = redis.call('HGET', key, day) or empty_day, tonumber(hour) * 8
  local before, known = struct.unpack('<i4i4', counts, place + 1)
  local now = struct.pack('<i4i4', before + payments, known + frauds)
  redis.call('HSET', key, day, string.sub(counts, 1, place) .. now .. string.sub(counts, place + 9))
end

local function count(keeper, timestamp, begin, rest, fraud, merchant, day, hour)
  if keeper == '' then return 0 end
  local key = 'fraud:events:' .. keeper
  local newest = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2] or timestamp)
  if tonumber(timestamp) < newest - kept_us then return 0 end
  for _, event in ipairs(redis.call('ZRANGEBYSCORE', key, timestamp, timestamp)) do
    if string.sub(event, 1, #begin) == begin then
      local counted = string.sub(event, -2, -2)
      if fraud ~= '' and fraud ~= counted then
        redis.call('ZREM', key, event)
        redis.call('ZADD', key, timestamp, string.sub(event, 1, -3) .. fraud .. ']')
        add(merchant, day, hour, 0, tonumber(fraud) - tonumber(counted))
      end
      return 0
    end
  end
  local known = fraud == '' and '0' or fraud
  redis.call('ZADD', key, timestamp, begin .. rest .. known .. ']')
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. text(math.max(newest, tonumber(timestamp)) - kept_us))
  add(merchant, day, hour, 1, tonumber(known))
  return 1
end
"""

_RECORD = (
    _COUNT
    + """
local history_us, kept = tonumber(ARGV[3]), {}
for at = 4, #ARGV, 13 do
  local id, content, declined, answer, payment = unpack(ARGV, at, at + 4)
  local sequence = redis.call('HGET', 'fraud:ids', id)
  if sequence then
    local before = redis.call('HMGET', 'fraud:payment:' .. sequence, 'content', 'answer')
    kept[#kept + 1] = {0, sequence, before[1], before[2]}
  else
    local timestamp = ARGV[at + 6]
    sequence = text(redis.call('INCR', 'fraud:sequence'))
    redis.call('HSET', 'fraud:ids', id, sequence)
    redis.call('HSET', 'fraud:payment:' .. sequence, 'id', id, 'content', content, 'timestamp', timestamp,
      'declined', declined, 'answer', answer, 'payment', payment)
    count(unpack(ARGV, at + 5, at + 12))
    for _ = 1, 4 do
      local head = text((tonumber(redis.call('GET', 'fraud:head') or '0')) + 1)
      local oldest = redis.call('HMGET', 'fraud:payment:' .. head, 'id', 'timestamp')
      if tonumber(oldest[2]) >= tonumber(timestamp) - history_us then break end
      redis.call('HDEL', 'fraud:ids', oldest[1])
      redis.call('DEL', 'fraud:payment:' .. head)
      redis.call('SET', 'fraud:head', head)
    end
    kept[#kept + 1] = {1, sequence, content, answer}
  end
end
return kept
"""
)

_LOAD = (
    _COUNT
    + """
local new = 0
for at = 3, #ARGV, 8 do new = new + count(unpack(ARGV, at, at + 7)) end
return new
"""
)

_FIND = """
local found = {}
for at = 1, #ARGV do
  local sequence = redis.call('HGET', 'fraud:ids', ARGV[at])
  if sequence then
    local kept = redis.call('HMGET', 'fraud:payment:' .. sequence, 'content', 'answer')
    found[#found + 1] = {ARGV[at], sequence, kept[1], kept[2]}
  end
end
return found
"""

_RECORDED = """
local after, found = math.max(tonumber(ARGV[1]), tonumber(redis.call('GET', 'fraud:head') or '0')), {}
local last = math.min(after + tonumber(ARGV[2]), tonumber(redis.call('GET', 'fraud:sequence') or '0'))
for sequence = after + 1, last do
  local key = 'fraud:payment:' .. string.format('%.0f', sequence)
  local kept = redis.call('HMGET', key, 'id', 'payment', 'declined')
  found[#found + 1] = {sequence, kept[1], kept[2], kept[3]}
end
return found
"""

_CORRECT = """
if (redis.call('GET', 'fraud:labels') or '0') ~= ARGV[1] or (redis.call('GET', 'fraud:waiting') or '') ~= ARGV[2] then return end
for at = 5, #ARGV, 4 do
  local key = 'fraud:corrections:' .. ARGV[at]
  redis.call('HINCRBY', key, ARGV[at + 1] .. ':frauds', ARGV[at + 2])
  redis.call('HINCRBY', key, ARGV[at + 1] .. ':dropped', ARGV[at + 3])
end
redis.call('SET', 'fraud:labels', ARGV[3])
redis.call('SET', 'fraud:waiting', ARGV[4])
"""


class RedisHistory:
    """See `history.HistoryStore`.

    Args:
        url: redis:// or rediss://, with a password where one is needed.
        reach: how far back anything counts.
        timeout: a server that is silent for so many milliseconds is taken to be gone.
    """

    def __init__(self, url: str, reach: Reach, timeout: int) -> None:
        import redis  # noqa: PLC0415 - only where such a URL is used
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        self.reach = reach
        self._error = redis.RedisError
        # Tried again once and at once: a connection that was idle may have been closed, and every call may be repeated.
        self._client = redis.Redis.from_url(
            url, socket_timeout=timeout / 1_000, socket_connect_timeout=timeout / 1_000, retry=Retry(NoBackoff(), 1)
        )
        self._scripts = {
            name: self._client.register_script(text)
            for name, text in {
                "look": _LOOK,
                "record": _RECORD,
                "load": _LOAD,
                "find": _FIND,
                "recorded": _RECORDED,
                "correct": _CORRECT,
            }.items()
        }

    def look(self, queries: Sequence[Query]) -> list[Past]:
        spans = [days_of(*hour_span(query, self.reach)) for query in queries]
        arguments: list[Any] = [len(EMPTY_DAY), self.reach.newest_events + 1]
        for query, days in zip(queries, spans, strict=True):
            keeper = "" if query.card is None else str(shard_key(query.card, None))
            arguments += [keeper, *event_span(query, self.reach), _marked(query.merchant), days.start, days.stop]
        sequence, *found = self._call("look", arguments)
        return [self._past(int(sequence), query, days, *one) for query, days, one in zip(queries, spans, found, strict=True)]

    def _past(self, sequence: int, query: Query, days: range, events: bytes, counts: bytes, corrections: list[bytes]) -> Past:
        found = sorted(json.loads(b"[%b]" % events), key=itemgetter(0, 1))
        seen: list[Seen] = [(event[0], *event[2:7]) for event in found]
        if query.merchant is None:
            return Past(sequence, seen, NO_HOURS)
        return Past(sequence, seen, merchant_hours(days, counts, _corrections(corrections)))

    def record(self, entries: Sequence[Entry]) -> list[Kept]:
        arguments: list[Any] = [kept_us(self.reach), len(EMPTY_DAY), self.reach.history_us]
        for entry in entries:
            keeper = shard_key(entry.card, entry.event.merchant)
            arguments += [entry.transaction_id, entry.content, int(entry.declined), entry.answer, entry.payment]
            arguments += _counted(keeper, entry.event, None)
        return [
            Kept(bool(new), int(sequence), content.decode(), answer)
            for new, sequence, content, answer in self._call("record", arguments)
        ]

    def find(self, ids: Sequence[str]) -> dict[str, Kept]:
        return {
            identity.decode(): Kept(False, int(sequence), content.decode(), answer)
            for identity, sequence, content, answer in self._call("find", ids)
        }

    def recorded(self, after: int, limit: int) -> list[Recorded]:
        return [
            Recorded(sequence, identity.decode(), payment, declined == b"1")
            for sequence, identity, payment, declined in self._call("recorded", [after, limit])
        ]

    def load(self, payments: pl.DataFrame) -> int:
        new = 0
        for some in in_groups(events_of(payments), _LOADED_AT_ONCE):
            arguments: list[Any] = [kept_us(self.reach), len(EMPTY_DAY)]
            for payment in some:
                arguments += _counted(*payment)
            new += self._call("load", arguments)
        return new

    def note_loaded(self, partition: str, loaded: Loaded) -> None:
        with self._reached():
            self._client.hset("fraud:loads", partition, f"{loaded.at} {loaded.stamp}")

    def loaded(self) -> dict[str, Loaded]:
        with self._reached():
            found: dict[Any, Any] = self._client.hgetall("fraud:loads")
        notes = {partition.decode(): note.decode().split(" ", 1) for partition, note in found.items()}
        return {partition: Loaded(stamp, int(at)) for partition, (at, stamp) in notes.items()}

    def correct(self, corrections: Mapping[str, Sequence[Correction]], before: Heard, now: Heard) -> None:
        arguments: list[Any] = [before.through, before.kept, now.through, now.kept]
        for merchant, changes in corrections.items():
            for one in changes:
                arguments += [merchant, f"{one.hour}:{one.known}", one.frauds, one.dropped]
        self._call("correct", arguments)

    def heard(self) -> Heard:
        with self._reached():
            through, waiting = self._client.mget("fraud:labels", "fraud:waiting")
        return Heard.of(int(through or 0), waiting)

    def close(self) -> None:
        self._client.close()

    def _call(self, script: str, arguments: Sequence[Any]) -> Any:
        with self._reached():
            return self._scripts[script](args=arguments)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (self._error, OSError) as error:
            options = self._client.connection_pool.connection_kwargs  # the URL may hold a password, and is not repeated
            raise StoreError(
                f"The history in Redis at {options.get('host')}:{options.get('port')} cannot be used ({type(error).__name__}); "
                "see that it runs and that FRAUD_HISTORY is right."
            ) from error


def _marked(merchant: str | None) -> str:
    """The name behind a mark, so that even an empty one differs from none."""
    return "" if merchant is None else f"={merchant}"


def _counted(keeper: str | None, event: Event, fraud: int | None) -> tuple[Any, ...]:
    """What `count` is told: keeper, time, how the member of the sorted set begins and goes on, fraud, merchant, day, hour."""
    timestamp, identity, cents, merchant, category, *coordinates = event
    begin = json.dumps([timestamp, identity], ensure_ascii=False, separators=(",", ":"))[:-1] + ","
    places = [None if math.isnan(place) else place for place in coordinates]  # NaN is no JSON
    values = json.dumps([cents, merchant, category, *places], ensure_ascii=False, separators=(",", ":"))
    known = "" if fraud is None else fraud
    return keeper or "", timestamp, begin, values[1:-1] + ",", known, _marked(event.merchant), *day_and_hour(timestamp)


def _corrections(fields: list[bytes]) -> list[Correction]:
    """Out of a hash as Redis sends it: field, value, field, value."""
    sums: dict[tuple[int, int], dict[str, int]] = {}
    for field, value in zip(fields[::2], fields[1::2], strict=True):
        hour, known, kind = field.decode().split(":")
        sums.setdefault((int(hour), int(known)), {})[kind] = int(value)
    return [Correction(*place, counted["frauds"], counted["dropped"]) for place, counted in sums.items()]
