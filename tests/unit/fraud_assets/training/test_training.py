"""Training: what each side of the split may decide, and what it may not."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from fraud_assets.reports.model_card import to_markdown
from fraud_assets.training import candidates, rows, training
from fraud_assets.training.card import model_card
from fraud_assets.training.split import Block, Side, split_of
from fraud_assets.training.task import TrainingTask
from fraud_assets.training.training import Preprocessor, TrainedModel, fit_preprocessor, train
from fraud_core.errors import FeatureError, GateRefusalError, HoldoutError, IntegrityError, NotYetTrainableError
from fraud_core.evaluation.model_card import ModelCard, Promotion
from fraud_core.features import catalogue
from fraud_core.models.bundle import Fitted, read_bundle, write_bundle
from fraud_core.models.explain import Explainer
from fraud_core.models.kinds import boosting
from fraud_core.models.kinds.boosting import BoostingSettings
from fraud_core.models.kinds.catalogue import KINDS
from fraud_core.models.kinds.kind import Attribution, Examples, Kind, MarginModel
from fraud_core.models.manifest import Lookback
from fraud_core.models.registry import versions
from fraud_core.models.scorer import Scorer
from tests import history_features

Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    small = BoostingSettings(learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=40, trees=40)
    monkeypatch.setattr(boosting, "BOOSTING", {"boosting": small})


def task(bench: Any) -> TrainingTask:
    return bench.installation.training_task(bench.installation.training_set())


def trained(bench: Any, progress: Callable[[str], None] = lambda _: None) -> TrainedModel:
    return train(task(bench), preprocessor(bench), progress)


def preprocessor(bench: Any) -> Preprocessor:
    return fit_preprocessor(task(bench))


def changed(bench: Any, new_bench: Any, change: Change, *sides: Side) -> Any:
    """Another installation whose rows on these sides, and on no other, were changed."""
    split = split_of(bench.installation.source, bench.installation.transformed())

    def lies_in(block: Block) -> pl.Expr:
        return pl.col("timestamp").is_between(block.start, block.end, closed="left")

    chosen = pl.any_horizontal(lies_in(split.side(side)) for side in sides)
    other = new_bench()
    touched = 0
    for key, frame in bench.rows().items():
        touched += len(frame.filter(chosen))
        parts = [frame.filter(~chosen), change(frame.filter(chosen)).select(frame.columns)]
        other.put(key, pl.concat(parts).sort("timestamp", maintain_order=True))
    assert touched > 500
    return other


def other_population(frame: pl.DataFrame) -> pl.DataFrame:
    """Other categories, amounts, ages and labels."""
    return frame.with_columns(
        pl.lit("a category never seen before").alias("category"),
        (pl.col("log_amount") * 3 + 2).alias("log_amount"),
        (pl.col("amount_cents") * 50 + 1).alias("amount_cents"),
        pl.lit(99, dtype=pl.Int64).alias("age"),
        (pl.int_range(pl.len()) % 3 == 0).alias("label"),
    )


def labels_turned_round(frame: pl.DataFrame) -> pl.DataFrame:
    """Every fraud legitimate and every other row a fraud."""
    return frame.with_columns(~pl.col("label"))


# ---- leaks


@pytest.mark.parametrize("change", [other_population, labels_turned_round])
def test_the_preprocessor_learns_from_training_rows_alone(bench: Any, new_bench: Any, change: Change) -> None:
    other = changed(bench, new_bench, change, "validation_a", "validation_b", "holdout")
    before, after = preprocessor(bench), preprocessor(other)
    assert before.encoder.model_dump_json() == after.encoder.model_dump_json()
    assert (before.rows, before.frauds) == (after.rows, after.frauds)


def test_the_preprocessor_learns_from_training_rows_at_all(bench: Any, new_bench: Any) -> None:
    other = changed(bench, new_bench, other_population, "training")
    assert preprocessor(bench).encoder != preprocessor(other).encoder


@pytest.mark.parametrize("change", [other_population, labels_turned_round])
def test_the_holdout_decides_nothing_about_the_model(bench: Any, new_bench: Any, change: Change) -> None:
    before, after = trained(bench), trained(changed(bench, new_bench, change, "holdout"))
    assert before.bundle.version == after.bundle.version
    assert before.candidates == after.candidates
    assert before.validation == after.validation
    assert before.holdout.average_precision != after.holdout.average_precision


def test_validation_b_decides_calibration_and_thresholds_and_nothing_else(bench: Any, new_bench: Any) -> None:
    def larger(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.when("label").then(pl.col("log_amount") + 1).otherwise("log_amount").alias("log_amount"))

    before, after = (trained(one).bundle for one in (bench, changed(bench, new_bench, larger, "validation_b")))
    assert (before.model, before.encoder) == (after.model, after.encoder)
    assert before.manifest.learned.calibration != after.manifest.learned.calibration
    assert before.manifest.learned.thresholds != after.manifest.learned.thresholds


def test_validation_a_chooses_the_model_and_sets_no_threshold(
    bench: Any, new_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_all = training.fit_candidates
    monkeypatch.setattr(training, "fit_candidates", lambda *a, **k: [c for c in fit_all(*a, **k) if c.kind == "linear"])
    before, after = (trained(one) for one in (bench, changed(bench, new_bench, other_population, "validation_a")))
    assert before.candidates != after.candidates
    assert before.bundle.version == after.bundle.version


def test_rows_in_the_label_delays_are_used_by_nobody(bench: Any, new_bench: Any) -> None:
    split = split_of(bench.installation.source, bench.installation.transformed())
    used = [(block.start, block.end) for block in (split.training, split.validation_a, split.validation_b, split.holdout)]
    in_use = pl.any_horizontal(pl.col("timestamp").is_between(start, end, closed="left") for start, end in used)
    other = new_bench()
    dropped = 0
    for key, frame in bench.rows().items():
        # The very last row stays: it tells how far the data goes.
        stays = in_use | (pl.col("timestamp") == frame["timestamp"].max())
        dropped += len(frame.filter(~stays & pl.col("label")))
        other.put(
            key, pl.concat([frame.filter(stays), other_population(frame.filter(~stays)).select(frame.columns)]).sort("timestamp")
        )
    assert dropped > 20
    before, after = trained(bench), trained(other)
    assert before.bundle.version == after.bundle.version
    assert before.holdout.average_precision == after.holdout.average_precision


def test_the_holdout_is_read_once_and_after_the_model_is_chosen(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    read = training.read_rows
    split = split_of(bench.installation.source, bench.installation.transformed())

    def spy(artifacts: Any, partitions: Any, block: Block) -> Any:
        events.append("hold-out" if block == split.holdout else "validation")
        return read(artifacts, partitions, block)

    monkeypatch.setattr(training, "read_rows", spy)
    trained(bench, events.append)
    assert events.count("hold-out") == 1
    assert "looking at the hold-out" in events[events.index("hold-out") - 1]
    assert events[-1] == "hold-out"


def test_shuffled_labels_give_an_average_precision_near_the_fraud_rate(new_bench: Any) -> None:
    bench = new_bench()
    rng = np.random.default_rng(12)
    for key, frame in bench.rows(rows=2_500).items():
        bench.put(key, frame.with_columns(pl.Series("label", rng.permutation(frame["label"].to_numpy()))))
    # Nothing can be learned, so calibration refuses wherever chance sends its slope below zero; here it does not.
    report = trained(bench).holdout
    assert report.frauds > 100
    assert 0.6 * report.fraud_rate < report.average_precision < 1.6 * report.fraud_rate
    assert 0.4 < report.roc_auc < 0.6


def test_the_same_rows_with_their_labels_are_far_above_the_fraud_rate(bench: Any) -> None:
    report = trained(bench).holdout
    assert report.average_precision > 5 * report.fraud_rate


# ---- a second model, without history


@pytest.fixture
def remembering(new_bench: Any) -> Any:
    """Six months whose cards are busy before a fraud."""
    kept = {"card_count_1d", "seconds_since_last"}
    others = tuple(feature.name for feature in history_features.HISTORY if feature.name not in kept)
    bench = new_bench(history={}, history_days=2, excluded_features=others)
    rng = np.random.default_rng(4)
    for key, frame in bench.rows().items():
        busy = rng.poisson(1 + 4 * frame["label"].to_numpy()).astype(np.int64)
        past = {"card_count_1d": busy, "seconds_since_last": np.where(busy > 0, 86_400 / (busy + 1), np.nan)}
        bench.put(key, frame.with_columns(pl.Series(name, values, nan_to_null=True) for name, values in past.items()))
    return bench


def test_beside_a_model_that_uses_history_there_is_one_that_does_not(remembering: Any) -> None:
    model = trained(remembering)
    learned, plain = model.bundle.manifest.learned, model.bundle.without_history
    assert {"card_count_1d", "seconds_since_last"} <= set(learned.features)
    assert learned.lookback == Lookback(history_days=2, label_delay_days=5)
    assert plain is not None
    columns = {column.feature: column for column in model.bundle.encoder.columns}  # encoded as in the first
    assert plain.encoder.columns == tuple(columns[feature.name] for feature in catalogue.PLAIN)


def test_the_second_model_is_the_one_that_a_source_without_history_gets(remembering: Any, new_bench: Any) -> None:
    model = trained(remembering)
    without = new_bench()
    for key in remembering.rows():
        without.put(key, remembering.installation.artifacts.scan("transformed", key).collect())
    alone = trained(without)
    assert alone.fallback is None
    assert model.fallback is not None
    assert alone.candidates == model.fallback.candidates
    assert dict(model.bundle.fallback) == {name: getattr(alone.bundle, name) for name in Fitted.model_fields}
    assert (alone.validation.average_precision, alone.holdout.average_precision) == pytest.approx(
        (model.fallback.validation, model.fallback.holdout)
    )
    assert model.fallback.holdout < model.holdout.average_precision


def test_columns_that_nothing_can_be_learned_from_are_in_neither_model_and_named_with_the_reason(remembering: Any) -> None:
    bench = remembering
    for key in bench.rows():
        frame = bench.installation.artifacts.scan("transformed", key).collect()
        copied = pl.col("age").fill_null(0).alias("distance"), pl.col("age").fill_null(0)
        nothing = pl.lit(None, pl.Float64).alias("seconds_since_last")
        bench.put(key, frame.with_columns(*copied, nothing, pl.lit(7, pl.Int64).alias("city_population")))
    model = trained(bench)
    lineage, plain = model.bundle.manifest.lineage, model.bundle.without_history
    assert lineage.dropped_columns == {
        "distance": "the same as age in every training row",
        "city_population": "constant among the training rows",
        "seconds_since_last": "missing in every training row",
    }
    assert plain is not None
    for encoder in (model.bundle.encoder, plain.encoder):
        assert "age" in encoder.features
        assert not set(encoder.features) & set(lineage.dropped_columns)
    promotion = Promotion(promoted=True, reasons=("It is the first.",))
    told = to_markdown(model_card(model, bench.installation.training_set(), promotion, datetime(2024, 8, 1, tzinfo=UTC)))
    assert all(f"| `{name}` | {reason} |" in told for name, reason in lineage.dropped_columns.items())


def test_without_any_column_of_the_payment_itself_nothing_is_fitted(new_bench: Any) -> None:
    empty = new_bench()
    constant = [pl.lit(1, feature.dtype).alias(feature.name) for feature in catalogue.PLAIN if not feature.is_category]
    for key, frame in empty.rows().items():
        empty.put(key, frame.with_columns(*constant, pl.lit("a").alias("category")))
    with pytest.raises(FeatureError, match="log_amount is constant among the training rows"):
        preprocessor(empty)


def test_a_wide_table_trains_on_fewer_rows_and_every_fraud(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trained(bench)
    monkeypatch.setattr(rows, "WIDE", 2)
    narrow = trained(bench.with_settings(max_training_rows=2_000))
    side, whole = narrow.sides["training"], before.sides["training"]
    assert side.frauds == whole.frauds
    assert side.rows < whole.rows / 2
    assert side.rows == pytest.approx(2_000 * 2 / len(narrow.bundle.encoder.features), rel=0.2)
    assert narrow.bundle.version == trained(bench.with_settings(max_training_rows=2_000)).bundle.version


def test_the_card_says_how_well_the_second_model_does(remembering: Any) -> None:
    bench, model = remembering, trained(remembering)
    promotion = Promotion(promoted=True, reasons=("It is the first.",))
    card = model_card(model, bench.installation.training_set(), promotion, datetime(2024, 8, 1, tzinfo=UTC))
    assert card.fallback is not None
    assert card.fallback.candidates[0].chosen
    assert card.fallback.features == model.bundle.manifest.learned.fallback.features
    assert f"**{card.fallback.holdout:.4f}** on the hold-out" in to_markdown(card)
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


# ---- the same again


def test_neither_threads_nor_the_card_key_change_the_version(bench: Any, new_bench: Any) -> None:
    rehashed = new_bench(settings={"threads": 2, "card_key": "0f" * 32})
    for key, frame in bench.rows().items():
        rehashed.put(key, frame.with_columns(("another key " + pl.col("card")).hash(seed=1).cast(pl.String).alias("card")))
    assert rehashed.installation.card_key.id != bench.installation.card_key.id
    before, after = trained(bench), trained(rehashed)
    assert before.bundle.version == after.bundle.version
    assert before.holdout == after.holdout


def test_thinned_training_rows_give_the_same_version_again(bench: Any) -> None:
    thin = bench.with_settings(max_training_rows=1_000)
    versions = {trained(thin).bundle.version for _ in range(2)}
    assert len(versions) == 1
    assert trained(bench).bundle.version not in versions


def test_inputs_change_with_what_a_training_depends_on_and_with_nothing_else(bench: Any) -> None:
    def inputs(one: Any) -> str:
        return task(one).inputs

    before = inputs(bench)
    assert inputs(bench.with_settings(threads=7, promotion_margin=0.5, api_port=1)) == before
    for name, value in {"seed": 1, "max_training_rows": 1_234, "review_capacity": 3, "min_holdout_frauds": 21}.items():
        assert inputs(bench.with_settings(**{name: value})) != before
    frame = bench.rows()["2024-02"]
    bench.put("2024-02", frame.with_columns(pl.col("age") + 1))
    assert inputs(bench) != before


# ---- too little


def without_frauds(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.lit(False).alias("label"))


@pytest.mark.parametrize(
    ("side", "named"),
    [
        ("training", "training rows hold 0 frauds"),
        ("validation_a", "validation block A hold 0 frauds"),
        ("validation_b", "validation block B hold 0 frauds"),
        ("holdout", "hold-out holds 0 frauds"),
    ],
)
def test_a_side_without_fraud_is_an_error_that_names_it(bench: Any, new_bench: Any, side: Side, named: str) -> None:
    other = changed(bench, new_bench, without_frauds, side)
    with pytest.raises(HoldoutError, match=named):
        trained(other)


def test_a_holdout_of_fraud_alone_is_an_error(bench: Any, new_bench: Any) -> None:
    other = changed(bench, new_bench, lambda frame: frame.with_columns(pl.lit(True).alias("label")), "holdout")
    with pytest.raises(HoldoutError):
        trained(other)


def test_too_few_frauds_for_a_figure_are_an_error(bench: Any) -> None:
    with pytest.raises(HoldoutError, match="at least 1000"):
        trained(bench.with_settings(min_holdout_frauds=1_000))


def test_too_short_a_history_is_not_yet_trainable(new_bench: Any) -> None:
    bench = new_bench()
    bench.fill({key: frame for key, frame in bench.rows().items() if key < "2024-05"})
    with pytest.raises(NotYetTrainableError, match=r"from 2024-01-01 to 2024-05-01.* need 19 more"):
        preprocessor(bench)


# ---- which partitions


def held_out_longer(bench: Any, days: int) -> Any:
    """The same installation with a hold-out of so many days, which end with June less the label delay."""
    split = bench.installation.source.split.model_copy(update={"holdout_days": days, "validation_days": 20})
    return bench.with_source(bench.installation.source.model_copy(update={"split": split}))


def test_a_rejected_partition_trains_nothing_and_stays_in_the_holdout(new_bench: Any) -> None:
    bench, clean = held_out_longer(new_bench(), 50), held_out_longer(new_bench(), 50)
    rows = bench.rows()
    rows["2024-05"] = other_population(rows["2024-05"]).select(rows["2024-05"].columns)
    model = trained(bench.fill(rows, rejected=("2024-02", "2024-05")))
    lineage = model.bundle.manifest.lineage
    assert [name for name, _, _ in lineage.partitions] == ["2024-01", "2024-03", "2024-04", "2024-06"]
    assert [name for name, _ in lineage.rejected] == ["2024-02", "2024-05"]

    without = trained(clean.fill({key: frame for key, frame in rows.items() if key != "2024-02"}))
    assert model.sides["training"] == without.sides["training"]
    assert model.holdout.rows == without.holdout.rows


def test_a_rejected_partition_chooses_and_calibrates_nothing(new_bench: Any) -> None:
    bench = new_bench()
    model = trained(bench.fill(bench.rows(), rejected=("2024-04",)))
    for side in ("validation_a", "validation_b"):
        block = model.split.side(side)
        lies = {
            key: frame["timestamp"].is_between(block.start, block.end, closed="left").sum() for key, frame in bench.rows().items()
        }
        assert lies["2024-04"] > 100
        assert model.sides[side].rows == sum(lies.values()) - lies["2024-04"]


def test_the_holdout_is_also_reported_without_its_rejected_rows(new_bench: Any) -> None:
    bench = held_out_longer(new_bench(), 50)
    rows = bench.rows()
    model = trained(bench.fill(rows, rejected=("2024-05",)))
    block = model.split.holdout
    lies = {key: frame["timestamp"].is_between(block.start, block.end, closed="left").sum() for key, frame in rows.items()}
    assert model.holdout.rows == lies["2024-05"] + lies["2024-06"]
    assert model.holdout_without_rejected is not None
    assert model.holdout_without_rejected.rows == lies["2024-06"] > 500
    assert trained(held_out_longer(new_bench(), 50).fill(rows)).holdout_without_rejected is None


def test_a_rejected_partition_that_comes_last_changes_nothing(bench: Any) -> None:
    before, inputs = trained(bench), task(bench).inputs
    july = bench.rows()["2024-06"].with_columns(pl.col("timestamp") + pl.duration(days=30))
    bench.put("2024-07", july, accepted=False)
    assert task(bench).inputs == inputs
    after = trained(bench)
    assert (after.bundle.version, after.split) == (before.bundle.version, before.split)
    bench.put("2024-07", july)
    assert trained(bench).split != before.split


def test_a_preprocessor_of_other_partitions_is_refused(bench: Any) -> None:
    fitted = preprocessor(bench)
    frame = bench.rows()["2024-01"]
    bench.put("2024-01", frame, accepted=False)
    with pytest.raises(GateRefusalError, match="materialize preprocessor, then model"):
        train(task(bench), fitted, print)


def test_a_preprocessor_of_another_split_is_refused(bench: Any) -> None:
    fitted = preprocessor(bench)
    other = held_out_longer(bench, 25)
    with pytest.raises(GateRefusalError, match="another split"):
        train(task(other), fitted, print)
    assert trained(other).split != fitted.split


# ---- by cardholder


def test_split_by_cardholder_no_card_is_on_two_sides_and_time_has_no_figures(new_bench: Any) -> None:
    bench = new_bench(split={"protocol": "cardholder", "validation_share": 0.2, "holdout_share": 0.25})
    model = trained(bench.fill(bench.rows()))
    everything = pl.concat(list(bench.rows().values()))
    sides = {}
    for name, count in model.sides.items():
        block = model.split.side(name)
        inside = everything.filter(pl.col("split_bucket").is_between(block.low, block.high, closed="left"))
        assert len(inside) == count.rows
        sides[name] = set(inside["card"])
    assert sum(map(len, sides.values())) == len(set.union(*sides.values())) == everything["card"].n_unique()
    assert model.holdout.months == ()
    assert model.holdout.card_precision_at_100 is None
    assert model.holdout.fraud_cards is not None


# ---- what is said about it


def test_looks_at_a_holdout_are_counted_by_model(bench: Any) -> None:
    first, again = trained(bench), trained(bench)
    other = trained(bench.with_settings(review_capacity=1))
    assert (first.holdout_looks, again.holdout_looks, other.holdout_looks) == (1, 1, 2)
    assert first.holdout_id == other.holdout_id
    frame = bench.rows()["2024-06"]
    bench.put("2024-06", frame.with_columns(pl.col("age") + 1))
    assert trained(bench).holdout_looks == 1


def test_review_comes_before_decline_and_keeps_to_the_capacity(bench: Any) -> None:
    model = trained(bench.with_settings(review_capacity=2))
    thresholds = model.bundle.manifest.learned.thresholds
    assert 0 < thresholds.review <= thresholds.decline
    alerts = model.validation.at_review.alerts
    first, last = model.validation.first_day, model.validation.last_day
    assert first is not None
    assert last is not None
    assert 0 < alerts <= 2 * ((last - first).days + 1)


def test_a_bundle_holds_what_was_learned_and_nothing_personal(bench: Any) -> None:
    model = trained(bench)
    text = json.dumps(model.bundle.manifest.model_dump(mode="json")) + model.bundle.encoder.model_dump_json()
    cards = set(pl.concat(list(bench.rows().values()))["card"])
    assert not cards & set(re.findall(r"\w+", text))


# ---- a new kind of model


class LargestAmounts(Kind):
    """A kind that nobody has thought of: the larger the first column, the more it looks like fraud."""

    name, suffix, unit = "largest_amounts", "txt", "log-odds"

    def recipe(self) -> str:
        return "none"

    def fit(self, training: Examples, validation: Examples, *, seed: int, threads: int) -> Iterator[tuple[str, Any]]:
        yield "largest amounts", float(training.X[:, 0].mean())

    def export(self, estimator: Any) -> bytes:
        return str(estimator).encode()

    def load(self, data: bytes, threads: int = 1) -> MarginModel:
        return SimpleNamespace(margins=lambda X: X[:, 0] - float(data))

    def explain(self, data: bytes, columns: int) -> Attribution:
        return SimpleNamespace(base=0.0, attribute=lambda X: (X - float(data)) * (np.arange(columns) == 0))


def test_a_new_kind_of_model_is_one_class_that_trains_ships_scores_and_explains(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = candidates.recipe()
    for name in list(KINDS):
        monkeypatch.delitem(KINDS, name)
    monkeypatch.setitem(KINDS, "largest_amounts", LargestAmounts())
    assert candidates.recipe() != before
    model = trained(bench)
    assert model.candidates[0][0] == "largest amounts"
    assert model.holdout.average_precision > 3 * model.holdout.fraud_rate
    store, key = bench.installation.artifacts.store, bench.installation.artifacts.signing_key
    write_bundle(store, model.bundle, key)
    assert versions(store, key) == [model.bundle.version]
    assert store.exists(f"models/{model.bundle.version}/model.txt")
    read = read_bundle(store, model.bundle.version, key)
    assert (read, read.kind) == (model.bundle, "largest_amounts")
    rows = bench.rows()["2024-06"]
    matrix = read.encoder.frame_matrix(rows)
    log_odds = np.log(1 / (1 / Scorer(read).score_features(rows) - 1))
    base, contributions = Explainer(read).contributions(matrix)
    np.testing.assert_allclose(base + contributions.sum(axis=1), log_odds, atol=1e-6)
    monkeypatch.undo()
    with pytest.raises(IntegrityError, match="another version wrote it"):
        read_bundle(store, model.bundle.version, key)
