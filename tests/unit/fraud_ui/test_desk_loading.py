"""A payment from the decision log in the form: tested as it was logged it gets the logged score, and nobody loads his own."""

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from fraud_core.access.users import User
from fraud_core.fields.declared import Declared
from fraud_core.review.queue import CaseError
from fraud_ui import desk
from fraud_ui.services import Desk
from fraud_ui.views.case import Form
from tests.conftest import Installation
from tests.declared import ONLINE
from tests.scored import decide, suspicious

ZONE = "Europe/Zurich"
AUTUMN = "2024-10-27T00:30:00.000007Z"  # 02:30 in Zurich, half past two for the first time; an hour later it is so again


@pytest.fixture
def opened(installation: Installation) -> Desk:
    installation.promote(1)
    opened = Desk.open(installation.settings, signs_in=False)
    opened.follower.poll()
    return opened


def user(cards: frozenset[str] = frozenset()) -> User:
    return User("anna", "analyst", "", datetime.now(UTC), None, cards)


def test_a_loaded_payment_is_tested_to_the_logged_score_and_a_change_moves_only_what_is_made_of_it(
    opened: Desk, installation: Installation
) -> None:
    again = "2024-10-27T01:30:00.5Z"
    payments = [
        suspicious(1),
        suspicious(2, timestamp=AUTUMN, category=None, city_population=None),
        suspicious(3, timestamp=again, merchant=None, merchant_latitude=None),
    ]
    answers = decide(installation.settings.model_copy(update={"features_logged": 1.0}), payments)
    for answer in answers:
        loaded = desk._load(opened, user(), answer["transaction_id"], ZONE)
        form, identity, shown = Form(*loaded[:-2]), loaded[-2], loaded[-1]
        assert (identity, form.card, form.birth_date, form.home_latitude) == (answer["transaction_id"], None, None, None)
        assert "neither card nor birth date nor home" in shown
        assert "gets the logged score" in shown
        result, typed, *_, curves = desk._test(opened, user(), identity, ZONE, *form.values)
        assert f"Exactly <code>{answer['probability']!r}</code>" in result
        assert "Nothing was changed." in result
        hour = typed[0].timestamp.astimezone(ZoneInfo("America/New_York")).hour
        assert desk._what_if(opened, user(), typed, form.amount or 0, hour, 0) == curves
    # The age of the form alone would be missing; with another amount it is still the logged one.
    form = Form(*desk._load(opened, user(), "case-001", ZONE)[:-2])
    changed, *_ = desk._test(opened, user(), "case-001", ZONE, *replace(form, amount=1_200.0).values)
    assert "Changed: Amount; what is made of that was computed anew" in changed
    whole = suspicious(1, transaction_id="whole", amount="1200.00")
    (other,) = decide(installation.settings, [whole])
    assert f"Exactly <code>{other['probability']!r}</code>" in changed


def test_what_was_logged_without_its_features_is_said_to_test_otherwise(opened: Desk, installation: Installation) -> None:
    plain = suspicious(7, amount="1.00", category="travel", timestamp="2024-05-01T16:00:00Z")
    settings = installation.settings.model_copy(update={"features_logged": 0.0})
    assert decide(settings, [plain])[0]["decision"] == "approve"
    assert "gives another score than the logged one" in desk._load(opened, user(), "case-007", ZONE)[-1]


def test_a_payment_of_a_card_of_ones_own_is_not_loaded_and_its_past_is_not_shown(
    opened: Desk, installation: Installation
) -> None:
    decide(installation.settings, [suspicious(1)])
    card = opened.queue.case("case-001").record.card
    assert card is not None
    owner = user(frozenset({card}))
    with pytest.raises(CaseError, match="card of your own"):
        desk._load(opened, owner, "case-001", ZONE)
    form = desk._load(opened, user(), "case-001", ZONE)[:-2]
    with pytest.raises(CaseError, match="card of your own"):
        desk._test(opened, owner, "case-001", ZONE, *form)
    typed = replace(Form(*form), card=suspicious(1)["card"])
    assert "its past is not shown" in desk._test(opened, owner, "", ZONE, *typed.values)[0]
    assert "The card&#x27;s last 1 payment" in desk._test(opened, user(), "", ZONE, *typed.values)[0]


