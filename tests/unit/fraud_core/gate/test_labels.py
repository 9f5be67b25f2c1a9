"""What the judgement of labels promises: wrong ones are held, honest ones are not, and new fraud waits for a person once."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fraud_core.errors import GateRefusalError
from fraud_core.gate.labels import (
    Labelled,
    LabelVerdict,
    decide_labels,
    decide_on_labels,
    judge_labels,
    label_verdict_key,
    label_verdict_of,
    record_labels,
)
from fraud_core.gate.verdict import Decision, PartitionRef
from fraud_core.settings import Settings
from fraud_core.signing.keys import Key
from fraud_core.storage.database import open_database
from fraud_core.storage.directory import DirectoryStore
from fraud_core.storage.heads import Heads

NOW = datetime(2024, 6, 1, tzinfo=UTC)
MATURE = datetime(2024, 5, 1, tzinfo=UTC)
ROWS, RATE = 20_000, 0.005
YES = Decision(action="accept", who="me", reason="it is right", at=NOW)


def payments(seed: int, frauds: int = 100, new_kind: int = 0) -> tuple[Any, Any]:
    """Labels, and a champion's scores: of frauds high, of legitimate payments and of frauds of a new kind low."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(ROWS, dtype=bool)
    labels[: frauds + new_kind] = True
    scores = rng.normal(size=ROWS)
    scores[:frauds] += 3
    return labels, scores


def judged(
    labels: Any,
    scores: Any,
    before: LabelVerdict | None = None,
    snapshot: str = "s",
    *,
    champion: str = "v",
    accepted_falls: tuple[float, ...] = (),
) -> LabelVerdict:
    now = Labelled(
        ref=PartitionRef(partition="p", content="c"),
        snapshot=snapshot,
        ids=[f"t{n}" for n in range(len(labels))],
        labels=labels,
        times=np.zeros(len(labels), dtype=np.int64),
        cards=None,
        mature_before=MATURE,
    )
    return judge_labels(now, scores, "" if scores is None else champion, [RATE] * 6, [0.98] * 6, before, NOW, accepted_falls)


def names(verdict: LabelVerdict) -> list[str]:
    return [finding.name for finding in verdict.findings]


def test_honest_labels_are_not_held() -> None:
    assert [names(judged(*payments(seed, frauds))) for seed, frauds in enumerate((40, 50, 60, 100, 200, 300))] == [[]] * 6


def test_a_few_frauds_prove_nothing() -> None:
    labels, scores = (values[:2_000] for values in payments(1, frauds=0))
    labels[np.argsort(scores)[:3]] = True  # the three that the champion trusts most
    assert names(judged(labels, scores)) == []


@pytest.mark.parametrize("is_scored", [True, False])
def test_inverted_labels_are_held_with_a_champion_and_without(is_scored: bool) -> None:
    labels, scores = payments(2)
    verdict = judged(~labels, scores if is_scored else None)
    assert verdict.is_held
    assert names(verdict) == (["impossible_rate", "reversed"] if is_scored else ["impossible_rate"])
    assert "fraud accept p" in verdict.explain()


def test_frauds_set_at_random_at_a_normal_rate_are_held() -> None:
    labels, scores = payments(3)
    assert names(judged(np.random.default_rng(9).permutation(labels), scores)) == ["unrelated"]


def test_frauds_that_are_all_taken_away_are_held() -> None:
    labels, scores = payments(4)
    assert names(judged(labels & False, scores)) == ["impossible_rate"]


def test_labels_that_were_known_and_are_turned_are_held_even_after_an_acceptance_for_another_reason() -> None:
    labels, scores = payments(5, frauds=60, new_kind=60)
    first = decide_labels(judged(labels, scores), YES)
    assert not first.is_held
    fewer = labels.copy()
    fewer[:50] = False  # of 120 known frauds, 50 are taken back
    turned = judged(fewer, scores, first, "t")
    assert "flipped" in names(turned)
    assert turned.is_held
    assert decide_labels(turned, YES).is_held is False
    assert decide_labels(turned, YES.model_copy(update={"action": "refuse"})).is_held


