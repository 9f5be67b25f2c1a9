"""What the drift gate promises."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fraud_core import gate
from fraud_core.errors import GateRefusalError, IntegrityError, StoreConflictError
from fraud_core.features.feature import Feature
from fraud_core.gate import statistics
from fraud_core.gate.rules import Rules, RulesChange
from fraud_core.settings import Settings
from fraud_core.signing.card_numbers import MASK
from fraud_core.signing.keys import Key, sign, verify
from fraud_core.sources.source import Drift, Source
from fraud_core.storage.database import open_database
from fraud_core.storage.directory import DirectoryStore
from fraud_core.storage.heads import Heads
from tests.history_features import BY_NAME

NOW = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
KEY = Key(b"k" * 32)
SETTINGS = Drift(reference_partitions=3, bootstrap_partitions=2, sample_rows=3_000)
FEATURES = tuple(BY_NAME[name] for name in ("log_amount", "hour", "weekday", "age", "distance", "category"))
REASON = "a known campaign"


def transformed(rows: int = 4_000, seed: int = 1) -> pl.DataFrame:
    """Features of an unremarkable partition, in the types of the store, beside columns that the gate must not look at."""
    rng = np.random.default_rng([7, seed])
    return pl.DataFrame(
        {
            "transaction_id": [f"{seed}-{i}" for i in range(rows)],
            "card": pl.Series(rng.integers(0, 5_000, rows)).cast(pl.String) + "secret",
            "log_amount": np.log1p(rng.lognormal(3.5, 1.0, rows)),
            "hour": rng.binomial(23, 0.6, rows),
            "weekday": rng.integers(0, 7, rows),
            "age": pl.Series(rng.integers(18, 90, rows)).set(pl.Series(rng.random(rows) < 0.01), None),
            "distance": rng.integers(0, 100_000, rows),
            "category": rng.choice(["food", "fuel", "shop", "travel"], rows, p=[0.4, 0.3, 0.2, 0.1]),
        }
    )


def content_of(frame: pl.DataFrame) -> str:
    return hashlib.sha256(frame.write_csv().encode()).hexdigest()


def judged(
    frame: pl.DataFrame,
    past: gate.Past,
    *,
    position: int = 5,
    partition: str = "2024-06",
    features: Sequence[Feature] = FEATURES,
    detector: statistics.Detector = statistics.scipy_detector,
    rules: Rules | None = None,
) -> gate.Judgement:
    return gate.judge(
        partition=partition,
        content=content_of(frame),
        frame=frame,
        features=features,
        past=past,
        position=position,
        settings=SETTINGS,
        seed=3,
        detector=detector,
        now=NOW,
        rules=rules,
    )


def walked(frames: Sequence[pl.DataFrame]) -> gate.Walk:
    """The accepted ones of these months, from January on."""
    walk = gate.Walk(SETTINGS)
    for place, frame in enumerate(frames):
        month = f"2024-{place + 1:02d}"
        walk.add(judged(frame, walk.past(month), position=place, partition=month))
    return walk


@pytest.fixture(scope="module")
def past() -> gate.Past:
    past = walked([transformed(seed=month) for month in range(1, 5)]).past("2024-06")
    assert len(past.verdicts) == 4
    return past


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def heads(store: DirectoryStore, tmp_path: Path) -> Heads:
    """What a machine has seen of the store."""
    return Heads(open_database(Settings(_env_file=None, home=tmp_path / "home")), store.url)


def fill(store: DirectoryStore, frames: dict[str, pl.DataFrame]) -> dict[str, str]:
    """Judge the frames in order, as the check does; returns partition -> content."""
    contents = {partition: content_of(frame) for partition, frame in frames.items()}
    for position, (partition, frame) in enumerate(frames.items()):
        judge_in(store, partition, frame, contents, position)
    return contents


def judge_in(
    store: DirectoryStore,
    partition: str,
    frame: pl.DataFrame,
    contents: dict[str, str],
    position: int,
    heads: Heads | None = None,
) -> gate.Verdict:
    """Judge a frame and record the verdict, as the check does."""
    contents[partition] = content_of(frame)
    before = gate.load_past(store, KEY, partition, contents, SETTINGS, heads=heads)
    return gate.record(store, KEY, judged(frame, before, position=position, partition=partition), heads)


def dearer(frame: pl.DataFrame, factor: float = 1.3) -> pl.DataFrame:
    return frame.with_columns((factor * (pl.col("log_amount").exp() - 1) + 1).log().alias("log_amount"))


def displaced(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Of every 1,000 rows 75 have a value larger than any before: a KS distance of 0.075, 0.033 beyond noise."""
    high = pl.int_range(pl.len()) % 1_000 < 75
    return frame.with_columns(pl.when(high).then(pl.col(c).max() + 1).otherwise(c).alias(c) for c in columns)


def names(verdict: gate.Verdict, *, blocking: bool = True) -> set[tuple[str, str | None]]:
    return {(finding.name, finding.feature) for finding in verdict.findings if finding.blocking == blocking}


# ---- the verdict


def test_an_unshifted_partition_is_accepted_with_every_watched_feature_in_evidence(past: gate.Past) -> None:
    verdict = judged(transformed(seed=9), past).verdict
    assert (verdict.accepted, verdict.kind, verdict.is_accepted) == (True, "judged", True)
    assert [feature.name for feature in verdict.features] == ["log_amount", "hour", "age", "distance", "category"]
    assert [part.partition for part in verdict.reference] == ["2024-02", "2024-03", "2024-04"]
    assert sum(part.rows for part in verdict.reference) == SETTINGS.sample_rows
    assert {"numpy", "polars", "scipy"} <= verdict.versions.keys()
    assert (verdict.detector, verdict.seed, verdict.created_at, verdict.rows) == ("scipy_detector", 3, NOW, 4_000)


