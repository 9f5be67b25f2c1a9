"""The scorer's history is brought up to what raw and the labels hold, again and again to the same."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest
from pydantic import SecretStr

from fraud_assets.definitions import build
from fraud_assets.schedule import sensors
from fraud_assets.stages import history
from fraud_core.errors import StoreError
from fraud_core.features.batch import states
from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.history.open import open_history
from fraud_core.scoring.skew import Mismatch, Skew
from fraud_core.storage.artifacts import Table, fingerprint
from fraud_core.training_data.labels import corrections, log_since
from fraud_core.units.time import HOUR_US, to_microseconds
from tests.decided import decided
from tests.history_features import NAMES, TALLIES, look, query
from tests.history_store import entry
from tests.home import QUIET

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BEGIN = datetime(2024, 3, 1, tzinfo=UTC)
COLUMNS = {
    "timestamp": {"column": "timestamp"},
    "amount": "amount",
    "label": "label",
    "card": "card",
    "merchant": "merchant",
    "category": "category",
}


class Remembering:
    """A daily source of which raw is written by hand, and everything that its history is made of."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.installation = bench.installation
        self.instance = dg.DagsterInstance.ephemeral()

    def write(self, frame: pl.DataFrame, *, accepted: bool = True) -> None:
        """Make it the raw partitions of its days, and have the gate judge them."""
        for (key,), rows in (
            frame.with_columns(key=pl.col("timestamp").dt.strftime("%Y-%m-%d"))
            .partition_by("key", as_dict=True, include_key=False)
            .items()
        ):
            content = fingerprint(rows.write_csv())
            self.installation.artifacts.write("raw", str(key), Table(frame=rows, content=content, inputs=content, facts={}))
            self.bench.put(str(key), rows, accepted=accepted)

    def step(self, now: datetime | None = None) -> Any:
        """What the sensor decides."""
        return sensors.next_history(self.installation, self.instance, now or datetime.now(UTC))

    def run(self, name: str = history.JOB) -> Any:
        """Run a job."""
        check = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("history"), "no_skew"))
        alone = dg.Definitions(jobs=[dg.define_asset_job("no_skew_alone", check)])
        job = dg.Definitions.merge(build(self.installation), alone).resolve_job_def(name)
        return job.execute_in_process(instance=self.instance, run_config=QUIET, raise_on_error=False)

    def caught_up(self) -> dict[str, Any]:
        """The metadata of a run that must succeed."""
        (done,) = self.run().asset_materializations_for_node("history")
        return {name: value.value for name, value in done.metadata.items()}

    def state(self, at: datetime, card: str = "c1", merchant: str = "m1") -> dict[str, float]:
        """What the scorer would be told."""
        store = open_history(self.installation.settings, self.installation.source.reach)
        found = look(store, query(to_microseconds(at), card, merchant, "fuel"), self.installation.source.zone)
        store.close()
        return found

    def tallied(self, frame: pl.DataFrame, wanted: pl.Series, changed: pl.DataFrame) -> list[dict[str, float]]:
        """What training would be told of the wanted payments."""
        source = self.installation.source
        found = states(frame, wanted, STANDARD_PLAN, source.reach, source.zone, changed)
        return [{short: row[name] for short, name in NAMES.items()} for row in found.iter_rows(named=True)]

    def hours(self, state: dict[str, float]) -> dict[str, float]:
        """What of it is counted by hours."""
        return {name: value for name, value in state.items() if TALLIES[name].in_hours}

    def rates(self, at: datetime) -> tuple[float, float]:
        """Frauds of the merchant, and payments of known outcome."""
        found = self.state(at)
        return found["merchant_frauds_7d"], found["merchant_judged_7d"]

    def decide(self, *payments: str) -> None:
        """Have the decision log know payments of `payments`."""
        with history.catching_up(self.installation) as parts:
            times = {payment: BEGIN + int(payment[1:]) * HOUR for payment in payments}
            parts.decisions.append([decided(payment, timestamp=at, merchant="m1") for payment, at in times.items()])

    def say(self, payment: str, outcome: Any, source: Any = "chargeback", after: timedelta = 3 * DAY) -> None:
        """Add a label about a payment of `payments`."""
        event = BEGIN + int(payment[1:]) * HOUR
        with history.catching_up(self.installation) as parts:
            parts.labels.append(
                transaction_id=payment,
                outcome=outcome,
                source=source,
                author="bank",
                event_time=event,
                known_at=BEGIN + after,
            )


