"""What the backlog of reviews promises: the same tests for SQLite (tests/unit) and PostgreSQL (tests/integration).

Whoever takes them over gives a fixture `engine`: a database without tables.
"""

import random
from collections import Counter
from datetime import timedelta
from typing import get_args

from sqlalchemy import Engine

from fraud_core.decisions.log import DecisionLog
from fraud_core.labels.log import LabelLog, NewLabel
from fraud_core.labels.resolve import LabelSource, Outcome, resolve
from fraud_core.review.backlog import ReviewBacklog
from tests.decided import NOON, decided


def word(identity: str, outcome: Outcome, source: LabelSource = "analyst", role: str = "", minutes: int = 0) -> NewLabel:
    at = NOON + timedelta(minutes=minutes)
    return NewLabel(
        transaction_id=identity, outcome=outcome, source=source, author="ann", event_time=NOON, known_at=at, role=role
    )


def test_what_was_judged_takes_no_place_from_what_waits_however_much_it_is(engine: Engine) -> None:
    decisions, labels = DecisionLog(engine, 400), LabelLog(engine)
    backlog = ReviewBacklog(decisions, labels)
    assert backlog.waiting(NOON, (), 9, also_unsure=True) == []  # before there is any table
    decisions.append([decided(f"old{n}", decision="review", probability=0.7, amount_cents=10_000) for n in range(2_000)])
    decisions.append([decided(f"new{n}", decision="review", probability=0.6, amount_cents=100 + n) for n in range(40)])
    decisions.append([decided("own", decision="review", card="beef"), decided("fine"), decided("early", -9, decision="review")])
    labels.append_all([word(f"old{n}", "legitimate" if n else "unsure") for n in range(2_000)])
    found = backlog.waiting(NOON, {"beef"}, 2_000, also_unsure=False)
    assert [one.transaction_id for one in found] == [f"new{n}" for n in reversed(range(40))]
    assert found[0].expected_loss == 0.6 * 139
    assert [one.transaction_id for one in backlog.waiting(NOON, {"beef"}, 1, also_unsure=False)] == ["new39"]
    assert backlog.count_waiting(NOON, {"beef"}, also_unsure=False) == 40
    assert [one.outcome for one in backlog.waiting(NOON, {"beef"}, 2, also_unsure=True)] == ["unsure", None]
    assert backlog.count_waiting(NOON, (), also_unsure=True) == 42
    assert backlog.outcomes(NOON) == {"legitimate": 1_999, "unsure": 1, None: 41}
    second = timedelta(seconds=1)
    assert backlog.judged(NOON, [NOON - second, NOON, NOON + second, NOON + 2 * second]) == [0, 2_000, 0]


def test_the_database_believes_of_each_payment_what_resolve_does(engine: Engine) -> None:
    decisions, labels, rng = DecisionLog(engine, 400), LabelLog(engine), random.Random(4)
    names = [f"t{n}" for n in range(60)]
    words = [
        word(
            rng.choice(names),
            rng.choice(get_args(Outcome)),
            rng.choice(get_args(LabelSource)),
            rng.choice(["", "lead"]),
            rng.randrange(3),
        )
        for _ in range(240)
    ]
    # Some of both came before anybody asked, some after; of some payments the label came first.
    for more, said in ((names[:30], words[:80]), (names[30:], words[80:160]), ([], words[160:])):
        labels.append_all(said)
        decisions.append([decided(name, decision="review") for name in more])
        resolved = {name: resolve(said) for name, said in labels.of(names).items() if decisions.find(name)}
        backlog = ReviewBacklog(decisions, labels)
        assert backlog.outcomes(NOON) == Counter(resolved.values())
        assert {one.transaction_id: one.outcome for one in backlog.waiting(NOON, (), 99, also_unsure=True)} == {
            name: outcome for name, outcome in resolved.items() if outcome in {None, "unsure"}
        }
    assert {"fraud", "legitimate", "unsure", None} == set(resolved.values())


def test_what_expired_or_was_decided_a_second_time_is_no_case(engine: Engine) -> None:
    decisions, labels = DecisionLog(engine, 30), LabelLog(engine)
    backlog = ReviewBacklog(decisions, labels)
    assert backlog.outcomes(NOON) == {}
    decisions.append([decided("old", decision="review"), decided("new", 31 * 24 * 60, decision="review")])
    decisions.append([decided("new", 31 * 24 * 60 + 1, decision="review", amount_cents=900)], answered=True)
    assert decisions.count() == 3
    assert backlog.count_waiting(NOON, (), also_unsure=False) == 2
    assert decisions.expire(NOON + timedelta(days=32)) == 1
    assert [one.amount_cents for one in backlog.waiting(NOON, (), 9, also_unsure=False)] == [1_234]
    assert backlog.outcomes(NOON) == {None: 1}