def test_the_same_partition_gets_the_same_verdict(past: gate.Past) -> None:
    frame = transformed(seed=9)
    assert judged(frame, past).verdict == judged(frame, past).verdict
    assert judged(frame, past).sample == judged(frame, past).sample


@pytest.mark.parametrize(
    ("feature", "shifted"),
    [
        ("log_amount", dearer(transformed(seed=9))),
        ("hour", transformed(seed=9).with_columns((pl.col("hour") + 6) % 24)),
        ("category", transformed(seed=9).with_columns(pl.col("category").str.replace("fuel", "food"))),
    ],
)
def test_one_feature_that_passes_twice_its_bound_rejects_the_partition(
    past: gate.Past, feature: str, shifted: pl.DataFrame
) -> None:
    verdict = judged(shifted, past).verdict
    assert not verdict.accepted
    assert ("feature_drift", feature) in names(verdict)
    assert verdict.worst[0].name == feature
    assert feature in gate.explain(verdict)


def test_a_small_shift_is_reported_but_rejects_nothing(past: gate.Past) -> None:
    verdict = judged(displaced(transformed(seed=9), "log_amount"), past).verdict
    assert verdict.accepted
    assert names(verdict, blocking=False) == {("feature_drift", "log_amount")}


def test_small_shifts_of_several_features_reject_the_partition_together(past: gate.Past) -> None:
    verdict = judged(displaced(transformed(seed=9), "log_amount", "distance"), past).verdict
    assert names(verdict) == {("drifted_share", None)}
    assert "log_amount, distance" in gate.explain(verdict)


def test_a_distance_without_a_significant_p_value_is_no_drift(past: gate.Past) -> None:
    def unmoved(
        reference: statistics.Columns, current: statistics.Columns, categories: Collection[str]
    ) -> dict[str, tuple[float, float]]:
        tested = statistics.scipy_detector(reference, current, categories)
        return {name: (statistic, 0.06) for name, (statistic, _) in tested.items()}

    frame = dearer(transformed(seed=9), 2)
    assert not judged(frame, past).verdict.accepted
    assert judged(frame, past, detector=unmoved).verdict.accepted


def test_nan_in_a_column_does_not_hide_a_shift(past: gate.Past) -> None:
    nan = pl.int_range(pl.len()) % 100 == 0
    frame = dearer(transformed(seed=9)).with_columns(log_amount=pl.when(nan).then(float("nan")).otherwise("log_amount"))
    verdict = judged(frame, past).verdict
    assert names(verdict) == {("feature_drift", "log_amount")}
    assert verdict.worst[0].rows_current < SETTINGS.sample_rows


def test_each_content_has_a_draw_of_its_own(past: gate.Past) -> None:
    frame = transformed(seed=9)
    other = frame.with_columns(transaction_id=pl.lit("another"))
    assert judged(frame, past).sample != judged(other, past).sample


def test_calendar_features_are_left_out(past: gate.Past) -> None:
    assert judged(transformed(seed=9).with_columns(weekday=pl.lit(3)), past).verdict.accepted


def test_reported_features_are_in_evidence_and_reject_nothing(past: gate.Past) -> None:
    features = [dataclasses.replace(f, drift="reported") if f.name == "log_amount" else f for f in FEATURES]
    verdict = judged(dearer(transformed(seed=9), 3), past, features=features).verdict
    assert verdict.accepted
    assert ("feature_drift", "log_amount") in names(verdict, blocking=False)
    assert verdict.worst[0].role == "reported"


def test_what_a_person_let_pass_widens_no_bound(past: gate.Past) -> None:
    shifted = judged(dearer(transformed(seed=8), 2), past, partition="2024-05")
    decision = gate.Decision(action="accept", who="ann", reason=REASON, at=NOW)
    overruled = dataclasses.replace(shifted, verdict=shifted.verdict.model_copy(update={"decisions": (decision,)}))
    walk = walked([transformed(seed=month) for month in range(1, 5)])
    walk.add(overruled)
    after = walk.past("2024-06")
    assert after.verdicts[-1].partition == "2024-05"
    bounds = {feature.name: feature.bound for feature in judged(transformed(seed=9), after).verdict.features}
    assert bounds["log_amount"] == statistics.FLOOR


def test_drift_in_small_steps_does_not_widen_a_bound_beyond_the_ceiling() -> None:
    frames = [(f"{2000 + i}", dearer(transformed(seed=i), 1.15**i)) for i in range(12)]
    walked = gate.walk_forward(frames, features=FEATURES, settings=SETTINGS, seed=1, detector=statistics.scipy_detector, now=NOW)
    bounds = [f.bound for j in walked for f in j.verdict.features if f.name == "log_amount"]
    assert max(bounds) == statistics.CEILING
    assert not all(judgement.verdict.accepted for judgement in walked)


def test_a_few_cardholders_do_not_reject_a_partition_by_being_others() -> None:
    def of_few(seed: int) -> pl.DataFrame:
        rng = np.random.default_rng([8, seed])
        who = rng.integers(0, 60, 4_000)
        return transformed(seed=seed).with_columns(
            card=pl.Series(who + 100 * seed).cast(pl.String), age=pl.Series(rng.integers(18, 90, 60)[who])
        )

    months = [(f"2024-{month:02d}", of_few(month)) for month in range(1, 8)]
    walk = partial(gate.walk_forward, features=FEATURES, settings=SETTINGS, seed=1, detector=statistics.scipy_detector, now=NOW)
    assert all(judgement.verdict.accepted for judgement in walk(months))
    # The same rows with a card each are another story.
    anonymous = [(month, frame.drop("card")) for month, frame in months]
    assert not all(judgement.verdict.accepted for judgement in walk(anonymous))


def test_rows_without_a_card_are_strangers_to_each_other(past: gate.Past) -> None:
    for frame in (transformed(seed=9).drop("card"), transformed(seed=9).with_columns(card=pl.lit(None, pl.String))):
        clusterings = [feature.clustering for feature in judged(frame, past).verdict.features]
        assert clusterings == pytest.approx([0.0] * 5, abs=1e-12)


