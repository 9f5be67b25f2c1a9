"""The proof of no skew, daily: what the scorer logged is recomputed from raw, the recorded payments and the labels."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from fraud_assets.stages import history
from fraud_core.features.catalogue import STANDARD as STANDARD_CATALOGUE
from fraud_core.features.online import Past, Query, Tallying
from fraud_core.features.past import window_features
from fraud_core.features.windows import Plan
from fraud_core.history.lookup import HistoryLookup
from fraud_core.scoring.skew import Mismatch, Skew
from fraud_core.sources.source import Source
from fraud_core.training_data.transform import build_transformed
from tests.served_day import BEGIN, DAY, HOUR, LOADED, MARCH, OWN, STANDARD, Day, payment, promote


@contextmanager
def a_day(call: Callable[..., Any], installation: Any, declared: dict[str, Any]) -> Iterator[Day]:
    source = Source.model_validate(declared)
    promote(installation, source)
    day = Day(call(installation.settings.model_copy(update={"features_logged": 1.0})), installation, source)
    day.load(range(LOADED))
    yield day
    day.known.store.close()


@pytest.fixture
def day(call: Callable[..., Any], installation: Any) -> Iterator[Day]:
    with a_day(call, installation, STANDARD) as day:
        yield day


@pytest.fixture
def own_day(call: Callable[..., Any], installation: Any) -> Iterator[Day]:
    """Of a source with fields, entities and windows of its own."""
    with a_day(call, installation, OWN) as day:
        yield day


def test_what_was_logged_is_what_the_pipeline_computes_bit_for_bit(day: Day) -> None:
    day.score(*range(LOADED, LOADED + 60))
    assert day.check() == Skew(checked=60)
    logged = [one.features for one in day.known.decisions.logged(datetime.now(UTC) - DAY, 99)]
    assert len({str(one) for one in logged}) == 60
    rates = [one["merchant_fraud_rate_7d"] for one in logged if one is not None]
    assert any(rate not in {None, 0.0} for rate in rates), "the frauds of raw are seen"


@pytest.mark.parametrize(("feature", "digest"), [("card_count_7d", True), ("log_amount", True), ("card_count_7d", False)])
def test_a_feature_that_differs_is_found(day: Day, feature: str, digest: bool) -> None:
    day.score(*range(LOADED, LOADED + 5))
    day.rewrite(LOADED + 2, feature, "1.5", digest)
    found = day.check()
    assert found.checked == 5
    assert found.mismatches == [Mismatch(f"p{LOADED + 2}", (feature if digest else "features_sha256",))]


def test_a_payment_that_comes_late_is_seen_by_those_after_it_and_reported_apart(day: Day) -> None:
    first, late = LOADED, LOADED + 3
    rest = [number for number in range(first, first + 40) if number != late]
    day.score(*rest[:20], late, *rest[20:])
    found = day.check()
    assert (found.checked, found.mismatches) == (40, [])
    same = [payment(number) for number in rest[:20] if number > late]
    touched = [one for one in same if payment(late)["card"] == one["card"] or payment(late)["merchant"] == one["merchant"]]
    assert found.late_rows == len(touched) > 0


def test_raw_that_was_loaded_after_a_decision_is_reported_apart_and_hides_no_plain_feature(day: Day) -> None:
    late = range(LOADED, LOADED + 10)
    day.score(*range(LOADED + 10, LOADED + 40))
    day.load(range(LOADED + 10))
    found = day.check()
    assert (found.mismatches, found.late_rows) == ([], 30)
    assert len(late) == 10
    day.rewrite(LOADED + 20, "log_amount", "1.5", digest=True)
    assert [one.transaction_id for one in day.check().mismatches] == [f"p{LOADED + 20}"]


def test_a_label_that_was_not_heard_in_time_is_reported_apart(day: Day) -> None:
    """A word that was there at the decision and that the history heard of later, and one that it had heard."""
    day.score(*range(LOADED, LOADED + 20))
    said_of = next(number for number in range(100, LOADED) if number % 12 and payment(number)["merchant"] == "shop 1")

    def say(outcome: Any) -> None:
        day.known.labels.append(
            transaction_id=f"p{said_of}",
            outcome=outcome,
            source="chargeback",
            author="bank",
            event_time=BEGIN + said_of * HOUR,
            known_at=BEGIN + LOADED * HOUR,
        )

    say("fraud")
    day.score(*range(LOADED + 20, LOADED + 40))
    day.known.run()
    day.score(*range(LOADED + 40, LOADED + 60))
    found = day.check()
    assert (found.checked, found.mismatches) == (60, [])
    at_the_shop = [number for number in range(LOADED, LOADED + 40) if payment(number)["merchant"] == "shop 1"]
    assert 0 < found.late_labels <= len(at_the_shop)


def test_a_label_that_waited_for_its_payment_is_no_mismatch_before_it_counts_and_none_after(day: Day) -> None:
    at_the_shop = [number for number in range(100, LOADED + 60) if number % 12 and payment(number)["merchant"] == "shop 1"]
    early = next(number for number in at_the_shop if number >= LOADED)
    for number in (early, at_the_shop[0]):  # the second is heard and counted while the first waits
        day.known.labels.append(
            transaction_id=f"p{number}",
            outcome="fraud",
            source="chargeback",
            author="bank",
            event_time=BEGIN,
            known_at=BEGIN + LOADED * HOUR,
        )
        assert day.known.run().unplaced == 1
    day.score(*range(LOADED, LOADED + 45))
    assert day.known.labels_wait()
    assert day.known.run().unplaced == 0
    day.score(*range(LOADED + 45, LOADED + 60))
    found = day.check()
    assert (found.checked, found.mismatches) == (60, [])
    assert 0 < found.late_labels < len([number for number in at_the_shop if number >= early + 24])


def test_what_can_no_longer_be_checked_is_counted(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    day.score(LOADED, LOADED + 1)
    monkeypatch.setattr(day, "scorer_of", lambda _: None)
    assert day.check() == Skew(gone=2)


def test_no_more_decisions_are_checked_than_asked_for(day: Day) -> None:
    day.score(*range(LOADED, LOADED + 5))
    assert day.check(limit=3).checked == 3


def test_every_declared_window_is_compared_with_what_the_pipeline_computes(own_day: Day) -> None:
    own_day.score(*range(LOADED, LOADED + 60))
    assert own_day.check() == Skew(checked=60)
    logged = pl.DataFrame([one.features for one in own_day.known.decisions.logged(datetime.now(UTC) - DAY, 99)])
    windows = {feature.name for feature in window_features(own_day.source.declared)}
    assert windows <= set(logged.columns)
    own = windows - {feature.name for feature in STANDARD_CATALOGUE.features}
    assert len(own) > 25
    assert [name for name in own if logged[name].n_unique() == 1] == [], "each tells payments apart"


def test_whichever_window_differs_online_the_check_is_red_and_names_it(own_day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each window in turn is told something else by the online engine, of one payment."""
    windows = window_features(own_day.source.declared)
    for number, feature in enumerate(windows, LOADED):

        class Tampered(Tallying):
            def __init__(self, plan: Plan, *rest: Any, wrong: Any = feature.tallies) -> None:
                super().__init__(plan, *rest)
                self._told = {plan.tallies.index(tally): 7.0 + 4 * at for at, tally in enumerate(wrong)}

            def of(self, query: Query, past: Past) -> list[float]:
                return [self._told.get(place, value) for place, value in enumerate(super().of(query, past))]

        with monkeypatch.context() as patched:
            patched.setattr(HistoryLookup, "_tallying_of", lambda _, *asked, made=Tampered: made(*asked))
            own_day.score(number)
    found = own_day.check()
    named = {one.transaction_id: one.features for one in found.mismatches}
    assert {f"p{number}": feature.name for number, feature in enumerate(windows, LOADED) if f"p{number}" not in named} == {}
    for number, feature in enumerate(windows, LOADED):
        alike = {one.name for one in windows if set(one.tallies) & set(feature.tallies)}
        assert feature.name in named[f"p{number}"]
        assert alike.issuperset(named[f"p{number}"])
    result = history.skew_result(found)
    assert not result.passed
    assert ", ".join(found.mismatches[0].features) in str(result.metadata["worst"].value)