def payments(count: int, first: int = 0, label: bool = False) -> pl.DataFrame:
    """A payment an hour of one card at one merchant: p0, p1, ..."""
    numbers = range(first, first + count)
    return pl.DataFrame(
        {
            "transaction_id": [f"p{number}" for number in numbers],
            "timestamp": pl.Series([BEGIN + number * HOUR for number in numbers], dtype=pl.Datetime("us", "UTC")),
            "amount_cents": [100 + number for number in numbers],
            "label": [label] * count,
            "card": ["c1"] * count,
            "merchant": ["m1"] * count,
            "category": ["fuel"] * count,
        }
    )


Make = Callable[..., Remembering]


@pytest.fixture
def remembering(new_bench: Any) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(**settings: Any) -> Remembering:
            days = {"history_days": 7, "label_delay_days": 1, "history": {}, "first": "2024-01-01"}
            made = Remembering(new_bench(settings, cadence="daily", timezone="UTC", columns=COLUMNS, **days))
            stack.callback(made.instance.dispose)
            return made

        yield make


def test_the_store_has_what_lies_within_reach_of_the_newest_payment(remembering: Make) -> None:
    home = remembering()
    home.write(payments(24 * 20))
    told = home.caught_up()
    at = BEGIN + 20 * DAY
    assert home.state(at)["card_count_7d"] == 7 * 24
    assert home.state(at)["merchant_judged_7d"] == 7 * 24
    assert told["loaded"].split(", ")[0] == "2024-03-12"
    assert told["payments new"] == told["payments total"] == 9 * 24
    assert told["newest payment"] == (BEGIN + (24 * 20 - 1) * HOUR).isoformat()


def test_what_the_gate_rejects_neither_is_the_present_nor_empties_the_store(remembering: Make) -> None:
    home = remembering()
    home.write(payments(48))
    home.write(payments(24, first=48), accepted=False)
    home.write(payments(1, first=24 * 365 * 10), accepted=False)
    told = home.caught_up()
    assert (told["loaded"], told["payments new"]) == ("2024-03-01, 2024-03-02", 48)
    assert told["held back, for the gate has not accepted them"] == "2024-03-03, 2034-02-27"
    assert home.state(BEGIN + 3 * DAY)["card_count_7d"] == 48
    assert home.step().run_key is None
    home.write(payments(24, first=48))
    home.write(payments(24, first=72))
    assert home.caught_up()["loaded"] == "2024-03-03, 2024-03-04"


def test_a_partition_that_an_accepted_one_looks_back_into_is_loaded_whatever_the_gate_says(remembering: Make) -> None:
    home = remembering()
    home.write(payments(24), accepted=False)
    assert home.caught_up()["loaded"] == "none"
    home.write(payments(24, first=24))
    assert home.caught_up()["loaded"] == "2024-03-01, 2024-03-02"


def test_a_label_that_came_before_its_payment_counts_as_if_it_had_come_after(remembering: Make) -> None:
    home, at = remembering(), BEGIN + 6 * DAY
    home.write(payments(24))
    home.say("p20", "fraud")
    home.say("p30", "fraud")
    home.say("p31", "unsure", "analyst")
    assert home.caught_up()["labels about unknown payments"] == 2
    home.write(payments(24, first=24))
    home.caught_up()
    assert home.rates(at) == (2, 47)
    home.say("p30", "legitimate")
    home.write(payments(25, first=24))
    home.caught_up()
    assert home.rates(at) == (1, 48)