# ---- findings with a name of their own


def test_categories_never_seen_before_reject_the_partition_and_are_named(past: gate.Past) -> None:
    frame = transformed(seed=9).with_columns(
        category=pl.when(pl.int_range(pl.len()) % 50 == 0).then(pl.lit("crypto")).otherwise("category")
    )
    verdict = judged(frame, past).verdict
    assert ("unseen_category", "category") in names(verdict)
    assert "'crypto'" in gate.explain(verdict)


def test_a_card_number_in_a_shifted_column_is_in_no_verdict(past: gate.Past) -> None:
    frame = transformed(seed=9).with_columns(
        category=pl.when(pl.int_range(pl.len()) % 50 == 0).then(pl.lit("4111.1111 1111/1111")).otherwise("category")
    )
    judgement = judged(frame, past)
    assert ("unseen_category", "category") in names(judgement.verdict)
    assert MASK in gate.explain(judgement.verdict)
    assert not any("1111" in finding.message for finding in judgement.verdict.findings)


@pytest.mark.parametrize(
    ("seen", "strangers", "accepted"),
    [(90_000, 3, True), (90_000, 5, False), (1_500, 20, True), (1_500, 60, False)],
)
def test_a_few_rows_of_unseen_categories_are_tolerated_and_more_after_a_small_reference(
    past: gate.Past, seen: int, strangers: int, accepted: bool
) -> None:
    samples = tuple(pl.concat([sample] * 10)[: seen // 3] for sample in past.samples)
    frame = transformed(seed=9).with_columns(
        category=pl.when(pl.int_range(pl.len()) < strangers).then(pl.lit("crypto")).otherwise("category")
    )
    verdict = judged(frame, dataclasses.replace(past, samples=samples)).verdict
    assert (("unseen_category", "category") not in names(verdict)) is accepted


@pytest.mark.parametrize(("share", "accepted"), [(0.0, True), (0.02, True), (0.06, False), (1.0, False)])
def test_nulls_reject_the_partition_when_they_exceed_the_usual_share_by_more_than_is_tolerated(
    past: gate.Past, share: float, accepted: bool
) -> None:
    gone = pl.Series(np.random.default_rng(4).random(4_000) < share)
    frame = transformed(seed=9).with_columns(age=pl.when(gone).then(None).otherwise("age"))
    verdict = judged(frame, past).verdict
    assert verdict.accepted is accepted
    assert names(verdict) == (set() if accepted else {("null_share", "age")})


def test_a_column_gone_constant_rejects_the_partition(past: gate.Past) -> None:
    verdict = judged(transformed(seed=9).with_columns(distance=pl.lit(0, pl.Int64)), past).verdict
    assert ("constant_column", "distance") in names(verdict)


def test_a_column_that_nearly_always_has_one_value_may_have_it_always() -> None:
    def rare(seed: int) -> pl.DataFrame:
        return transformed(seed=seed).with_columns(distance=(pl.int_range(pl.len()) == 7).cast(pl.Int64))

    before = walked([rare(month) for month in range(1, 4)]).past("2024-06")
    assert judged(transformed(seed=9).with_columns(distance=pl.lit(0, pl.Int64)), before).verdict.accepted


def test_a_missing_column_rejects_even_a_bootstrap_partition() -> None:
    verdict = judged(transformed().drop("age"), gate.Past(), position=0).verdict
    assert verdict.kind == "bootstrap"
    assert names(verdict) == {("missing_column", "age")}


@pytest.mark.parametrize("position", [0, 5])
def test_too_few_rows_are_not_judged(past: gate.Past, position: int) -> None:
    verdict = judged(transformed(rows=gate.MINIMUM_ROWS - 1), past, position=position).verdict
    assert ("too_few_rows", None) in names(verdict)


def test_an_empty_partition_gets_a_verdict(past: gate.Past) -> None:
    assert ("too_few_rows", None) in names(judged(transformed(rows=0), past).verdict)


def test_an_unusual_number_of_rows_is_a_finding_that_does_not_block(past: gate.Past) -> None:
    verdict = judged(transformed(rows=13_000, seed=9), past).verdict
    assert verdict.accepted
    assert names(verdict, blocking=False) == {("volume", None)}


@pytest.mark.parametrize("name", [feature.name for feature in FEATURES if feature.drift == "blocks"])
@pytest.mark.parametrize("side", ["reference", "current"])
@pytest.mark.parametrize("how", ["null", "absent"])
def test_a_blocking_feature_that_cannot_be_compared_rejects_the_partition(
    past: gate.Past, name: str, side: str, how: str
) -> None:
    def without(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.drop(name) if how == "absent" else frame.with_columns(pl.lit(None, frame.schema[name]).alias(name))

    frame = transformed(seed=9)
    if side == "current":
        frame = without(frame)
    else:
        past = dataclasses.replace(past, samples=tuple(without(sample) for sample in past.samples))
    verdict = judged(frame, past).verdict
    assert {feature for _, feature in names(verdict)} == {name}


# ---- bootstrap


def test_the_first_partitions_are_accepted_unjudged_and_marked_so(past: gate.Past) -> None:
    assert [verdict.kind for verdict in past.verdicts] == ["bootstrap", "bootstrap", "judged", "judged"]


def test_a_bootstrap_partition_shows_its_drift_without_blocking(past: gate.Past) -> None:
    verdict = judged(dearer(transformed(seed=9)), dataclasses.replace(past, has_begun=False), position=1).verdict
    assert verdict.accepted
    assert ("feature_drift", "log_amount") in names(verdict, blocking=False)


LATE = transformed(3_633, seed=77).with_columns(log_amount=pl.col("log_amount") + 2.0)


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        (transformed(4_100, seed=1), None),  # a hundred ordinary rows came late
        (pl.concat([transformed(seed=1), LATE]), ("feature_drift", "log_amount")),
        (pl.concat([transformed(seed=1), transformed(3_633, seed=77)]), ("rewritten", None)),
        (transformed(2_000, seed=1), ("rewritten", None)),
    ],
)
def test_a_first_partition_that_changes_is_judged_against_what_it_was(
    store: DirectoryStore, changed: pl.DataFrame, finding: tuple[str, str | None] | None
) -> None:
    frames = {f"2024-{month:02d}": transformed(seed=month) for month in range(1, 6)}
    contents = fill(store, frames)
    verdict = judge_in(store, "2024-01", changed, contents, 0)
    assert (verdict.kind, verdict.accepted) == ("judged", finding is None)
    assert finding is None or finding in names(verdict)
    assert [part.partition for part in verdict.reference] == ["2024-01"]
    assert verdict.long is not None
    assert [part.partition for part in verdict.long.reference] == ["2024-02", "2024-03", "2024-04"]

    again = judge_in(store, "2024-01", pl.concat([changed, changed.head(1)]), contents, 0)  # and no second try is a first one
    assert (again.kind, again.accepted) == ("judged", finding is None)
    restored = judge_in(store, "2024-01", frames["2024-01"], contents, 0)
    assert restored.accepted


def test_a_first_partition_that_comes_late_is_judged_against_the_others(store: DirectoryStore) -> None:
    contents = fill(store, {f"2024-{month:02d}": transformed(seed=month) for month in range(1, 6)})
    (store.root / "drift" / "2024-02.json").unlink()
    ordinary = judge_in(store, "2024-02", transformed(seed=22), contents, 1)
    assert (ordinary.kind, ordinary.accepted) == ("judged", True)
    assert [part.partition for part in ordinary.reference] == ["2024-01", "2024-03", "2024-04"]
    (store.root / "drift" / "2024-02.json").unlink()
    assert not judge_in(store, "2024-02", dearer(transformed(seed=22)), contents, 1).accepted


def test_in_the_bootstrap_the_first_partitions_come_in_any_order(store: DirectoryStore) -> None:
    contents = {"2024-02": ""}
    assert judge_in(store, "2024-02", transformed(seed=2), contents, 1).kind == "bootstrap"
    assert judge_in(store, "2024-01", dearer(transformed(seed=1)), contents, 0).kind == "bootstrap"


# ---- the long reference


def rising(rate: float, months: int = 30) -> list[tuple[str, pl.DataFrame]]:
    """Months in which amounts rise by the rate."""
    keys = [f"{2020 + month // 12}-{month % 12 + 1:02d}" for month in range(months)]
    return [(key, dearer(transformed(seed=place), (1 + rate) ** place)) for place, key in enumerate(keys)]


def accept_held(verdict: gate.Verdict) -> gate.Decision | None:
    return None if verdict.accepted else gate.Decision(action="accept", who="ann", reason=REASON, at=NOW)


WALK = partial(gate.walk_forward, features=FEATURES, settings=SETTINGS, seed=1, detector=statistics.scipy_detector, now=NOW)


def test_drift_in_small_steps_is_held_and_what_a_person_accepts_is_what_later_ones_are_compared_with() -> None:
    verdicts = [judgement.verdict for judgement in WALK(rising(0.04), person=accept_held)]
    held = [place for place, verdict in enumerate(verdicts) if not verdict.accepted]
    assert held
    assert names(verdicts[held[0]]) == {("slow_drift", "log_amount")}
    assert "log_amount has drifted away from the first partitions (2020-01 to 2020-02)" in gate.explain(verdicts[held[0]])
    assert held[0] > 4, "each step is as small as passes"
    after = verdicts[held[0] + 1]
    assert after.accepted
    assert after.long is not None
    assert (after.long.kind, after.long.reference[0].partition) == ("confirmed", verdicts[held[0]].partition)


def test_a_season_is_compared_with_itself_a_year_ago() -> None:
    def swinging(place: int) -> pl.DataFrame:
        return dearer(transformed(seed=place), 1 + 0.2 * np.sin(2 * np.pi * place / 12))

    months = [(key, swinging(place)) for place, (key, _) in enumerate(rising(0.0, 26))]
    verdicts = [judgement.verdict for judgement in WALK(months, person=accept_held)]
    assert all(verdict.accepted for verdict in verdicts[14:])
    kinds = [verdict.long.kind for verdict in verdicts[14:] if verdict.long is not None]
    assert kinds.count("season") > 6
    seasons = [v.long.reference[0].partition for v in verdicts if v.long is not None and v.long.kind == "season"]
    assert [v.partition for v in verdicts if v.long is not None and v.long.kind == "season"] == [
        f"{int(key[:4]) + 1}{key[4:]}" for key in seasons
    ]


def test_a_step_that_a_person_accepted_is_held_neither_in_the_next_partitions_nor_a_season_later() -> None:
    def december(place: int) -> pl.DataFrame:
        return dearer(transformed(seed=place), 1.5 if place % 12 in {10, 11} else 1.0)

    verdicts = [
        judgement.verdict
        for judgement in WALK([(key, december(n)) for n, (key, _) in enumerate(rising(0.0, 26))], person=accept_held)
    ]
    assert [v.partition for v in verdicts if not v.accepted] == ["2020-11", "2021-01"]  # it comes, and it goes; once
    like = {v.partition: v.likened for v in verdicts if v.likened != "last"}
    confirmed, season = ("2020-12", "2021-02"), ("2021-11", "2021-12", "2022-01", "2022-02")
    assert like == dict.fromkeys(confirmed, "confirmed") | dict.fromkeys(season, "season")
    (known,) = [finding for finding in verdicts[22].findings if finding.name == "known_step"]
    assert known.message.endswith("but like what was accepted a season ago (2020-11)")
    assert [part.partition for part in verdicts[22].reference] == ["2020-11"]


def test_what_was_usual_a_season_ago_is_a_stranger_where_a_person_accepted_another_state_since() -> None:
    def amounts(place: int) -> float:
        return 1.6 if 8 <= place < 18 else 1.0

    months = [(key, dearer(transformed(seed=n), amounts(n))) for n, (key, _) in enumerate(rising(0.0, 19))]
    verdicts = [judgement.verdict for judgement in WALK(months, person=accept_held)]
    assert [v.partition for v in verdicts if not v.accepted] == ["2020-09", "2021-07"]


# ---- an old verdict is put back


def test_an_old_verdict_that_is_put_back_is_refused_where_a_newer_one_was_seen(store: DirectoryStore, heads: Heads) -> None:
    contents = fill(store, {"2024-01": transformed(seed=1), "2024-02": transformed(seed=2)})
    old = store.get("drift/2024-02.json")
    content = contents["2024-02"]
    refused = gate.refuse(store, KEY, "2024-02", content, who="bob", reason="wrong file delivered", now=NOW, heads=heads)
    assert refused.sequence == 2
    store.put("drift/2024-02.json", old)

    taken = gate.training_set(store, KEY, contents)  # a machine that has seen nothing cannot know
    assert len(taken.accepted) == 2
    said = "verdict on 2024-02 is change 1 of it, and change 2 was seen before"
    with pytest.raises(GateRefusalError, match=said):
        gate.training_set(store, KEY, contents, heads=heads)
    with pytest.raises(GateRefusalError, match=said):
        judge_in(store, "2024-02", transformed(seed=2), contents, 1, heads)
    assert [v.partition for v in gate.load_past(store, KEY, "2024-03", contents, SETTINGS, heads=heads).verdicts] == ["2024-01"]

    store.root.joinpath("drift", "2024-02.json").unlink()
    with pytest.raises(GateRefusalError, match="verdict on 2024-02 is gone, of which change 2 was seen"):
        judge_in(store, "2024-02", transformed(seed=2), contents, 1, heads)
    store.put("drift/2024-02.json", old)
    decided = gate.refuse(store, KEY, "2024-02", content, who="bob", reason="wrong file delivered", now=NOW, heads=heads)
    assert decided.sequence == 3
    assert len(gate.training_set(store, KEY, contents, heads=heads).rejected) == 1


def test_of_two_changes_with_one_number_the_one_that_was_seen_holds(store: DirectoryStore, heads: Heads) -> None:
    contents = fill(store, {"2024-01": transformed(seed=1)})
    old = store.get("drift/2024-01.json")
    gate.refuse(store, KEY, "2024-01", contents["2024-01"], who="bob", reason="wrong file delivered", now=NOW, heads=heads)
    store.put("drift/2024-01.json", old)
    other = gate.accept(store, KEY, "2024-01", contents["2024-01"], who="eve", reason="all is well", now=NOW)  # elsewhere
    assert other.sequence == 2
    with pytest.raises(GateRefusalError, match="was seen before"):
        gate.training_set(store, KEY, contents, heads=heads)


def test_a_forged_verdict_does_not_move_what_was_seen(store: DirectoryStore, heads: Heads) -> None:
    contents = fill(store, {"2024-01": transformed(seed=1)})
    whole = store.get("drift/2024-01.json")
    gate.training_set(store, KEY, contents, heads=heads)
    store.put("drift/2024-01.json", json.dumps(json.loads(whole) | {"sequence": 99}).encode())
    with pytest.raises(GateRefusalError, match="signature"):
        gate.training_set(store, KEY, contents, heads=heads)
    store.put("drift/2024-01.json", whole)
    assert len(gate.training_set(store, KEY, contents, heads=heads).accepted) == 1


def test_a_verdict_changed_by_hand_takes_no_refusal_with_it(store: DirectoryStore, heads: Heads) -> None:
    contents = fill(store, {"2024-01": transformed(seed=1), "2024-02": transformed(seed=2)})
    content = contents["2024-02"]
    gate.refuse(store, KEY, "2024-02", content, who="bob", reason="wrong file delivered", now=NOW, heads=heads)
    for damaged in (b"{", json.dumps(json.loads(store.get("drift/2024-02.json")) | {"decisions": []}).encode()):
        store.put("drift/2024-02.json", damaged)
        again = judge_in(store, "2024-02", transformed(seed=2), contents, 1, heads)
        assert again.accepted, "by the statistics alone it would train"
        assert not again.is_accepted
        assert again.refused_by is not None
        assert "changed by hand" in again.refused_by.reason
    gate.accept(store, KEY, "2024-02", content, who="bob", reason="the right file", now=NOW, heads=heads)
    assert len(gate.training_set(store, KEY, contents, heads=heads).accepted) == 2


def test_verdicts_from_before_they_were_counted_are_followed(store: DirectoryStore, heads: Heads) -> None:
    contents = fill(store, {"2024-01": transformed(seed=1)})
    document = json.loads(store.get("drift/2024-01.json"))
    for name in ("sequence", "rules", "confirmed", "long", "former", "signature"):
        del document[name]
    del document["versions"]["features"]
    store.put("drift/2024-01.json", json.dumps(sign(document, KEY)).encode())
    assert gate.training_set(store, KEY, contents, heads=heads).verdicts["2024-01"].sequence == 0
    assert judge_in(store, "2024-01", transformed(seed=1), contents, 0, heads).kind == "bootstrap"
    assert gate.training_set(store, KEY, contents, heads=heads).verdicts["2024-01"].sequence == 1


def test_the_position_of_a_partition_is_by_the_calendar() -> None:
    source = Source.model_validate(
        {
            "name": "cards",
            "simulator": {},
            "cadence": "monthly",
            "first": "2023-11",
            "label_delay_days": 0,
            "columns": {"timestamp": {"column": "t"}, "amount": "a", "label": {"column": "l"}},
        }
    )
    assert [gate.position(source, key) for key in ("2023-11", "2023-12", "2024-02")] == [0, 1, 3]


def test_a_later_partition_materialized_first_is_no_bootstrap() -> None:
    verdict = judged(transformed(), gate.Past(), position=SETTINGS.bootstrap_partitions).verdict
    assert names(verdict) == {("no_reference", None)}


def rules_of(*changes: str) -> Rules:
    """The rules of the gate after so many changes; the first is the record of the first start."""
    decision = gate.Decision(action="confirm", who="ann", reason=REASON, at=NOW)
    return Rules(rules={}, history=tuple(RulesChange(sha256=one, changes=(one,), decision=decision) for one in changes))


def test_a_feature_declared_since_blocks_nothing_until_there_is_one_to_compare_with() -> None:
    walk, before, now = gate.Walk(SETTINGS), rules_of("first"), rules_of("first", "the category is declared")
    without = [feature for feature in FEATURES if feature.name != "category"]
    walk.add(judged(transformed(seed=1), walk.past("2024-01"), position=0, partition="2024-01", features=without, rules=before))
    first = judged(transformed(seed=2), walk.past("2024-06"), rules=now)
    assert first.verdict.is_accepted
    assert ("no_reference", "category") in names(first.verdict, blocking=False)

    walk.add(first)
    past = walk.past("2024-07")
    strangers = transformed(seed=3).with_columns(category=pl.lit("new"))
    assert ("unseen_category", "category") in names(judged(strangers, past, rules=now).verdict)
    missing = transformed(seed=3).with_columns(category=pl.when(pl.col("hour") > 12).then("category"))
    assert ("null_share", "category") in names(judged(missing, past, rules=now).verdict), "before, it was not missing but unknown"


def test_a_feature_that_the_reference_was_judged_by_is_not_one_declared_since() -> None:
    walk, rules = gate.Walk(SETTINGS), rules_of("first", "the category is declared")
    lost = judged(transformed(seed=1).drop("category"), walk.past("2024-01"), position=0, partition="2024-01", rules=rules)
    assert names(lost.verdict) == {("missing_column", "category")}
    decision = gate.Decision(action="accept", who="ann", reason=REASON, at=NOW)
    walk.add(dataclasses.replace(lost, verdict=lost.verdict.model_copy(update={"decisions": (decision,)})))
    assert ("no_reference", "category") in names(judged(transformed(seed=2), walk.past("2024-06"), rules=rules).verdict)


# ---- the verdict in the store


def test_a_recorded_verdict_reads_back_equal_and_signed(store: DirectoryStore, past: gate.Past) -> None:
    judgement = judged(transformed(seed=9), past)
    written = judgement.verdict.model_copy(update={"sequence": 1})
    assert gate.record(store, KEY, judgement) == written
    assert gate.read_verdict(store, KEY, "2024-06") == written
    verify(json.loads(store.get("drift/2024-06.json")), KEY, "it")
    assert store.get(judgement.verdict.sample_key) == judgement.sample


def test_nothing_but_features_leaves_the_partition(store: DirectoryStore, past: gate.Past) -> None:
    judgement = judged(transformed(seed=9), past)
    gate.record(store, KEY, judgement)
    assert judgement.current.columns == ["log_amount", "hour", "age", "distance", "category"]
    assert b"secret" not in store.get("drift/2024-06.json") + store.get(judgement.verdict.sample_key)


def test_a_verdict_that_is_not_there_is_none(store: DirectoryStore) -> None:
    assert gate.read_verdict(store, KEY, "2024-06") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "valid signature"),
        (json.dumps(sign({"partition": "2024-06", "format": 0}, KEY)).encode(), "another version"),
    ],
)
def test_what_is_not_a_verdict_is_not_used(store: DirectoryStore, text: bytes, says: str) -> None:
    store.put("drift/2024-06.json", text)
    with pytest.raises(IntegrityError, match=says):
        gate.read_verdict(store, KEY, "2024-06")