def test_a_file_is_scored_as_its_payments_are_alone_and_as_the_pipeline_does(own_day: Day) -> None:
    numbers = range(LOADED, LOADED + 20)  # less than a day: of what is older, the history keeps no more than windows need
    alone = own_day.score(*numbers)
    own_day.write(range(LOADED + 20))
    stored = build_transformed(own_day.source, own_day.known.artifacts, MARCH).frame.tail(20)
    version = own_day.api.get("/v1/model").json()["model_version"]
    by_pipeline = own_day.scorer_of(version).score_features(stored)
    assert alone == by_pipeline.tolist()
    assert len(set(alone)) == 20
    frame = pl.DataFrame([own_day.payment(number) for number in numbers], infer_schema_length=None)
    typed = frame.with_columns(pl.col("timestamp", "opened").str.to_datetime(time_zone="UTC"), pl.col("amount").cast(pl.Float64))
    packed = io.BytesIO()
    typed.write_parquet(packed)
    files = {"text/csv": frame.write_csv().encode(), "application/vnd.apache.parquet": packed.getvalue()}
    for kind, content in files.items():
        answer = own_day.api.post("/v1/score/file", content=content, headers={"Content-Type": kind})
        *rows, last = map(json.loads, answer.text.splitlines())
        assert (last["rows"], last["refused"], last["complete"]) == (20, 0, True)
        assert [row["probability"] for row in rows] == alone
