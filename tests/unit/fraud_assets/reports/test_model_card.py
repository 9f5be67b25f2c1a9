"""The card tells a person what to trust and what not, and survives being stored."""

import re
from datetime import UTC, datetime

import numpy as np
import pytest
from pydantic import ValidationError

from fraud_assets.reports.model_card import to_markdown
from fraud_core.evaluation.intervals import Interval
from fraud_core.evaluation.metrics import NEVER
from fraud_core.evaluation.model_card import (
    Block,
    Candidate,
    DroppedFeature,
    Fallback,
    ModelCard,
    Promotion,
    RejectedPartition,
    TrainingPartition,
)
from fraud_core.evaluation.report import EvaluationRows, Policy, evaluate

POLICY = Policy(
    review_threshold=0.05,
    decline_threshold=NEVER,
    review_cost=4.5,
    false_decline_cost=30.0,
    label_delay_days=9,
    draws=100,
    seed=1,
    min_frauds=30,
)

REASON = "a | known <b>sale</b>\nin March"


def block(cards: int | None = 300) -> EvaluationRows:
    generator = np.random.default_rng(3)
    n = 4_000
    scores = 1 / (1 + np.exp(-generator.normal(-5, 2.5, n)))
    day = 18_400 + np.sort(generator.integers(0, 60, n))
    return EvaluationRows(
        labels=generator.random(n) < scores,
        scores=scores,
        amounts_cents=generator.integers(100, 50_000, n),
        cards=None if cards is None else generator.integers(0, cards, n),
        local_day=day,
        month=np.datetime_as_string(day.astype("datetime64[D]"), unit="M"),
    )


@pytest.fixture(scope="module")
def card() -> ModelCard:
    report = evaluate(block(), POLICY)
    return ModelCard(
        version="ab12cd34",
        source="simulated",
        created=datetime(2025, 3, 1, 12, 30, tzinfo=UTC),
        kind="gradient boosting",
        candidates=(
            Candidate(kind="logistic regression", average_precision=0.31, chosen=False),
            Candidate(kind="gradient boosting", average_precision=0.44, chosen=True),
        ),
        candidates_fraud_rate=0.0123,
        features=("log_amount", "hour"),
        dropped_features=(DroppedFeature(name="age", reason="the source has no birth date"),),
        partitions=(
            TrainingPartition(key="2024-01", content_hash="aaaa1111", verdict="bootstrap"),
            TrainingPartition(key="2024-02", content_hash="bbbb2222", verdict="accepted"),
            TrainingPartition(
                key="2024-03",
                content_hash="cccc3333",
                verdict="accepted_by",
                accepted_by="ada",
                reason=REASON,
            ),
        ),
        rejected_partitions=(RejectedPartition(key="2024-04", content_hash="dddd4444", reason="log_amount drifted"),),
        split=(Block(name="training", begin="2024-01-01", end="2024-06-01", rows=10_000, frauds=51),),
        policy=POLICY,
        validation=report,
        holdout=report,
        holdout_without_rejected=None,
        holdout_looks=1,
        promotion=Promotion(
            promoted=True,
            reasons=("its lower end lies above -0.01",),
            champion="00ff00ff",
            difference=0.0123,
            interval=Interval(-0.002, 0.027),
        ),
    )


def sections(markdown: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_a_card_survives_json(card: ModelCard):
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


def test_the_moment_of_creation_needs_a_time_zone(card: ModelCard):
    with pytest.raises(ValidationError, match="timezone"):
        ModelCard.model_validate(card.model_dump() | {"created": datetime(2025, 3, 1)})  # noqa: DTZ001 - what is refused


def test_the_fraud_rate_stands_beside_every_average_precision(card: ModelCard):
    markdown = to_markdown(card)
    named = [name for name, text in sections(markdown).items() if re.search(r"average precision[^.]*\d", text, re.IGNORECASE)]
    assert {"How well it does", "Promotion", "The hold-out, month by month", "Candidates"} <= set(named)
    for name in named:
        assert re.search(r"fraud rate", sections(markdown)[name], re.IGNORECASE), name
    summary = markdown.split("## ")[0]
    assert f"{card.holdout.average_precision:.4f}" in summary
    assert f"{100 * card.holdout.fraud_rate:.3g} %" in summary
    assert "| gradient boosting | 0.4400 | 1.23 % | chosen |" in markdown


def test_validation_and_holdout_stand_side_by_side_and_without_rejected_partitions_if_there_were_any(card: ModelCard):
    assert "|  | Validation B | Hold-out |\n" in to_markdown(card)
    beside = to_markdown(card.model_copy(update={"holdout_without_rejected": card.holdout}))
    assert "| Hold-out | Hold-out without rejected partitions |" in beside


def test_every_table_is_rectangular_whatever_people_wrote_as_reason(card: ModelCard):
    markdown = to_markdown(card)
    tables = re.findall(r"(?:^\|.*\|\n?)+", markdown, flags=re.MULTILINE)
    assert len(tables) == 8
    for table in tables:
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}
        assert len(widths) == 1, table
    assert "accepted by ada: a \\| known &lt;b&gt;sale&lt;/b&gt; in March" in markdown