def test_a_verdict_moved_to_another_partition_is_not_used(store: DirectoryStore) -> None:
    fill(store, {"2024-01": transformed()})
    store.put("drift/2024-02.json", store.get("drift/2024-01.json"))
    with pytest.raises(IntegrityError, match="speaks of partition 2024-01"):
        gate.read_verdict(store, KEY, "2024-02")


def test_judging_the_same_content_again_keeps_what_people_decided(store: DirectoryStore, past: gate.Past) -> None:
    judgement = judged(dearer(transformed(seed=9)), past)
    content = gate.record(store, KEY, judgement).content
    gate.accept(store, KEY, "2024-06", content, who="ann", reason=REASON, now=NOW)
    again = gate.record(store, KEY, judgement)
    assert (again.accepted, again.is_accepted) == (False, True)
    assert again.overruled_by is not None
    assert (again.overruled_by.who, again.overruled_by.reason) == ("ann", REASON)


def test_an_acceptance_does_not_hold_for_other_content(store: DirectoryStore, past: gate.Past) -> None:
    content = gate.record(store, KEY, judged(dearer(transformed(seed=9)), past)).content
    gate.accept(store, KEY, "2024-06", content, who="ann", reason=REASON, now=NOW)
    assert not gate.record(store, KEY, judged(dearer(transformed(seed=10)), past)).is_accepted


