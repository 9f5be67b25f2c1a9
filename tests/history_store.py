"""What every history store promises: the same tests for SQLite (tests/unit) and Redis (tests/integration).

Whoever takes them over gives a fixture `opened`: opens the store again and again.
"""

import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from fraud_core.features import batch
from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.features.online import Correction, Event, state_asof
from fraud_core.features.windows import Reach
from fraud_core.history.store import Entry, Heard, HistoryStore, Kept, Loaded, Recorded
from fraud_core.units.time import DAY_US, HOUR_US
from tests.history_features import NAMES, look, query

NOON = int(datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000
MINUTE = 60_000_000
REACH = Reach.of_days(history_days=5, label_delay_days=2)
ZONE = ZoneInfo("America/New_York")
Opened = Callable[[], HistoryStore]


def entry(identity: str, timestamp: int = NOON, card: str | None = "c1", merchant: str | None = "m1", **changed: Any) -> Entry:
    """A payment of 12.34 to be recorded."""
    event = Event(timestamp, identity, 1_234, merchant, "gas", 45.25, float("nan"))
    entry = Entry(identity, f"content of {identity}", card, event, f"answer to {identity}".encode(), b"\x00\xff{}", False)
    return entry._replace(**changed)


def rows(entries: Sequence[Entry], labels: Sequence[bool] | None = None) -> pl.DataFrame:
    """The same payments as raw has them."""
    return pl.DataFrame(
        {
            "transaction_id": [one.transaction_id for one in entries],
            "timestamp": pl.Series([one.event.timestamp for one in entries], dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            "amount_cents": [one.event.amount_cents for one in entries],
            "label": pl.Series(labels if labels is not None else [False] * len(entries), dtype=pl.Boolean),
            "card": pl.Series([one.card for one in entries], dtype=pl.String),
            "merchant": pl.Series([one.event.merchant for one in entries], dtype=pl.String),
            "category": pl.Series([one.event.category for one in entries], dtype=pl.String),
            "merchant_latitude": [one.event.latitude for one in entries],
            "merchant_longitude": [one.event.longitude for one in entries],
        }
    )


def state(store: HistoryStore, timestamp: int, card: str | None = "c1", merchant: str | None = "m1") -> dict[str, float]:
    """What is known of a card and a merchant before an instant."""
    return look(store, query(timestamp, card, merchant), ZONE)


def counts(store: HistoryStore, timestamp: int) -> tuple[float, float, float]:
    """Of the card and of the merchant before an instant: payments, payments, frauds."""
    found = state(store, timestamp)
    return found["card_count_30d"], found["merchant_count_30d"], found["merchant_frauds_30d"]


@pytest.fixture
def store(opened: Opened) -> HistoryStore:
    return opened()


def test_an_empty_store_has_nothing(store: HistoryStore) -> None:
    assert counts(store, NOON) == (0, 0, 0)
    assert store.look([], STANDARD_PLAN) == []
    assert store.find(["a"]) == {}
    assert store.recorded(0, 9) == []
    assert store.record([]) == []
    assert store.heard() == Heard(0, None)


def test_what_was_recorded_counts_for_card_and_merchant_and_moves_the_sequence(store: HistoryStore) -> None:
    store.record([entry("a"), entry("b", NOON + MINUTE, declined=True), entry("x", card="c2", merchant="m2")])
    later, stranger = query(NOON + 2 * HOUR_US, "c1", "m1"), query(NOON + 2 * HOUR_US, "c3", None)
    past, nothing = store.look([later, stranger], STANDARD_PLAN)
    assert (past.sequence, nothing.sequence) == (3, 3)
    found = state(store, NOON + 2 * HOUR_US)
    assert (found["card_count_1d"], found["card_cents_1d"], found["merchant_count_1d"]) == (2, 2_468, 2)
    assert found["card_last_us"] == NOON + MINUTE
    assert found["card_last_latitude"] == 45.25
    assert np.isnan(found["card_last_longitude"])
    assert counts(store, NOON + MINUTE) == (1, 0, 0)


def test_a_payment_is_recorded_once_and_whoever_comes_again_is_told_what_was_there(store: HistoryStore) -> None:
    first = store.record([entry("a"), entry("b")])
    again = store.record([entry("b", content="other", answer=b"other"), entry("c"), entry("c", answer=b"twice")])
    assert first == [Kept(True, 1, "content of a", b"answer to a"), Kept(True, 2, "content of b", b"answer to b")]
    assert again == [
        Kept(False, 2, "content of b", b"answer to b"),
        Kept(True, 3, "content of c", b"answer to c"),
        Kept(False, 3, "content of c", b"answer to c"),
    ]
    assert store.find(["c", "none", "a"]) == {"a": first[0]._replace(new=False), "c": again[2]}
    assert counts(store, NOON + HOUR_US) == (3, 3, 0)


def test_recorded_payments_are_read_back_in_order(store: HistoryStore) -> None:
    store.record([entry("a", payment=b'{"amount_cents":1}'), entry("b", declined=True), entry("c")])
    assert store.recorded(0, 2) == [Recorded(1, "a", b'{"amount_cents":1}', False), Recorded(2, "b", b"\x00\xff{}", True)]
    assert [one.sequence for one in store.recorded(2, 9)] == [3]


def test_of_a_busy_card_its_newest_payments_count_those_of_equal_time_together_or_not_at_all(store: HistoryStore) -> None:
    """Ids are such as stand in another order in JSON, so that a store that cuts by its own order is found out."""
    store.reach = replace(REACH, newest_events=3)
    together = [entry(identity, NOON + MINUTE, merchant=identity) for identity in ("a", "a!", "a b", 'a"')]
    store.record([entry("first", NOON), *together, entry("last", NOON + 2 * MINUTE)])
    paid = {minutes: state(store, NOON + minutes * MINUTE)["card_count_1d"] for minutes in (1, 2, 3)}
    assert paid == {1: 1, 2: 0, 3: 1}
    store.reach = replace(REACH, newest_events=5)
    assert state(store, NOON + 3 * MINUTE)["card_count_1d"] == 5
    assert state(store, NOON + 3 * MINUTE, merchant="a!")["merchant_seen"] == 1


def test_odd_names_are_names(store: HistoryStore) -> None:
    odd = 'Größe\'s "5%\\n" {x}:y=\U0001f600'
    store.record([entry(odd, card=odd, merchant=odd, content=odd), entry("empty", card="", merchant="")])
    assert store.find([odd])[odd].content == odd
    for name in (odd, ""):
        found = state(store, NOON + HOUR_US, card=name, merchant=name)
        assert (found["card_count_1d"], found["merchant_count_1d"], found["merchant_seen"]) == (1, 1, 1)


def test_without_a_card_or_a_merchant_a_payment_is_recorded_and_counts_for_the_other(store: HistoryStore) -> None:
    store.record([entry("a", card=None), entry("b", merchant=None), entry("c", card=None, merchant=None)])
    assert counts(store, NOON + HOUR_US) == (1, 1, 0)
    assert store.record([entry("a", card=None)])[0].new is False
    assert counts(store, NOON + HOUR_US) == (1, 1, 0)
    assert np.isnan(state(store, NOON + HOUR_US, card=None, merchant=None)["card_count_1h"])


def test_loading_again_or_what_was_recorded_adds_nothing(store: HistoryStore) -> None:
    entries = [entry("a"), entry("b", NOON + 1), entry("c", card=None), entry("d", merchant=None)]
    store.record(entries[:1])
    assert store.load(rows(entries)) == 3
    assert store.load(rows(entries)) == 0
    assert counts(store, NOON + HOUR_US) == (3, 3, 0)
    assert store.record(entries[1:2])[0].new
    assert counts(store, NOON + HOUR_US) == (3, 3, 0)
    assert [one.transaction_id for one in store.recorded(0, 9)] == ["a", "b"]


def test_what_was_loaded_is_noted_in_the_store_itself(store: HistoryStore, opened: Opened) -> None:
    assert store.loaded() == {}
    store.note_loaded("2024-01", Loaded("one stamp", 17))
    store.note_loaded("2024-02", Loaded("b", NOON))
    store.note_loaded("2024-01", Loaded("another", NOON + 1))
    assert opened().loaded() == {"2024-01": Loaded("another", NOON + 1), "2024-02": Loaded("b", NOON)}


def test_frauds_of_a_file_count_once_the_delay_is_over_and_follow_a_changed_label(store: HistoryStore) -> None:
    entries = [entry("a"), entry("b", NOON + 1)]
    store.record(entries[:1])  # before anybody knew
    store.load(rows(entries, [True, True]))
    judged = NOON + 3 * DAY_US
    assert counts(store, judged) == (2, 2, 2)
    assert counts(store, NOON + DAY_US) == (2, 2, 0)
    store.load(rows(entries, [True, True]))
    assert counts(store, judged) == (2, 2, 2)
    store.load(rows(entries, [True, False]))
    assert counts(store, judged) == (2, 2, 1)


def test_a_source_of_few_columns_is_loaded(store: HistoryStore) -> None:
    few = rows([entry("a"), entry("b")]).select("transaction_id", "timestamp", "amount_cents", "label", "merchant")
    assert store.load(few) == 2
    assert store.load(few) == 0
    assert counts(store, NOON + HOUR_US) == (0, 2, 0)


def test_what_labels_changed_counts_from_the_hour_after_it_was_known_and_but_once(store: HistoryStore) -> None:
    hour = NOON // HOUR_US
    store.record([entry("a"), entry("b")])
    change = {"m1": [Correction(hour, hour + 50, 1, 0), Correction(hour, hour + 60, -1, 1)]}
    nothing, some = Heard(), Heard(4, ("x", "y\u2019s"))
    store.correct(change, nothing, some)
    store.correct(change, nothing, some)  # whoever comes second finds that the store has heard it
    store.correct({"m1": [Correction(hour, hour + 50, 7, 7)]}, Heard(4, ("x",)), Heard(5, ()))
    assert store.heard() == some
    assert counts(store, NOON + 50 * HOUR_US) == (2, 2, 0)
    assert counts(store, NOON + 51 * HOUR_US) == (2, 2, 1)
    assert counts(store, NOON + 61 * HOUR_US) == (2, 2, 0)
    assert state(store, NOON + 61 * HOUR_US)["merchant_judged_30d"] == 1
    store.correct({"m1": [Correction(hour, hour + 50, 1, 0)]}, some, Heard(5, ("x",)))
    assert counts(store, NOON + 51 * HOUR_US) == (2, 2, 2)
    store.correct({"m1": [Correction(hour, hour + 50, -1, 0)]}, Heard(5, ("x",)), Heard(5, ()))  # its payment came in late
    assert counts(store, NOON + 51 * HOUR_US) == (2, 2, 1)
    assert store.heard() == Heard(5, ())


def test_a_card_and_a_merchant_age_by_their_own_payments_alone(store: HistoryStore) -> None:
    first = [entry("a"), entry("b", card="c2", merchant="m2")]
    store.load(rows(first, [False, False]))
    store.correct({"m1": [Correction(NOON // HOUR_US, NOON // HOUR_US, 1, 0)]}, Heard(), Heard(1, ()))
    store.record([entry("c", NOON + 365 * DAY_US)])
    assert counts(store, NOON + 3 * DAY_US) == (0, 0, 0)  # gone, with its hour and what labels said of it
    found = state(store, NOON + HOUR_US, "c2", "m2")
    assert (found["card_count_1d"], found["merchant_count_1d"]) == (1, 1)


def test_all_that_lies_within_reach_of_the_newest_payment_and_a_day_is_kept(store: HistoryStore) -> None:
    store.record([entry("a"), entry("b", NOON + REACH.total_us + DAY_US)])
    assert counts(store, NOON + HOUR_US) == (1, 1, 0)
    store.record([entry("c", NOON + REACH.total_us + DAY_US + 1)])
    assert state(store, NOON + HOUR_US)["card_count_1d"] == 0


def test_a_payment_that_comes_too_late_is_recorded_and_counts_nowhere(store: HistoryStore) -> None:
    newest = NOON + 20 * DAY_US
    store.record([entry("new", newest)])
    late = entry("late", NOON)
    assert store.record([late])[0].new
    assert store.load(rows([late])) == 0
    assert counts(store, NOON + HOUR_US) == (0, 0, 0)
    assert store.record([late])[0].new is False


def test_an_id_is_kept_for_the_days_of_history_and_then_makes_room(store: HistoryStore) -> None:
    store.record([entry(f"old{number}", NOON + number, card=f"c{number}") for number in range(9)])
    last = NOON + 8 + REACH.history_us
    store.record([entry("then", last)])
    assert len(store.find([f"old{number}" for number in range(9)])) == 5  # a few go with each that comes
    store.record([entry("soon", last + 1), entry("later", last + 2)])
    assert store.find([f"old{number}" for number in range(9)]) == {}
    assert [one.sequence for one in store.recorded(0, 99)] == [10, 11, 12]


def test_a_payment_of_the_future_throws_no_crowd_of_ids_away(store: HistoryStore) -> None:
    store.record([entry(f"t{number}") for number in range(20)])
    store.record([entry("future", NOON + 3_650 * DAY_US)])
    assert len(store.recorded(0, 99)) == 17


def test_several_writers_lose_nothing_and_take_each_payment_once(opened: Opened) -> None:
    stores = [opened() for _ in range(3)]

    def write(one: HistoryStore) -> int:
        return sum(kept.new for number in range(40) for kept in one.record([entry(f"t{number}"), entry(f"u{number}")]))

    with ThreadPoolExecutor(3) as pool:
        new = list(pool.map(write, stores))
    assert sum(new) == 80
    assert counts(stores[0], NOON + HOUR_US) == (80, 80, 0)
    assert [one.sequence for one in stores[1].recorded(0, 99)] == list(range(1, 81))


def test_a_merchant_of_many_payments_is_looked_at_through_its_hours_alone(store: HistoryStore) -> None:
    many = [entry(f"t{number}", NOON - number * MINUTE, card=f"c{number}") for number in range(5_000)]
    assert store.load(rows(many)) == 5_000
    past = store.look([query(NOON + HOUR_US, None, "m1", None)], STANDARD_PLAN)[0]
    assert past.events == {}
    assert past.hours["merchant"].counts[:, 0].sum() == 5_000
    assert len(past.hours["merchant"].counts) <= (REACH.total_us // DAY_US + 2) * 24


def test_a_replay_in_order_of_time_sees_what_the_columns_see_bit_for_bit(store: HistoryStore) -> None:
    """Five weeks of a store that keeps eight days; payments of equal time go in one group and see none of each other."""
    rng = np.random.default_rng(5)
    times = NOON + np.sort(rng.integers(0, 35 * 24 * 4, 500)) * 15 * MINUTE
    made = [
        entry(
            f"t{number:03d}",
            int(time),
            card=None if number % 17 == 0 else f"c{rng.integers(5)}",
            merchant=None if number % 19 == 0 else f"m{rng.integers(4)}",
        )
        for number, time in enumerate(times)
    ]
    seen = []
    for time in dict.fromkeys(times.tolist()):
        group = [one for one in made if one.event.timestamp == time]
        queries = [query(time, one.card, one.event.merchant, one.event.category) for one in group]
        found = zip(queries, store.look(queries, STANDARD_PLAN), strict=True)
        seen += [state_asof(asked, past, STANDARD_PLAN, REACH, ZONE) for asked, past in found]
        store.record(group)
    expected = batch.states(rows(made), pl.Series([True] * len(made)), STANDARD_PLAN, REACH, ZONE)
    assert np.array(seen).tobytes() == expected.to_numpy().tobytes(order="C")
    assert expected[NAMES["merchant_count_30d"]].max() > 20


# Records in groups, some payments again and again, and says which were answered.
RECORDING = """
import sys
from pathlib import Path
from pydantic import SecretStr
from fraud_core.settings import Settings
from fraud_core.history.open import open_history
from tests.history_store import REACH, entry
place = sys.argv[1]
named = {"history": SecretStr(place)} if "://" in place else {"home": Path(place)}
store = open_history(Settings(_env_file=None, **named, history_timeout=5_000), REACH)
number = 0
while True:
    store.record([entry(f"t{number + more}") for more in (-3, 0, 1, 2, 3)])
    number += 4
    print(number, flush=True)
"""


def nothing_is_half_recorded(
    process: "subprocess.Popen[str]", store: HistoryStore, restart: Callable[[], None] | None = None
) -> None:
    """Kills what records (or what it records to, which then comes back), and looks at what is left."""
    assert process.stdout is not None
    with process.stdout:
        for _ in range(50):
            told = process.stdout.readline()
        if restart is not None:
            restart()
        process.kill()
        told = (told + process.stdout.read()).split("\n")[-2]
    process.wait(10)
    recorded = store.recorded(0, 10**6)
    number = len(recorded) - 1  # t-3 is the first
    assert number >= int(told)
    assert number % 4 == 0
    assert [one.sequence for one in recorded] == list(range(1, number + 2))
    assert counts(store, NOON + HOUR_US) == (number + 1, number + 1, 0)
    ids = [one.transaction_id for one in recorded]
    assert {one.new for one in store.record([entry(identity) for identity in ids])} == {False}
    assert store.load(rows([entry(identity) for identity in ids])) == 0
    assert counts(store, NOON + HOUR_US) == (number + 1, number + 1, 0)