def test_a_case_that_cannot_be_shown_is_counted(opened: Desk, installation: Installation) -> None:
    decide(installation.settings, [suspicious(1), suspicious(2, card="token-of-another")])
    with opened.queue.decisions.engine.begin() as connection:
        connection.execute(text("UPDATE decisions SET \"transaction\" = '{}' WHERE transaction_id = 'case-002'"))
    identity, shown, *_ = desk._take(opened, user(), ZONE)
    assert identity == "case-001"
    assert "Case case-002 cannot be shown" in shown
    assert b"fraud_desk_cases_unshown_total 1.0\n" in opened.metrics.exposition()


def test_own_fields_are_in_the_form_the_test_the_what_ifs_and_the_case(installation: Installation) -> None:
    installation.promote(1, declared=ONLINE)
    opened = Desk.open(installation.settings, signs_in=False)
    opened.follower.poll()
    categories, table = desk._follow_fields(opened, user(), [])
    own = table.value["data"]
    assert [row[0] for row in own] == ["Channel", "Basket", "Cvv", "Device", "Email", "Income", "Ip", "Opened"]
    assert own[0] == ["Channel", "web", "required; web, app; the model does not look at it"]
    assert own[1][2] == "a number from 0 to 1000; in items; the model does not look at it"
    assert ("travel", "travel") in categories.choices
    # Another model asks for other fields while the page is open: what was typed for those that it knows, too, stays.
    typed = [[label, "4.5" if label == "Basket" else value, what] for label, value, what in own]
    kept = {"fields": {"basket": {"kind": "number"}, "till": {"kind": "id", "meaning": "The cash register {value}"}}}
    installation.promote(2, declared=Declared.model_validate(kept))
    opened.follower.poll()
    table = desk._follow_fields(opened, user(), typed)[1]
    assert [row[:2] for row in table.value["data"]] == [["Basket", "4.5"], ["Cash register (till)", ""]]
    installation.promote(3)
    opened.follower.poll()
    assert not desk._follow_fields(opened, user(), typed)[1].visible
    installation.promote(1, declared=ONLINE)
    opened.follower.poll()
    # An example can be tested as it is, and what is wrong is named.
    example = Form(*desk._example(opened, user(), ZONE, name="Card testing")[:-1])
    assert "A test is not recorded" in desk._test(opened, user(), "", ZONE, *example.values)[0]
    fax = replace(example, own=[["channel", "fax", ""], ["bin", "400012", ""]])
    assert "Channel is none of the declared values (web, app)." in desk._test(opened, user(), "", ZONE, *fax.values)[0]
    # What was logged comes back, with what was derived of something that the log does not keep.
    sent = suspicious(1) | {"channel": "app", "email": "jane@example.com", "basket": 7.5, "cvv": "N", "opened": "2020-01-01"}
    (answer,) = decide(installation.settings.model_copy(update={"features_logged": 1.0}), [sent])
    *values, identity, shown = desk._load(opened, user(), "case-001", ZONE)
    form = Form(*values)
    assert {row[0]: row[1] for row in form.own if row[1]} == {
        "Channel": "app",
        "Cvv": "no",
        "Opened": "2020-01-01T05:00:00+00:00",
        "Basket": "7.5",
    }
    assert '<td class="text">basket</td><td class="text">7.5 items</td>' in shown
    assert "example.com" in shown
    assert "jane" not in shown
    result, typed, *_, numbers, _ = desk._test(opened, user(), identity, ZONE, *form.values)
    assert "Nothing was changed." in result
    assert typed[0].email_domain == "example.com"
    assert f"Exactly <code>{answer['probability']!r}</code>" in result
    assert numbers.choices == [("Inhabitants of the home town", "city_population"), ("Basket", "basket")]
    other = replace(form, own=[[name, "d-9" if name == "Device" else value, what] for name, value, what in form.own])
    assert "Changed: Device;" in desk._test(opened, user(), identity, ZONE, *other.values)[0]
    assert "Probability of fraud by basket" in desk._what_if(opened, user(), typed, form.amount or 0, 3, 0, "basket")