def test_a_new_kind_of_fraud_waits_for_one_acceptance_and_then_for_none() -> None:
    labels, scores = payments(6, frauds=60, new_kind=40)
    held = judged(labels, scores)
    assert names(held) == ["fall"]
    accepted = decide_labels(held, YES)
    assert not accepted.is_held
    more, scores = payments(6, frauds=60, new_kind=55)  # labels go on coming in
    assert not judged(more, scores, accepted, "later").is_held


def test_where_the_champion_knows_a_fraud_no_better_than_one_that_was_accepted_the_next_partition_is_not_held() -> None:
    held = judged(*payments(6, frauds=60, new_kind=40))
    assert held.auc is not None
    accepted = decide_labels(held, YES)
    assert accepted.is_accepted_fall
    assert not held.is_accepted_fall
    assert names(judged(*payments(7, frauds=60, new_kind=40), accepted_falls=(held.auc,))) == []
    assert names(judged(*payments(8, frauds=60, new_kind=200), accepted_falls=(held.auc,))) == ["unrelated"]


@pytest.mark.parametrize(
    ("wrong", "finding"),
    [("inverted", ["impossible_rate", "reversed"]), ("at random", ["unrelated"]), ("half known", []), ("honest", [])],
)
def test_without_a_champion_labels_are_judged_by_what_the_other_partitions_teach(wrong: str, finding: list[str]) -> None:
    labels, scores = payments(9, frauds=100, new_kind=100 if wrong == "half known" else 0)
    labels = {"inverted": ~labels, "at random": np.random.default_rng(3).permutation(labels)}.get(wrong, labels)
    verdict = judged(labels, scores, champion="")
    assert names(verdict) == finding
    assert "by the champion" not in verdict.explain()


def test_most_payments_are_no_fraud_even_where_nothing_else_is_known() -> None:
    labels, _ = payments(10)
    now = Labelled(
        PartitionRef(partition="p", content="c"),
        "s",
        [f"t{n}" for n in range(ROWS)],
        ~labels,
        np.zeros(ROWS, dtype=np.int64),
        None,
        MATURE,
    )
    assert names(judge_labels(now, None, "", [], [], None, NOW)) == ["impossible_rate"]


def test_an_old_verdict_on_labels_that_is_put_back_is_refused_where_a_newer_one_was_seen(tmp_path: Path) -> None:
    store, key = DirectoryStore(tmp_path / "store"), Key(b"k" * 32)
    heads = Heads(open_database(Settings(_env_file=None, home=tmp_path / "home")), store.url)
    first = record_labels(store, key, judged(*payments(1)), heads)
    old = store.get(label_verdict_key("p"))
    newer = record_labels(store, key, first.model_copy(update={"snapshot": "t"}), heads)
    assert (first.sequence, newer.sequence) == (1, 2)
    assert label_verdict_of(store, key, "p", heads).follow() == newer

    store.put(label_verdict_key("p"), old)
    with pytest.raises(GateRefusalError, match="change 1 of it, and change 2 was seen before: an old one was put back"):
        label_verdict_of(store, key, "p", heads).follow()
    found = label_verdict_of(store, key, "p").read()  # a machine that has seen nothing cannot know
    assert found == first
    decided = record_labels(store, key, decide_labels(first, YES), heads)  # a person's decision is newer than what was seen
    assert decided.sequence == 3
    assert label_verdict_of(store, key, "p", heads).follow() == decided

    store.root.joinpath(label_verdict_key("p")).unlink()
    with pytest.raises(GateRefusalError, match="is gone, of which change 3 was seen"):
        label_verdict_of(store, key, "p", heads).follow()


def test_what_a_person_says_of_labels_while_they_are_judged_is_not_lost(tmp_path: Path) -> None:
    store, key = DirectoryStore(tmp_path / "store"), Key(b"k" * 32)
    first = record_labels(store, key, judged(*payments(1)))
    again = judged(*payments(1), before=first)  # is judged anew, which takes a while
    no = YES.model_copy(update={"action": "refuse"})
    assert decide_on_labels(store, key, "p", first.content, no) is not None
    assert record_labels(store, key, again).is_held
    after = record_labels(store, key, again.model_copy(update={"content": "other"}))
    assert not after.decisions, "it was about that content"