def test_a_verdict_edited_by_hand_loses_its_decisions_when_judged_again(store: DirectoryStore, past: gate.Past) -> None:
    judgement = judged(dearer(transformed(seed=9)), past)
    document = json.loads((gate.record(store, KEY, judgement), store.get("drift/2024-06.json"))[1])
    document["decisions"] = [{"action": "accept", "who": "x", "reason": REASON, "at": NOW.isoformat()}]
    store.put("drift/2024-06.json", json.dumps(document).encode())
    assert not gate.record(store, KEY, judgement).is_accepted


class _Interrupted(DirectoryStore):
    """A store in which somebody else writes just before each of the first conditional writes."""

    def __init__(self, root: Path, interruptions: int) -> None:
        super().__init__(root)
        self.interruptions = interruptions

    def put_if(self, key: str, data: bytes, tag: str | None) -> None:
        if self.interruptions:
            self.interruptions -= 1
            tagged = self.get_tagged(key)
            assert tagged is not None
            self.put(key, tagged[0] + b" ")
        super().put_if(key, data, tag)


def test_an_acceptance_is_not_lost_to_a_write_at_the_same_time(store: DirectoryStore, past: gate.Past) -> None:
    content = gate.record(store, KEY, judged(dearer(transformed(seed=9)), past)).content
    gate.accept(_Interrupted(store.root, 2), KEY, "2024-06", content, who="ann", reason=REASON, now=NOW)
    verdict = gate.read_verdict(store, KEY, "2024-06")
    assert verdict is not None
    assert verdict.is_accepted
    with pytest.raises(StoreConflictError):
        gate.accept(_Interrupted(store.root, 99), KEY, "2024-06", content, who="ann", reason=REASON, now=NOW)