@pytest.mark.parametrize("heard_first", [True, False])
def test_online_equals_batch_where_a_label_came_before_its_payment_was_scored(remembering: Make, heard_first: bool) -> None:
    home, frame, at = remembering(), payments(50), BEGIN + 6 * DAY
    home.write(frame.head(24))
    home.caught_up()
    words = (("p30", "fraud", "analyst"), ("p31", "unsure", "analyst"), ("p30", "fraud", "chargeback"))
    for word in words if heard_first else ():
        home.say(*word)
        assert home.caught_up()["labels heard"] == 1
        assert home.step().run_key is None
    with history.opened(home.installation) as store:
        store.record([entry(f"p{at}", to_microseconds(BEGIN + at * HOUR)) for at in range(24, 50)])
    assert home.step().run_key is None, "nothing is known of them but by the decision log"
    home.decide(*(f"p{at}" for at in range(24, 50)))
    for word in words if not heard_first else ():
        home.say(*word)
    assert home.step().run_key is not None
    home.caught_up()
    assert home.step().run_key is None
    with history.catching_up(home.installation) as catch_up:
        said = log_since(catch_up.labels, 0)
    asked = pl.concat(
        [frame, frame.tail(1).with_columns(transaction_id=pl.lit("asked"), timestamp=pl.lit(at).cast(pl.Datetime("us", "UTC")))]
    )
    wanted = pl.Series([False] * 50 + [True])
    assert home.hours(home.state(at)) == home.hours(home.tallied(asked, wanted, corrections(said, frame, ["merchant"]))[0])
    assert home.rates(at) == (1, 49)
    home.write(frame.tail(26))  # and the file that brings them at last changes nothing
    home.caught_up()
    assert home.rates(at) == (1, 49)
    home.say("p30", "legitimate")
    home.caught_up()
    assert home.rates(at) == (0, 49)


def test_what_waits_is_made_out_where_release_0_1_0_filled_the_store(remembering: Make) -> None:
    home, at = remembering(), BEGIN + 6 * DAY
    home.write(payments(24))
    for payment in ("p20", "p30", "p40"):
        home.say(payment, "fraud")
    home.caught_up()
    with sqlite3.connect(home.installation.settings.home / "history.sqlite") as connection:
        connection.execute("DELETE FROM waiting")
    home.decide("p40")  # which that release had counted, had it been decided in time
    with history.opened(home.installation) as store:
        store.record([entry("p40", to_microseconds(BEGIN + 40 * HOUR))])
    home.write(payments(16, first=24))
    home.caught_up()
    assert home.rates(at) == (2, 41)


def test_the_sensor_asks_for_it_once_until_raw_changes_or_a_label_comes(remembering: Make) -> None:
    home = remembering()
    assert home.step().run_key is None, "there is nothing to load"
    home.write(payments(24))
    assert home.step().run_key is not None
    home.caught_up()
    assert home.step().run_key is None
    home.write(payments(30))
    assert "2024-03-02" in home.step().why
    assert home.caught_up()["loaded"] == "2024-03-02"
    home.say("p1", "fraud")
    assert home.step().why == "Labels came in."
    assert home.caught_up()["labels heard"] == 1
    assert home.step().run_key is None


