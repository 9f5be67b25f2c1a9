"""The review queue: whose turn, whose word, and how it goes."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from fraud_core.access.users import Role, User
from fraud_core.decisions.log import DecisionLog, Found
from fraud_core.errors import StoreError
from fraud_core.labels.log import LabelLog
from fraud_core.models.follower import LoadedModel
from fraud_core.review.backlog import Waiting
from fraud_core.review.claims import Claims
from fraud_core.review.queue import Case, CaseError, ReviewQueue
from fraud_core.storage.database import open_database
from fraud_ui.views import review
from tests.conftest import Installation
from tests.scored import decide, suspicious

ZONE = ZoneInfo("Europe/Zurich")


def user(name: str, role: Role = "analyst", cards: frozenset[str] = frozenset()) -> User:
    return User(name, role, "", datetime.now(UTC), None, cards)


ANNA, BEN, LEAD = user("anna"), user("ben"), user("lea", "lead")


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def queue(installation: Installation, served: LoadedModel) -> Iterator[ReviewQueue]:
    engine = open_database(installation.settings)
    queue = ReviewQueue(DecisionLog(engine, 400), LabelLog(engine), Claims(engine, timedelta(minutes=30)), capacity=50)
    installation.promote(1)
    decide(installation.settings, [*map(suspicious, range(5)), suspicious(9, amount="1.00", category="travel")])
    yield queue
    engine.dispose()


def names(cases: list[Waiting]) -> list[str]:
    return [one.transaction_id for one in cases]


def take(queue: ReviewQueue, who: User, now: datetime) -> str:
    return queue.take(who, now, lambda one: one.record.transaction_id).identity


def test_the_greatest_expected_loss_comes_first_and_what_was_not_sent_to_review_never(queue: ReviewQueue, now: datetime) -> None:
    assert queue.decisions.count() == 6
    assert names(queue.waiting(ANNA, now)) == ["case-004", "case-003", "case-002", "case-001", "case-000"]
    assert [take(queue, who, now) for who in (ANNA, BEN)] == ["case-004", "case-003"]
    assert take(queue, ANNA, now) == "case-004"  # until it is labelled or put back
    queue.put_back(ANNA, "case-004")
    assert take(queue, user("carl"), now) == "case-004"


def test_a_label_needs_the_claim_and_bears_its_author(queue: ReviewQueue, now: datetime) -> None:
    with pytest.raises(CaseError, match="do not hold case case-004"):
        queue.label(ANNA, "case-004", "fraud", "", now)
    take(queue, ANNA, now)
    with pytest.raises(CaseError, match="do not hold"):
        queue.label(BEN, "case-004", "fraud", "", now)
    with pytest.raises(CaseError, match="open for more than 30 minutes"):
        queue.label(ANNA, "case-004", "fraud", "", now + timedelta(minutes=31))
    label = queue.label(ANNA, "case-004", "fraud", " seen ", now)
    assert (label.outcome, label.source, label.author, label.role, label.note) == ("fraud", "analyst", "anna", "analyst", "seen")
    assert label.known_at == now
    assert "case-004" not in names(queue.waiting(LEAD, now))


def test_nobody_is_given_or_judges_a_case_of_a_card_of_his_own(queue: ReviewQueue, now: datetime) -> None:
    card = queue.case("case-004").record.card
    assert card is not None
    owner = user("anna", "lead", frozenset({card}))
    assert take(queue, owner, now) == ""
    take(queue, ANNA, now)  # before the card was noted
    for judge in (queue.label, queue.overrule):
        with pytest.raises(CaseError, match="card of your own"):
            judge(owner, "case-004", "legitimate", "mine", now)
    with pytest.raises(CaseError, match="card of your own"):
        queue.openable(owner, "case-004")


def test_an_unsure_case_goes_to_a_lead(queue: ReviewQueue, now: datetime) -> None:
    take(queue, ANNA, now)
    queue.label(ANNA, "case-004", "unsure", "", now)
    assert "case-004" not in names(queue.waiting(BEN, now))
    assert take(queue, LEAD, now) == "case-004"
    assert queue.case("case-004").outcome == "unsure"
    queue.label(LEAD, "case-004", "fraud", "", now)
    assert queue.case("case-004").outcome == "fraud"


def test_a_lead_overrules_with_a_reason_and_what_was_said_stays(queue: ReviewQueue, now: datetime) -> None:
    take(queue, ANNA, now)
    queue.label(ANNA, "case-004", "fraud", "", now)
    with pytest.raises(CaseError, match="Say in the note why"):
        queue.overrule(LEAD, "case-004", "legitimate", " ", now)
    queue.overrule(LEAD, "case-004", "legitimate", "the customer called", now)
    case = queue.case("case-004")
    assert [label.outcome for label in case.labels] == ["fraud", "legitimate"]
    assert case.outcome == "legitimate"
    with pytest.raises(CaseError, match="no decision about a payment of this id"):
        queue.overrule(LEAD, "nothing", "fraud", "why", now)
    with pytest.raises(CaseError, match="one of fraud, legitimate, unsure"):
        queue.overrule(LEAD, "case-004", "guilty", "why", now)


def test_figures_count_what_was_judged_and_each_day_in_the_readers_zone(queue: ReviewQueue, now: datetime) -> None:
    for outcome in ("fraud", "legitimate", "legitimate", "unsure"):
        queue.label(ANNA, take(queue, ANNA, now), outcome, "", now)
    found = queue.figures(ANNA, now, ZONE)
    assert (found.waiting, found.judged, found.frauds) == (1, 3, 1)
    assert found.precision == pytest.approx(1 / 3)
    assert found.by_day[now.astimezone(ZONE).date()] == 4
    shown = review.figures(found)
    assert "33.3 %" in shown
    assert "4 of 50 a day" in shown
    empty = queue.figures(ANNA, now + timedelta(days=70), ZONE)
    assert "not known yet" in review.figures(empty)


def test_a_case_is_shown_with_its_reasons_and_without_anything_personal(
    queue: ReviewQueue, served: LoadedModel, now: datetime
) -> None:
    case = queue.case("case-004")
    card = case.record.card
    assert card is not None
    reasons = review.recorded_reasons(case.record, served)
    assert re.search(r"The cardholder&#x27;s age of 4[45]", reasons)
    past = review.past(queue.decisions.of_card(card, 10), {}, ZONE, but=case.record.transaction_id)
    shown = review.render_case(case, ZONE, served, reasons, past)
    assert "Kirlin &amp; Sons" in shown
    assert case.record.transaction_id not in past
    assert card not in shown
    assert case.record.reasons[0] in review.recorded_reasons(case.record, None)
    assert "no other payment" in review.past(Found([case.record]), {}, ZONE, but=case.record.transaction_id)
    table = review.waiting(queue.waiting(ANNA, now), 5, {"case-003": "ben", "case-004": "anna"}, ANNA, ZONE)
    assert "yours" in table
    assert "with ben" in table
    assert "Nothing waits" in review.waiting([], 0, {}, ANNA, ZONE)


def test_a_case_that_cannot_be_shown_is_held_by_nobody_and_the_next_one_has_its_turn(
    queue: ReviewQueue, installation: Installation, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_database(installation.settings)
    assert take(queue, ANNA, now) == "case-004"  # before it was damaged
    with engine.begin() as connection:
        connection.execute(text("UPDATE decisions SET \"transaction\" = '{}' WHERE transaction_id = 'case-004'"))

    def show(one: Case) -> str:
        if one.record.transaction_id == "case-003":
            raise AttributeError("4111111111111111")
        return one.record.transaction_id

    taken = queue.take(ANNA, now, show)
    assert (taken.identity, taken.shown) == ("case-002", "case-002")
    assert queue.held(now) == {"case-002": "anna"}
    told = review.unshown(taken.unshown)
    assert "Case case-004 cannot be shown (IntegrityError); nobody holds it." in told
    assert "Case case-003 cannot be shown (AttributeError)" in told
    assert len([one for one in caplog.messages if "cannot be shown" in one]) == 2
    assert "4111" not in told + caplog.text
    assert "And 2 more cases." in review.unshown(["no"] * 12)


def test_a_damaged_payment_of_a_card_is_counted_and_hides_no_case_and_no_other_payment(
    queue: ReviewQueue, installation: Installation, now: datetime
) -> None:
    case = queue.case(take(queue, ANNA, now))
    card = case.record.card
    assert card is not None
    whole = len(queue.decisions.of_card(card, 10))
    with open_database(installation.settings).begin() as connection:
        connection.execute(text("UPDATE decisions SET decision = 'perhaps' WHERE transaction_id = 'case-002'"))
    found = queue.decisions.of_card(card, 10)
    assert (len(found), found.damaged) == (whole - 1, 1)
    shown = review.past(found, {}, ZONE, but=case.record.transaction_id)
    assert f"last {whole - 2} payment" in shown
    assert "1 more payment of this card cannot be read" in shown


def test_a_database_that_is_gone_blames_no_case(queue: ReviewQueue, now: datetime) -> None:
    def gone(one: Case) -> str:
        raise StoreError("The database cannot be used.")

    with pytest.raises(StoreError):
        queue.take(ANNA, now, gone)
    assert queue.held(now) == {}