# ---- the past


def test_the_past_is_the_accepted_partitions_before_in_order_with_the_samples_of_the_last(store: DirectoryStore) -> None:
    frames = {f"2024-{month:02d}": transformed(seed=month) for month in range(1, 8)}
    frames["2024-05"] = dearer(frames["2024-05"])
    contents = fill(store, frames)
    past = gate.load_past(store, KEY, "2024-07", contents, SETTINGS)
    assert [verdict.partition for verdict in past.verdicts] == ["2024-01", "2024-02", "2024-03", "2024-04", "2024-06"]
    assert [verdict.partition for verdict in past.references] == ["2024-03", "2024-04", "2024-06"]
    assert past.samples[-1].height == SETTINGS.sample_rows


def test_natural_variation_is_that_of_the_latest_accepted_partitions(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fraud_core.gate.past.NATURAL_PARTITIONS", 4)
    contents = fill(store, {f"2024-{month:02d}": transformed(seed=month) for month in range(1, 7)})
    past = gate.load_past(store, KEY, "2024-07", contents, SETTINGS)
    assert [verdict.partition for verdict in past.verdicts] == ["2024-03", "2024-04", "2024-05", "2024-06"]
    assert [verdict.partition for verdict in past.references] == ["2024-04", "2024-05", "2024-06"]


def test_partitions_changed_since_their_verdict_are_no_reference(store: DirectoryStore) -> None:
    contents = fill(store, {f"2024-{month:02d}": transformed(seed=month) for month in range(1, 4)})
    changed = contents | {"2024-02": "0" * 64}
    assert [v.partition for v in gate.load_past(store, KEY, "2024-04", changed, SETTINGS).verdicts] == ["2024-01", "2024-03"]


def test_verdicts_that_do_not_verify_are_no_reference(store: DirectoryStore) -> None:
    contents = fill(store, {f"2024-{month:02d}": transformed(seed=month) for month in range(1, 4)})
    store.put("drift/2024-02.json", b"{}")
    assert [v.partition for v in gate.load_past(store, KEY, "2024-04", contents, SETTINGS).verdicts] == ["2024-01", "2024-03"]


def test_a_reference_sample_changed_by_hand_is_not_used(store: DirectoryStore) -> None:
    contents = fill(store, {f"2024-{month:02d}": transformed(seed=month) for month in range(1, 3)})
    sample = next(key for key in store.list("drift/samples") if "2024-02" in key)
    store.put(sample, store.get(sample) + b" ")
    with pytest.raises(IntegrityError, match="2024-02"):
        gate.load_past(store, KEY, "2024-03", contents, SETTINGS)


def test_the_reference_is_drawn_from_each_partition_in_proportion_to_its_rows() -> None:
    frames = [("2024-01", transformed(2_000, 1)), ("2024-02", transformed(8_000, 2)), ("2024-03", transformed(4_000, 3))]
    walked = gate.walk_forward(frames, features=FEATURES, settings=SETTINGS, seed=1, detector=statistics.scipy_detector, now=NOW)
    assert [part.rows for part in walked[2].verdict.reference] == [600, 2_400]


# ---- the training set


def test_rejected_partitions_are_left_out_of_the_training_set_and_listed(store: DirectoryStore) -> None:
    contents = fill(
        store, {"2024-01": transformed(seed=1), "2024-02": transformed(seed=2), "2024-03": dearer(transformed(seed=3))}
    )
    trained = gate.training_set(store, KEY, contents)
    assert [(part.partition, part.content) for part in trained.accepted] == [(p, contents[p]) for p in ("2024-01", "2024-02")]
    assert [(part.partition, part.content) for part in trained.rejected] == [("2024-03", contents["2024-03"])]
    assert trained.verdicts.keys() == contents.keys()


def test_a_run_for_a_rejected_partition_is_refused_with_the_features_and_the_way_to_accept(store: DirectoryStore) -> None:
    frames = {f"2024-{month:02d}": transformed(seed=month) for month in range(1, 4)}
    contents = fill(store, frames | {"2024-03": dearer(frames["2024-03"])})
    with pytest.raises(GateRefusalError) as refusal:
        gate.training_set(store, KEY, contents, "2024-03")
    for part in ("2024-03", "log_amount", 'fraud accept 2024-03 --reason "'):
        assert part in str(refusal.value)
    assert gate.training_set(store, KEY, contents, "2024-02").rejected[0].partition == "2024-03"


def test_a_run_for_a_partition_that_is_not_materialized_is_refused(store: DirectoryStore) -> None:
    contents = fill(store, {"2024-01": transformed()})
    with pytest.raises(GateRefusalError, match="2024-02 is not materialized"):
        gate.training_set(store, KEY, contents, "2024-02")


def test_a_partition_without_a_verdict_stops_all_training(store: DirectoryStore) -> None:
    contents = fill(store, {"2024-01": transformed(seed=1), "2024-02": transformed(seed=2)})
    (store.root / "drift" / "2024-01.json").unlink()
    with pytest.raises(GateRefusalError, match="2024-01 is materialized but has no drift verdict"):
        gate.training_set(store, KEY, contents, "2024-02")


def test_a_partition_materialized_again_after_its_verdict_stops_all_training(store: DirectoryStore) -> None:
    contents = fill(store, {"2024-01": transformed(seed=1), "2024-02": transformed(seed=2)})
    with pytest.raises(GateRefusalError, match="2024-01 has changed since"):
        gate.training_set(store, KEY, contents | {"2024-01": "0" * 64})


@pytest.mark.parametrize("edit", [{"accepted": True}, {"content": "0" * 64}, {"signature": ""}])
def test_a_verdict_edited_by_hand_stops_all_training(store: DirectoryStore, edit: dict[str, object]) -> None:
    frames = {f"2024-{month:02d}": transformed(seed=month) for month in range(1, 4)}
    contents = fill(store, frames | {"2024-03": dearer(frames["2024-03"])})
    document = json.loads(store.get("drift/2024-03.json"))
    store.put("drift/2024-03.json", json.dumps(document | edit).encode())
    with pytest.raises(GateRefusalError, match="signature"):
        gate.training_set(store, KEY, contents)


def test_a_verdict_signed_with_another_key_stops_all_training(store: DirectoryStore) -> None:
    contents = fill(store, {"2024-01": transformed()})
    with pytest.raises(GateRefusalError, match="FRAUD_SIGNING_KEY"):
        gate.training_set(store, Key(b"x" * 32), contents)


def test_there_is_no_empty_training_set(store: DirectoryStore) -> None:
    with pytest.raises(GateRefusalError, match="No partition is accepted"):
        gate.training_set(store, KEY, {})


def test_the_fingerprint_speaks_of_accepted_content_alone(store: DirectoryStore) -> None:
    contents = fill(
        store, {"2024-01": transformed(seed=1), "2024-02": transformed(seed=2), "2024-03": dearer(transformed(seed=3))}
    )
    whole = gate.fingerprint(gate.training_set(store, KEY, contents))
    without_rejected = {p: contents[p] for p in ("2024-02", "2024-01")}
    assert gate.fingerprint(gate.training_set(store, KEY, without_rejected)) == whole
    assert gate.fingerprint(gate.training_set(store, KEY, {"2024-01": contents["2024-01"]})) != whole


# ---- people


def test_a_person_can_accept_a_rejected_partition_and_take_it_back(store: DirectoryStore) -> None:
    contents = fill(
        store, {"2024-01": transformed(seed=1), "2024-02": transformed(seed=2), "2024-03": dearer(transformed(seed=3))}
    )
    content = contents["2024-03"]
    accepted = gate.accept(store, KEY, "2024-03", content, who="ann", reason=REASON, now=NOW)
    assert (accepted.accepted, accepted.is_accepted, accepted.refused_by) == (False, True, None)
    assert len(gate.training_set(store, KEY, contents, "2024-03").accepted) == 3

    refused = gate.refuse(store, KEY, "2024-03", content, who="bob", reason="the campaign was fraud", now=NOW)
    assert (refused.is_accepted, refused.overruled_by) == (False, None)
    assert [decision.who for decision in refused.decisions] == ["ann", "bob"]
    with pytest.raises(GateRefusalError, match=r"refused by bob \(the campaign was fraud\)"):
        gate.training_set(store, KEY, contents, "2024-03")


def test_a_person_can_refuse_what_the_gate_accepted(store: DirectoryStore) -> None:
    contents = fill(store, {"2024-01": transformed(seed=1), "2024-02": transformed(seed=2)})
    gate.refuse(store, KEY, "2024-02", contents["2024-02"], who="bob", reason="wrong file delivered", now=NOW)
    assert [part.partition for part in gate.training_set(store, KEY, contents).accepted] == ["2024-01"]
    assert [v.partition for v in gate.load_past(store, KEY, "2024-03", contents, SETTINGS).verdicts] == ["2024-01"]


@pytest.mark.parametrize("reason", ["", "   ", "...", "42 42", "x", "ok", "- / -"])
def test_a_reason_of_no_words_is_refused(store: DirectoryStore, reason: str) -> None:
    contents = fill(store, {"2024-01": transformed()})
    before = store.get("drift/2024-01.json")
    for decide in (gate.accept, gate.refuse):
        with pytest.raises(GateRefusalError, match="reason in words"):
            decide(store, KEY, "2024-01", contents["2024-01"], who="ann", reason=reason, now=NOW)
    assert store.get("drift/2024-01.json") == before


def test_only_the_content_that_was_judged_can_be_accepted(store: DirectoryStore) -> None:
    contents = fill(store, {"2024-01": transformed()})
    with pytest.raises(GateRefusalError, match="has changed since"):
        gate.accept(store, KEY, "2024-01", "0" * 64, who="ann", reason=REASON, now=NOW)
    with pytest.raises(GateRefusalError, match="has no drift verdict"):
        gate.accept(store, KEY, "2024-02", contents["2024-01"], who="ann", reason=REASON, now=NOW)


def test_a_verdict_edited_by_hand_cannot_be_accepted(store: DirectoryStore) -> None:
    contents = fill(store, {"2024-01": transformed()})
    store.put("drift/2024-01.json", store.get("drift/2024-01.json").replace(b"4000", b"4001"))
    with pytest.raises(GateRefusalError, match="signature"):
        gate.accept(store, KEY, "2024-01", contents["2024-01"], who="ann", reason=REASON, now=NOW)
