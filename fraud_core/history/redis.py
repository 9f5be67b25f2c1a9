"""History in Redis (or Valkey): for several machines that score. Every call is one script, and so whole or not at all.

What was answered survives the end of the Redis process where `appendonly yes` is set, but for what `appendfsync everysec` holds
back while the disk is busy (two seconds at most), and a loss of power with `appendfsync always`.
`maxmemory-policy` must be `noeviction`: nothing here may be dropped but by its own rule. Keys begin with `fraud:`

    sequence, head      strings: the number of the newest recorded payment; up to which they were removed
    ids                 hash: transaction id -> sequence
    payment:<sequence>  hash: id, content, timestamp, declined, answer, payment
    events:<keeper>     sorted set by time: [timestamp, id, cents, merchant, category, latitude, longitude, fraud] as JSON; before
                        fraud an object of what else is kept, where the plan has some
    days:<key>          hash: day -> counts of its hours (see `layout.EMPTY_DAY`); newest -> the newest day; for the key see
                        `store.hours_key`
    corrections:<key>   hash: hour:known:frauds, hour:known:dropped -> number
    loads               hash: partition -> when it was loaded, and its stamp
    labels              string: up to which label's number corrections were added
    waiting             string: ids of payments that these labels are about and that nobody knew of then, as JSON
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, NamedTuple

import polars as pl

from fraud_core.errors import StoreError
from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.features.online import NO_HOURS, Correction, EntityHours, Event, Events, Past, Query, event_span, hour_span
from fraud_core.features.windows import KEPT, Plan, Reach
from fraud_core.history.layout import (
    EMPTY_DAY,
    columns_of,
    day_and_hour,
    days_of,
    entity_hours,
    events_of,
    in_groups,
    kept_us,
    own_values,
)
from fraud_core.history.store import Entry, Heard, Kept, Loaded, Recorded, entity_key, hours_key, places_of

_LOADED_AT_ONCE = 200  # payments in one call, for which all others wait

_LOOK = """
local found = {redis.call('GET', 'fraud:sequence') or '0'}
local empty_day, at = string.rep('\\0', tonumber(ARGV[1])), 2
while at <= #ARGV do
  local lists, hours, one = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), {}
  at = at + 2
  for _ = 1, lists do
    local keeper, begin, since, before, newest = unpack(ARGV, at, at + 4)
    local key, members, older = 'fraud:events:' .. keeper, {}, {}
    if since ~= before then
      members = redis.call('ZREVRANGEBYSCORE', key, '(' .. before, since, 'LIMIT', 0, newest)
    end
    if since ~= begin and #members < tonumber(newest) then
      older = redis.call('ZREVRANGEBYSCORE', key, '(' .. since, begin, 'LIMIT', 0, tonumber(newest) - #members)
      for place = 1, #older do older[place] = string.match(older[place], '%d+') end
    end
    one[#one + 1] = table.concat(members, ',')
    one[#one + 1] = table.concat(older, ',')
    at = at + 5
  end
  for _ = 1, hours do
    local key, first_day, end_day = unpack(ARGV, at, at + 2)
    local asked = {}
    for day = tonumber(first_day), tonumber(end_day) - 1 do asked[#asked + 1] = day end
    local counts = redis.call('HMGET', 'fraud:days:' .. key, unpack(asked))
    for place = 1, #asked do counts[place] = counts[place] or empty_day end
    one[#one + 1] = table.concat(counts)
    one[#one + 1] = redis.call('HGETALL', 'fraud:corrections:' .. key)
    at = at + 3
  end
  found[#found + 1] = one
end
return found
"""

# Numbers of 16 digits lose some where Lua turns them into text by itself.
_COUNT = """
local hours_us, day_us, empty_day = tonumber(ARGV[1]), 86400000000, string.rep('\\0', tonumber(ARGV[2]))
local function text(number) return string.format('%.0f', number) end

local function add(merchant, day, hour, payments, frauds)
  if merchant == '' then return end
  merchant = string.sub(merchant, 2)
  local key = 'fraud:days:' .. merchant
  local newest = tonumber(redis.call('HGET', key, 'newest'))
  if not newest or tonumber(day) > newest then
    newest = tonumber(day)
    redis.call('HSET', key, 'newest', day)
    local oldest = math.floor((newest * day_us - hours_us) / day_us)
    for _, one in ipairs(redis.call('HKEYS', key)) do
      if one ~= 'newest' and tonumber(one) < oldest then redis.call('HDEL', key, one) end
    end
    local corrections = 'fraud:corrections:' .. merchant
    for _, one in ipairs(redis.call('HKEYS', corrections)) do
      if tonumber(string.match(one, '^%d+')) < oldest * 24 then redis.call('HDEL', corrections, one) end
    end
  elseif tonumber(day) < math.floor((newest * day_us - hours_us) / day_us) then
    return
  end
  local counts, place = redis.call('HGET', key, day) or empty_day, tonumber(hour) * 8
  local before, known = struct.unpack('<i4i4', counts, place + 1)
  local now = struct.pack('<i4i4', before + payments, known + frauds)
  redis.call('HSET', key, day, string.sub(counts, 1, place) .. now .. string.sub(counts, place + 9))
end

local function count(keeper, timestamp, begin, rest, fraud, merchant, day, hour, kept)
  local kept_us = tonumber(kept)
  if keeper == '' then return 0 end
  local key = 'fraud:events:' .. keeper
  local newest = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2] or timestamp)
  if tonumber(timestamp) < newest - kept_us then return 0 end
  for _, event in ipairs(redis.call('ZRANGEBYSCORE', key, timestamp, timestamp)) do
    if string.sub(event, 1, #begin) == begin then
      local counted = string.sub(event, -2, -2)
      local known = fraud == '' and counted or fraud
      local now = begin .. rest .. known .. ']'
      if now ~= event then  -- its label changed, or more is kept of payments than was
        redis.call('ZREM', key, event)
        redis.call('ZADD', key, timestamp, now)
        if known ~= counted then add(merchant, day, hour, 0, tonumber(known) - tonumber(counted)) end
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
local at = 4
while at <= #ARGV do
  local id, content, declined, answer, payment, timestamp, places = unpack(ARGV, at, at + 6)
  at = at + 7
  local sequence = redis.call('HGET', 'fraud:ids', id)
  if sequence then
    local before = redis.call('HMGET', 'fraud:payment:' .. sequence, 'content', 'answer')
    kept[#kept + 1] = {0, sequence, before[1], before[2]}
  else
    sequence = text(redis.call('INCR', 'fraud:sequence'))
    redis.call('HSET', 'fraud:ids', id, sequence)
    redis.call('HSET', 'fraud:payment:' .. sequence, 'id', id, 'content', content, 'timestamp', timestamp,
      'declined', declined, 'answer', answer, 'payment', payment)
    for place = 0, tonumber(places) - 1 do count(unpack(ARGV, at + 9 * place, at + 9 * place + 8)) end
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
  at = at + 9 * tonumber(places)
end
return kept
"""
)

_LOAD = (
    _COUNT
    + """
local new, at = 0, 3
while at <= #ARGV do
  local places, counted = tonumber(ARGV[at]), 0
  at = at + 1
  for _ = 1, places do
    counted = math.max(counted, count(unpack(ARGV, at, at + 8)))
    at = at + 9
  end
  new = new + counted
end
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
        plan: what is kept of each payment.
    """

    def __init__(self, url: str, reach: Reach, timeout: int, plan: Plan = STANDARD_PLAN) -> None:
        import redis  # noqa: PLC0415 - only where such a URL is used
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        self.reach = reach
        self.plan = plan
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

    def look(self, queries: Sequence[Query], plan: Plan) -> list[Past]:
        arguments: list[Any] = [len(EMPTY_DAY)]
        asked: list[_Asked] = []
        for query in queries:
            one = _Asked.of(query, plan, self.reach)
            asked.append(one)
            arguments += [len(one.lists), len(one.hours), *one.arguments]
        sequence, *found = self._call("look", arguments)
        return [one.past(int(sequence), answer, plan) for one, answer in zip(asked, found, strict=True)]

    def record(self, entries: Sequence[Entry]) -> list[Kept]:
        arguments: list[Any] = [kept_us(self.reach), len(EMPTY_DAY), self.reach.history_us]
        for entry in entries:
            arguments += [entry.transaction_id, entry.content, int(entry.declined), entry.answer, entry.payment]
            arguments += [entry.event.timestamp, *self._counted(entry.card, entry.event, None)]
        return [
            Kept(bool(new), int(sequence), content.decode(), answer)
            for new, sequence, content, answer in self._call("record", arguments)
        ]

    def _counted(self, card: str | None, event: Event, fraud: int | None) -> Iterator[Any]:
        """How many places a payment has, and what `count` is told of each: keeper, time, how the member of the sorted set begins
        and goes on, fraud, key of the hours, day, hour, how long it is kept."""
        timestamp, identity, cents, merchant, category, *coordinates = event[:7]
        begin = json.dumps([timestamp, identity], ensure_ascii=False, separators=(",", ":"))[:-1] + ","
        values = [cents, merchant, category, *(None if math.isnan(place) else place for place in coordinates)]  # NaN is no JSON
        known, moment = "" if fraud is None else fraud, day_and_hour(timestamp)
        counting = places_of(card, event, self.plan, self.reach)
        yield len(counting)
        for keeper, hours, kept, names in counting:
            own = [own_values(event, names, card)] if names else []
            rest = json.dumps([*values, *own], ensure_ascii=False, separators=(",", ":"))[1:-1] + ","
            yield from (keeper, timestamp, begin, rest, known, _marked(hours), *moment, kept)

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
        for some in in_groups(events_of(payments, self.plan), _LOADED_AT_ONCE):
            arguments: list[Any] = [kept_us(self.reach), len(EMPTY_DAY)]
            for payment in some:
                arguments += self._counted(*payment)
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


class _Asked(NamedTuple):
    """What is asked about one payment: of which entities the payments, and of which the hours, of which days."""

    lists: list[str]
    hours: dict[str, range]
    arguments: list[Any]

    @classmethod
    def of(cls, query: Query, plan: Plan, reach: Reach) -> "_Asked":
        """As the script takes it."""
        lists = [entity for entity in plan.sights if query.values.get(entity) is not None]
        arguments: list[Any] = []
        for entity in lists:
            begin, before = event_span(query, plan.span_of(entity, reach))
            since = event_span(query, plan.values_span_of(entity, reach))[0] if plan.reads[entity] else before
            keeper = entity_key(entity, query.values[entity])
            arguments += [keeper, begin, since, before, plan.newest_of(entity, reach) + 1]
        days = days_of(*hour_span(query, reach))
        hours = {entity: days for entity in plan.hours if query.values.get(entity) is not None}
        for entity in hours:
            arguments += [hours_key(entity, query.values[entity]), days.start, days.stop]
        return cls(lists, hours, arguments)

    def past(self, sequence: int, answer: list[Any], plan: Plan) -> Past:
        """Out of what the script gives back: of each list payments and times of older ones as JSON, then of each entity's hours
        counts and corrections."""
        lists, rest = answer[: 2 * len(self.lists)], answer[2 * len(self.lists) :]
        asked = zip(self.lists, lists[::2], lists[1::2], strict=True)
        events = {entity: _events(found, older, plan.reads[entity]) for entity, found, older in asked}
        hours: dict[str, EntityHours] = dict.fromkeys(plan.hours, NO_HOURS)
        for (entity, days), counts, corrections in zip(self.hours.items(), rest[::2], rest[1::2], strict=True):
            hours[entity] = entity_hours(days, counts, _corrections(corrections))
        return Past(sequence, events, hours)


def _events(members: bytes, older: bytes, names: tuple[str, ...]) -> Events:
    found = sorted(json.loads(b"[%b]" % members), key=itemgetter(0, 1))
    times = [*reversed(json.loads(b"[%b]" % older)), *(event[0] for event in found)]
    base = [[event[place] for event in found] for place, name in enumerate(KEPT, 2) if name in names]
    return Events(times, columns_of(names, base, [event[7] if isinstance(event[7], dict) else {} for event in found]))


def _marked(name: str | None) -> str:
    """The name behind a mark, so that even an empty one differs from none."""
    return "" if name is None else f"={name}"


def _corrections(fields: list[bytes]) -> list[Correction]:
    """Out of a hash as Redis sends it: field, value, field, value."""
    sums: dict[tuple[int, int], dict[str, int]] = {}
    for field, value in zip(fields[::2], fields[1::2], strict=True):
        hour, known, kind = field.decode().split(":")
        sums.setdefault((int(hour), int(known)), {})[kind] = int(value)
    return [Correction(*place, counted["frauds"], counted["dropped"]) for place, counted in sums.items()]