def test_a_run_that_was_cut_short_is_taken_up_where_it_was(remembering: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    home = remembering()
    home.write(payments(72))
    with history.catching_up(home.installation) as catch_up, monkeypatch.context() as patched:
        real, loads = catch_up.store.load, iter([True, False])

        def breaks(frame: pl.DataFrame) -> int:
            if next(loads):
                return real(frame)
            real(frame.head(5))
            raise StoreError("gone")

        patched.setattr(catch_up.store, "load", breaks)
        with pytest.raises(StoreError):
            catch_up.run()
    told = home.caught_up()
    assert told["loaded"] == "2024-03-02, 2024-03-03"
    assert told["payments new"] == 48 - 5
    assert home.state(BEGIN + 3 * DAY)["card_count_7d"] == 72


def test_a_store_that_was_lost_is_filled_anew(remembering: Make) -> None:
    home = remembering()
    home.write(payments(48, label=True))
    home.say("p0", "legitimate")
    home.caught_up()
    before = home.state(BEGIN + 4 * DAY)
    for file in home.installation.settings.home.glob("history.sqlite*"):
        file.unlink()
    assert home.step().run_key is not None
    home.caught_up()
    assert home.state(BEGIN + 4 * DAY) == before


@pytest.mark.parametrize("file_first", [True, False])
@pytest.mark.parametrize("label", [True, False])
def test_words_prevail_over_the_files_label_whichever_came_first(remembering: Make, label: bool, file_first: bool) -> None:
    """At a merchant of ten payments, of which words speak of three."""
    home, at = remembering(), BEGIN + 4 * DAY
    spoken = [("p0", "fraud", "chargeback"), ("p1", "unsure", "analyst"), ("p2", "legitimate", "analyst")]
    # Another day, so that there is something within reach before the file has come.
    home.write(payments(1, first=72))
    if file_first:
        home.write(payments(10, label=label))
        home.caught_up()
        assert home.rates(at) == (10 * label, 10)
    else:
        home.decide("p0", "p1", "p2")
    for word in spoken:
        home.say(*word)
    home.caught_up()
    if not file_first:
        home.write(payments(10, label=label))
        home.caught_up()
    assert home.rates(at) == (7 * label + 1, 9)
    home.say("p0", "legitimate", "analyst")
    home.caught_up()
    assert home.rates(at) == (7 * label + 1, 9), "an analyst does not overrule a chargeback"
    home.say("p1", "fraud", "chargeback")
    home.caught_up()
    assert home.rates(at) == (7 * label + 2, 10)


def test_the_online_state_is_that_of_the_columns_with_the_same_labels(remembering: Make) -> None:
    home = remembering()
    frame = payments(96)
    home.write(frame)
    for payment, outcome, after in (("p3", "fraud", 2), ("p3", "unsure", 3), ("p9", "fraud", 3), ("p12", "unsure", 3)):
        home.say(payment, outcome, "analyst", after * DAY)
        home.caught_up()
    wanted = pl.Series([False] * 48 + [True] * 48)
    with history.catching_up(home.installation) as catch_up:
        words = log_since(catch_up.labels, 0)
    offline = home.tallied(frame, wanted, corrections(words, frame, ["merchant"]))
    for row, at in zip(offline, frame["timestamp"].to_list()[48:], strict=True):
        assert home.hours(home.state(at)) == home.hours(row)
    assert words["known_at"].dt.epoch("us").max() // HOUR_US == to_microseconds(BEGIN + 3 * DAY) // HOUR_US  # type: ignore[operator]


def test_labels_about_payments_that_nothing_is_known_of_are_counted(remembering: Make) -> None:
    home = remembering()
    home.write(payments(2))
    home.say("p900", "fraud")
    told = home.caught_up()
    assert (told["labels heard"], told["labels about unknown payments"]) == (1, 1)
    assert home.step().run_key is None


@pytest.mark.parametrize("mismatches", [[], [Mismatch("p1", ("card_count_1d",))]])
def test_one_mismatch_fails_the_check_and_what_came_late_is_shown_apart(
    remembering: Make, monkeypatch: pytest.MonkeyPatch, mismatches: list[Mismatch]
) -> None:
    found = Skew(checked=9, mismatches=mismatches, late_rows=2, late_labels=3, gone=1)
    monkeypatch.setattr(history, "recheck", lambda *_: found)
    (evaluation,) = remembering().run(history.DAILY_JOB).get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed) == ("no_skew", not mismatches)
    shown = {name: value.value for name, value in evaluation.metadata.items()}
    assert (shown["checked"], shown["payments came late"], shown["labels came late"], shown["no longer kept"]) == (9, 2, 3, 1)
    assert ("card_count_1d" in shown["worst"]) == bool(mismatches)


def test_a_check_that_cannot_be_made_has_failed(remembering: Make) -> None:
    home = remembering(history=SecretStr("redis://127.0.0.1:1/0"))
    with history.catching_up(home.installation) as parts:
        parts.decisions.append([decided("p1", scored_at=datetime.now(UTC))])
    (evaluation,) = home.run("no_skew_alone").get_asset_check_evaluations()
    assert not evaluation.passed
    assert "cannot be used" in str(evaluation.description)


def test_the_day_is_looked_at_once_and_only_if_payments_were_scored(remembering: Make) -> None:
    home, now = remembering(), datetime(2024, 5, 1, 9, tzinfo=UTC)
    assert sensors.next_served_day(home.installation, now).run_key is None
    with history.opened(home.installation) as store:
        store.record([entry("a")])
    keys = {sensors.next_served_day(home.installation, now + hours * HOUR).run_key for hours in (0, 5, 14, 15)}
    assert keys == {"daily_serving 2024-05-01", "daily_serving 2024-05-02"}


def test_a_store_that_is_gone_is_one_sentence_and_a_failed_asset(remembering: Make) -> None:
    home = remembering(history=SecretStr("redis://127.0.0.1:1/0"))
    home.write(payments(2))
    assert home.step().run_key is None
    assert "cannot be used" in home.step().why
    result = home.run()
    assert not result.success
    (failure,) = [event.step_failure_data.error for event in result.filter_events(lambda event: event.is_step_failure)]
    assert failure is not None
    assert "Redis at 127.0.0.1:1 cannot be used" in failure.to_string()
    now = datetime.now(UTC)
    assert "tried again" in home.step(now).why
    assert "tried again" not in home.step(now + 2 * HOUR).why
