"""May the candidate become champion?"""

import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fraud_assets.operations.judging_models import promotion_of
from fraud_assets.training import promotion
from fraud_assets.training.training import TrainedModel
from fraud_core.evaluation.model_card import Promotion
from fraud_core.models.bundle import write_bundle
from fraud_core.models.registry import point_at

NOW = datetime(2024, 8, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
GOOD = {"log_amount": 1.4, "night": 2.0, "hour": -0.02}
GOOD_TOO = {"log_amount": 1.4, "night": 2.0, "hour": -0.02001}  # ranks almost as GOOD does
UNCERTAIN = {"log_amount": 1.4, "night": 2.0, "hour": -0.021}  # by the hold-out perhaps as good, perhaps not
FAIR = {"log_amount": 1.0}
POOR = {"log_amount": 1.0, "age": 0.08}
USELESS = {"distance": 1e-5}
Make = Callable[..., TrainedModel]


def point(bench: Any, model: TrainedModel, at: datetime, **how: Any) -> str:
    """Make a model the champion."""
    store, key = bench.installation.artifacts.store, bench.installation.artifacts.signing_key
    write_bundle(store, model.bundle, key)
    point_at(store, model.bundle.version, key, how=how.pop("how", "promotion"), who="test", at=at, **how)
    return model.bundle.version


def judged(bench: Any, model: TrainedModel) -> Promotion:
    return promotion_of(bench.installation, model, NOW)


def test_the_first_model_is_promoted_if_it_lies_well_above_the_fraud_rate(bench: Any, make_model: Make) -> None:
    bench = bench.with_settings(promotion_lift=4.0)
    promotion = judged(bench, make_model(bench, **GOOD))
    assert promotion.promoted
    assert promotion.champion is None
    assert "There is no champion yet." in promotion.reasons


@pytest.mark.parametrize("champion", [None, USELESS])
def test_a_model_hardly_better_than_guessing_is_not_promoted(bench: Any, make_model: Make, champion: Any) -> None:
    bench = bench.with_settings(promotion_lift=5.0)
    if champion is not None:
        point(bench, make_model(bench, **champion), NOW)
    model = make_model(bench, **POOR)
    promotion = judged(bench, model)
    assert not promotion.promoted
    assert model.holdout.average_precision_interval.low < 5 * model.holdout.fraud_rate
    assert "at least 5 times the fraud rate" in promotion.reasons[0]


def test_a_worse_candidate_is_refused_and_says_by_how_much(bench: Any, make_model: Make) -> None:
    version = point(bench, make_model(bench, **GOOD), NOW - timedelta(days=3))
    model = make_model(bench, **FAIR)
    promotion = judged(bench.with_settings(promotion_lift=1.0), model)
    assert not promotion.promoted
    assert promotion.champion == version
    assert promotion.difference is not None
    assert promotion.interval is not None
    assert promotion.interval.low < promotion.difference < -0.03
    assert f"The lower end of its difference to champion {version}" in " ".join(promotion.reasons)


def test_a_better_candidate_is_promoted(bench: Any, make_model: Make) -> None:
    bench = bench.with_settings(promotion_lift=3.0)
    point(bench, make_model(bench, **POOR), NOW - timedelta(days=3))
    promotion = judged(bench, make_model(bench, **GOOD))
    assert promotion.promoted
    assert promotion.interval is not None
    assert promotion.interval.low > 0


@pytest.mark.parametrize(("margin", "promoted"), [(0.01, True), (0.0, False)])
def test_an_equally_good_candidate_is_promoted_within_the_margin(
    bench: Any, make_model: Make, margin: float, promoted: bool
) -> None:
    bench = bench.with_settings(promotion_lift=3.0, promotion_margin=margin)
    point(bench, make_model(bench, **GOOD), NOW - timedelta(days=3))
    promotion = judged(bench, make_model(bench, **GOOD_TOO))
    assert promotion.interval is not None
    assert -0.01 < promotion.interval.low <= 0
    assert promotion.promoted is promoted


def test_what_may_be_worse_than_the_margin_is_not_promoted_however_close_it_came(bench: Any, make_model: Make) -> None:
    bench = bench.with_settings(promotion_lift=3.0, promotion_margin=0.01)
    point(bench, make_model(bench, **GOOD), NOW - timedelta(days=3))
    promotion = judged(bench, make_model(bench, **UNCERTAIN))
    assert promotion.difference is not None
    assert promotion.interval is not None
    assert promotion.interval.low < -0.01 < promotion.difference
    assert not promotion.promoted


def test_the_champion_itself_is_not_measured_against_itself(bench: Any, make_model: Make) -> None:
    model = make_model(bench, **USELESS)
    version = point(bench, model, NOW)
    promotion = judged(bench, model)
    assert promotion.promoted
    assert promotion.difference is None
    assert (promotion.champion, len(promotion.reasons)) == (version, 1)


def test_a_withdrawn_version_is_never_promoted_however_good(bench: Any, make_model: Make) -> None:
    bench = bench.with_settings(promotion_lift=1.0)
    poor, good = make_model(bench, **POOR), make_model(bench, **GOOD)
    point(bench, poor, NOW - timedelta(days=3))
    version = point(bench, good, NOW - timedelta(days=2))
    point(bench, poor, NOW, how="rollback", reason="it declined all of Texas", withdraw=version)
    promotion = judged(bench, good)
    assert not promotion.promoted
    assert "it declined all of Texas" in promotion.reasons[0]
    assert f"fraud restore {version}" in promotion.reasons[0]


@pytest.mark.parametrize(("ended", "promoted"), [(YEAR - timedelta(days=1), False), (YEAR + timedelta(days=1), True)])
def test_small_steps_down_do_not_add_up_within_twelve_months(
    bench: Any, make_model: Make, ended: timedelta, promoted: bool
) -> None:
    """Each step is within the margin of the champion of its day; together they are not within that of the best."""
    bench = bench.with_settings(promotion_lift=1.0)
    good, poor = make_model(bench, **GOOD), make_model(bench, **POOR)
    best = point(bench, good, NOW - 2 * YEAR)
    point(bench, poor, NOW - ended)
    candidate = make_model(bench, intercept=-5.5, **POOR)
    assert candidate.bundle.version != poor.bundle.version
    promotion = judged(bench, candidate)
    assert promotion.difference == pytest.approx(0, abs=1e-9)
    assert promotion.promoted is promoted
    assert (best in " ".join(promotion.reasons)) is not promoted


def test_a_withdrawn_champion_is_no_standard_to_meet(bench: Any, make_model: Make) -> None:
    bench = bench.with_settings(promotion_lift=1.0)
    poor, good = make_model(bench, **POOR), make_model(bench, **GOOD)
    point(bench, poor, NOW - timedelta(days=30))
    version = point(bench, good, NOW - timedelta(days=20))
    point(bench, poor, NOW - timedelta(days=10), how="rollback", reason="leaked the label", withdraw=version)
    assert judged(bench, make_model(bench, intercept=-5.5, **POOR)).promoted


def test_a_champion_that_cannot_score_these_rows_is_named_and_stops_nothing(bench: Any, make_model: Make) -> None:
    bench = bench.with_settings(promotion_lift=3.0)
    version = point(bench, make_model(bench, **GOOD, age=0.01), NOW - timedelta(days=3))
    for key, frame in bench.rows().items():
        bench.put(key, frame.drop("age"))
    promotion = judged(bench, make_model(bench, **GOOD))
    assert promotion.promoted
    assert promotion.difference is None
    assert f"Version {version} cannot be compared with" in promotion.reasons[-1]


def test_a_champion_whose_bundle_was_changed_is_named(bench: Any, make_model: Make) -> None:
    bench = bench.with_settings(promotion_lift=3.0)
    version = point(bench, make_model(bench, **GOOD), NOW - timedelta(days=3))
    bench.installation.artifacts.store.put(f"models/{version}/model.json", b"{}")
    reasons = judged(bench, make_model(bench, **FAIR)).reasons
    assert f"Version {version} cannot be compared with" in reasons[-1]


def test_judging_writes_nothing(bench: Any, make_model: Make) -> None:
    point(bench, make_model(bench, **GOOD), NOW)
    store = bench.installation.artifacts.store
    before = {key: store.get(key) for key in store.list("")}
    judged(bench, make_model(bench, **FAIR))
    assert {key: store.get(key) for key in store.list("")} == before


def test_a_run_judges_once_and_again_when_anything_that_decides_has_changed(
    bench: Any, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0
    honest = promotion.metrics.paired_difference

    def counting(*args: Any, **options: Any) -> Any:
        nonlocal compared
        compared += 1
        return honest(*args, **options)

    def times(judging: Any, model: TrainedModel, at: datetime = NOW) -> int:
        before = compared
        asked = promotion_of(judging.installation, pickle.loads(pickle.dumps(model)), at)
        fresh = promotion_of(replace(judging.installation), model, at)  # as another process would
        assert asked == fresh
        return compared - before - 1

    monkeypatch.setattr(promotion.metrics, "paired_difference", counting)
    first, second, model = (make_model(bench, **coefficients) for coefficients in (POOR, FAIR, GOOD))
    point(bench, first, NOW - 2 * YEAR)
    champion = point(bench, second, NOW - timedelta(days=3))
    assert [times(bench, model), times(bench, model, NOW + timedelta(minutes=1))] == [1, 0], "the check judges, the asset asks"
    assert times(bench, replace(model, holdout=model.holdout.model_copy(update={"average_precision": 0.1}))) == 1
    assert times(bench, make_model(bench, **GOOD_TOO)) == 1
    assert times(bench, model) == 1, "only the last is remembered"
    assert times(bench, model, NOW + 2 * YEAR) == 1, "the standard to meet is another"
    key = bench.installation.artifacts.signing_key
    withdrawn = {"how": "rollback", "reason": "it declined all of Texas", "withdraw": champion}
    point_at(bench.installation.artifacts.store, first.bundle.version, key, who="test", at=NOW, **withdrawn)
    assert times(bench, model) == 1, "the champion is another"
    assert times(bench, model) == 0
    bench.put("2024-06", bench.rows(seed=2)["2024-06"])
    assert times(bench, model) == 1, "the hold-out has other rows"
    store = bench.installation.artifacts.store
    whole = store.get(f"models/{first.bundle.version}/model.json")
    store.put(f"models/{first.bundle.version}/model.json", b"{}")
    assert "cannot be compared with" in judged(bench, model).reasons[-1]
    store.put(f"models/{first.bundle.version}/model.json", whole)
    assert times(bench, model) == 1, "what was damaged then is whole now"