def test_partitions_are_listed_with_content_and_verdict_and_rejected_ones_with_the_reason(card: ModelCard):
    data = sections(to_markdown(card))["Data"]
    assert "| 2024-01 | `aaaa1111` | accepted unjudged, among the first |" in data
    assert "| 2024-02 | `bbbb2222` | accepted |" in data
    assert "| 2024-04 | `dddd4444` | log_amount drifted |" in data
    none = to_markdown(card.model_copy(update={"rejected_partitions": ()}))
    assert "rejected no partition" in none


def test_the_card_says_how_often_the_holdout_has_been_looked_at(card: ModelCard):
    assert "first model that was measured on this hold-out" in to_markdown(card)
    assert "looked at 7 times" in to_markdown(card.model_copy(update={"holdout_looks": 7}))


def test_the_caveats_name_the_costs_the_delay_and_the_ceiling(card: ModelCard):
    caveats = sections(to_markdown(card))["What these figures do not say"]
    for said in ("bootstrap over cards (100 draws)", "review costs 4.5", "false decline 30", "once 9 days", "ceiling"):
        assert said in caveats
    assert "too few to trust" not in caveats


def test_the_card_warns_where_frauds_lie_on_few_cards_and_where_there_are_no_cards(card: ModelCard):
    few = to_markdown(card.model_copy(update={"holdout": evaluate(block(cards=20), POLICY)}))
    assert "on only 20 cards, too few to trust the interval" in few
    without = sections(to_markdown(card.model_copy(update={"holdout": evaluate(block(cards=None), POLICY)})))
    assert "bootstrap over transactions" in without["What these figures do not say"]
    assert "the interval is then too narrow" in without["What these figures do not say"]
    assert "Handbook" not in without["What these figures do not say"]


def test_a_model_that_never_declines_and_was_not_promoted_says_so(card: ModelCard):
    refused = Promotion(promoted=False, reasons=("its lower end is 3 times the fraud rate, 5 are asked",))
    markdown = to_markdown(card.model_copy(update={"promotion": refused}))
    assert "declined from **never** on" in markdown
    assert "**not** promoted" in markdown
    assert "- its lower end is 3 times the fraud rate, 5 are asked" in sections(markdown)["Promotion"]


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [("<img src=x> `|\n# loud", "&lt;img src=x&gt; '\\| # loud"), ("shop 4111 1111 1111 1111", "(looks like a card number)")],
)
def test_whatever_comes_from_outside_stays_text_on_its_line(card: ModelCard, hostile: str, shown: str):
    fallback = Fallback(kind=hostile, features=(), candidates=card.candidates, validation=0.1, holdout=0.2)
    quiet = card.model_copy(update={"fallback": fallback.model_copy(update={"kind": "linear"})})
    promotion = card.promotion.model_copy(update={"reasons": (hostile,), "champion": hostile})
    split = (card.split[0].model_copy(update={"name": hostile}),)
    loud = {"version": hostile, "source": hostile, "features": (hostile, "hour"), "promotion": promotion, "split": split}
    markdown = to_markdown(card.model_copy(update={**loud, "fallback": fallback}))
    assert markdown.count(shown) == 7
    assert "<img" not in markdown
    assert "4111" not in markdown
    assert len(markdown.splitlines()) == len(to_markdown(quiet).splitlines())
