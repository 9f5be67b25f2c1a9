"""The model's card, filled in from a training."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fraud_assets.operations.judging_models import promotion_of
from fraud_assets.reports.model_card import to_markdown
from fraud_assets.training.card import model_card
from fraud_assets.training.training import TrainedModel
from fraud_core import gate
from fraud_core.evaluation.model_card import ModelCard

NOW = datetime(2024, 8, 1, tzinfo=UTC)
Make = Callable[..., TrainedModel]


def card(bench: Any, model: TrainedModel) -> ModelCard:
    return model_card(model, bench.installation.training_set(), promotion_of(bench.installation, model, NOW), NOW)


def decide(bench: Any, key: str, *, accept: bool) -> None:
    store, signing_key = bench.installation.artifacts.store, bench.installation.artifacts.signing_key
    content = bench.installation.transformed()[key].content
    (gate.accept if accept else gate.refuse)(store, signing_key, key, content, who="unverified:kim", reason="a new shop", now=NOW)


def test_every_partition_is_on_the_card_with_how_it_passed_the_gate(new_bench: Any, make_model: Make) -> None:
    bench = new_bench()
    bench.fill(bench.rows(), rejected=("2024-02", "2024-03"))
    decide(bench, "2024-03", accept=True)
    decide(bench, "2024-04", accept=False)
    made = card(bench, make_model(bench, log_amount=1.0))
    assert [part.key for part in made.partitions] == ["2024-01", "2024-03", "2024-05", "2024-06"]
    accepted = {part.key: part for part in made.partitions}
    assert (accepted["2024-01"].verdict, accepted["2024-01"].accepted_by) == ("accepted", None)
    assert (accepted["2024-03"].verdict, accepted["2024-03"].accepted_by) == ("accepted_by", "unverified:kim")
    assert accepted["2024-03"].reason == "a new shop"
    rejected = {part.key: part for part in made.rejected_partitions}
    assert set(rejected) == {"2024-02", "2024-04"}
    assert "log_amount has drifted" in rejected["2024-02"].reason
    assert "refused by unverified:kim (a new shop)" in rejected["2024-04"].reason
    contents = {key: pointer.content for key, pointer in bench.installation.transformed().items()}
    assert {part.key: part.content_hash for part in (*made.partitions, *made.rejected_partitions)} == contents


def test_the_chosen_candidate_stands_first_and_alone(bench: Any, make_model: Make) -> None:
    made = card(bench, make_model(bench, log_amount=1.0))
    assert [(one.kind, one.chosen) for one in made.candidates] == [("linear", True), ("random forest", False)]
    assert made.kind == "linear"


def test_sides_carry_their_borders_and_their_counts(bench: Any, make_model: Make) -> None:
    model = make_model(bench, log_amount=1.0)
    blocks = {block.name: block for block in card(bench, model).split}
    assert list(blocks) == ["training", "validation a", "validation b", "holdout"]
    assert model.split.holdout.start is not None
    assert blocks["holdout"].begin == model.split.holdout.start.isoformat()
    assert blocks["holdout"].frauds == model.sides["holdout"].frauds


def test_sides_of_cardholders_are_told_in_buckets(new_bench: Any, make_model: Make) -> None:
    bench = new_bench(split={"protocol": "cardholder", "validation_share": 0.2, "holdout_share": 0.25})
    blocks = {block.name: block for block in card(bench, make_model(bench.fill(bench.rows()), log_amount=1.0)).split}
    assert (blocks["holdout"].begin, blocks["holdout"].end) == ("bucket 0", "bucket 250")


def test_a_feature_that_the_source_cannot_give_is_named_with_what_it_needs(new_bench: Any, make_model: Make) -> None:
    bare = {"timestamp": {"column": "timestamp"}, "amount": "amount", "label": {"column": "label"}, "card": "card"}
    bench = new_bench(columns=bare)
    made = card(bench, make_model(bench.fill(bench.rows()), log_amount=1.0))
    reasons = {dropped.name: dropped.reason for dropped in made.dropped_features}
    assert set(reasons) >= {"age", "distance", "category", "city_population"}
    assert "birth_date" in reasons["age"]


def test_the_card_says_whether_and_why_it_was_promoted(bench: Any, make_model: Make) -> None:
    made = card(bench.with_settings(promotion_lift=1.0), make_model(bench, log_amount=1.4, night=2.0))
    assert made.promotion.promoted
    assert "There is no champion yet." in to_markdown(made)
    assert made.created == NOW
