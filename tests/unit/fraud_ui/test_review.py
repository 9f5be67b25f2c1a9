"""The review queue: whose turn, whose word, and how it goes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from fraud_core.holder import Served
from fraud_core.stores.claims import Claims
from fraud_core.stores.database import open_database
from fraud_core.stores.decisions import DecisionLog
from fraud_core.stores.labels import LabelLog
from fraud_core.stores.users import Role, User
from fraud_ui import review
from fraud_ui.review import Case, CaseError, ReviewQueue
from tests.conftest import Installation
from tests.desk import CARD, decided

ZONE = ZoneInfo("Europe/Zurich")


def user(name: str, role: Role = "analyst", cards: frozenset[str] = frozenset()) -> User:
    return User(name, role, "", datetime.now(UTC), None, cards)


ANNA, BEN, LEAD = user("anna"), user("ben"), user("lea", "lead")


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def queue(installation: Installation, served: Served) -> Iterator[ReviewQueue]:
    engine = open_database(installation.settings)
    queue = ReviewQueue(DecisionLog(engine, 400), LabelLog(engine), Claims(engine, timedelta(minutes=30)), capacity=50)
    queue.decisions.append([decided(served.scorer, number) for number in range(5)])
    queue.decisions.append([decided(served.scorer, 9, decision="approve")])
    yield queue
    engine.dispose()


def names(cases: list[Case]) -> list[str]:
    return [case.record.transaction_id for case in cases]


def test_the_greatest_expected_loss_comes_first_and_what_was_not_sent_to_review_never(queue: ReviewQueue, now: datetime) -> None:
    assert names(queue.cases(now)) == ["case-004", "case-003", "case-002", "case-001", "case-000"]
    first = queue.take(ANNA, now)
    second = queue.take(BEN, now)
    assert first is not None
    assert second is not None
    assert names([first, second]) == ["case-004", "case-003"]
    assert queue.take(ANNA, now) == first  # until it is labelled or put back
    queue.put_back(ANNA, "case-004")
    third = queue.take(user("carl"), now)
    assert third is not None
    assert third.record.transaction_id == "case-004"


def test_a_label_needs_the_claim_and_bears_its_author(queue: ReviewQueue, now: datetime) -> None:
    with pytest.raises(CaseError, match="do not hold case case-004"):
        queue.label(ANNA, "case-004", "fraud", "", now)
    queue.take(ANNA, now)
    with pytest.raises(CaseError, match="do not hold"):
        queue.label(BEN, "case-004", "fraud", "", now)
    with pytest.raises(CaseError, match="open for more than 30 minutes"):
        queue.label(ANNA, "case-004", "fraud", "", now + timedelta(minutes=31))
    label = queue.label(ANNA, "case-004", "fraud", " seen ", now)
    assert (label.outcome, label.source, label.author, label.role, label.note) == ("fraud", "analyst", "anna", "analyst", "seen")
    assert label.known_at == now
    assert "case-004" not in names(queue.waiting(LEAD, queue.cases(now)))


def test_nobody_is_given_or_judges_a_case_of_a_card_of_his_own(queue: ReviewQueue, now: datetime) -> None:
    owner = user("anna", "lead", frozenset({CARD}))
    assert queue.take(owner, now) is None
    queue.take(ANNA, now)  # before the card was noted
    for judge in (queue.label, queue.overrule):
        with pytest.raises(CaseError, match="card of your own"):
            judge(owner, "case-004", "legitimate", "mine", now)


def test_an_unsure_case_goes_to_a_lead(queue: ReviewQueue, now: datetime) -> None:
    queue.take(ANNA, now)
    queue.label(ANNA, "case-004", "unsure", "", now)
    assert "case-004" not in names(queue.waiting(BEN, queue.cases(now)))
    taken = queue.take(LEAD, now)
    assert taken is not None
    assert (taken.record.transaction_id, taken.outcome) == ("case-004", "unsure")
    queue.label(LEAD, "case-004", "fraud", "", now)
    assert {case.record.transaction_id: case.outcome for case in queue.cases(now)}["case-004"] == "fraud"


def test_a_lead_overrules_with_a_reason_and_what_was_said_stays(queue: ReviewQueue, now: datetime) -> None:
    queue.take(ANNA, now)
    queue.label(ANNA, "case-004", "fraud", "", now)
    with pytest.raises(CaseError, match="Say in the note why"):
        queue.overrule(LEAD, "case-004", "legitimate", " ", now)
    queue.overrule(LEAD, "case-004", "legitimate", "the customer called", now)
    (case,) = [case for case in queue.cases(now) if case.record.transaction_id == "case-004"]
    assert [label.outcome for label in case.labels] == ["fraud", "legitimate"]
    assert case.outcome == "legitimate"
    with pytest.raises(CaseError, match="no decision about a payment nothing"):
        queue.overrule(LEAD, "nothing", "fraud", "why", now)
    with pytest.raises(CaseError, match="one of fraud, legitimate, unsure"):
        queue.overrule(LEAD, "case-004", "guilty", "why", now)


def test_figures_count_what_was_judged_and_each_day_in_the_readers_zone(queue: ReviewQueue, now: datetime) -> None:
    for outcome in ("fraud", "legitimate", "legitimate", "unsure"):
        taken = queue.take(ANNA, now)
        assert taken is not None
        queue.label(ANNA, taken.record.transaction_id, outcome, "", now)
    found = queue.figures(ANNA, queue.cases(now), now, ZONE)
    assert (found.waiting, found.judged, found.frauds) == (1, 3, 1)
    assert found.precision == pytest.approx(1 / 3)
    assert found.by_day[now.astimezone(ZONE).date()] == 4
    shown = review.figures(found)
    assert "33.3 %" in shown
    assert "4 of 50 a day" in shown
    empty = queue.figures(ANNA, [], now, ZONE)
    assert "not known yet" in review.figures(empty)


def test_a_case_is_shown_with_its_reasons_and_without_anything_personal(
    queue: ReviewQueue, served: Served, now: datetime
) -> None:
    (case, *_) = queue.cases(now)
    reasons = review.recorded_reasons(case.record, served.scorer, served.explainer)
    assert "The cardholder&#x27;s age of 44" in reasons
    past = review.past(queue.decisions.of_card(CARD, 10), {}, ZONE, but=case.record.transaction_id)
    shown = review.looked_at(case, ZONE, served.scorer, reasons, past)
    assert "Kirlin &amp; Sons" in shown
    assert case.record.transaction_id not in past
    assert CARD not in shown
    assert "AMOUNT_HIGH" in review.recorded_reasons(case.record, None, None)
    assert "no other payment" in review.past([case.record], {}, ZONE, but=case.record.transaction_id)
    table = review.waiting(queue.waiting(ANNA, queue.cases(now)), {"case-003": "ben", "case-004": "anna"}, ANNA, ZONE)
    assert "yours" in table
    assert "with ben" in table
    assert "Nothing waits" in review.waiting([], {}, ANNA, ZONE)
