"""A case: typed, scored as the API scores it, explained, and asked what if."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from fraud_api.app import create_app
from fraud_core.history.lookup import HistoryLookup
from fraud_core.models.follower import LoadedModel
from fraud_ui.kit.wording import signed
from fraud_ui.views import case
from fraud_ui.views.case import Form, Sliders, WrongFormError
from tests.conftest import Installation

ZURICH = ZoneInfo("Europe/Zurich")
FORM = Form(
    when="2020-06-21T14:14:25",
    amount=2.86,
    category="personal_care",
    merchant="Kirlin & Sons",
    card="tok",
    birth_date="1968-03-19",
    city_population=333_497.0,
    home_latitude=33.9659,
    home_longitude=-80.9355,
    merchant_latitude=33.986391,
    merchant_longitude=-81.200714,
)


def form_of(sent: dict[str, Any]) -> Form:
    """What an analyst types for a payment that a caller sends."""
    typed = {name: value for name, value in sent.items() if name not in {"transaction_id", "timestamp", "amount"}}
    at = datetime.fromisoformat(sent["timestamp"]).astimezone(ZURICH)
    return Form(when=at.strftime(case.WHEN), amount=float(sent["amount"]), **typed)


def test_two_hundred_cases_have_the_apis_scores_to_the_last_digit(
    kept: Installation, served: LoadedModel, lookup: HistoryLookup, made_transactions: Callable[[int], list[dict[str, Any]]]
) -> None:
    sent = [
        {**row, "timestamp": row["timestamp"][:19] + "Z"}  # a form knows no fractions of a second
        for row in made_transactions(200)
    ]

    async def asked() -> list[dict[str, Any]]:
        app = create_app(kept.settings, asks_for_keys=False)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                return [(await http.post("/v1/score?explain=true", json=row)).json() for row in sent]

    for row, answer in zip(sent, asyncio.run(asked()), strict=True):
        shown = case.result(case.tested(served, case.typed_payment(form_of(row), ZURICH), lookup, None))
        assert re.search(r"Exactly <code>([^<]+)</code>", shown)[1] == repr(answer["probability"])  # type: ignore[index]
        assert f'class="decision {answer["decision"]}"' in shown


def test_times_are_the_analysts_own_unless_they_say_otherwise() -> None:
    assert case.typed_payment(FORM, ZURICH).timestamp.astimezone(UTC) == datetime(2020, 6, 21, 12, 14, 25, tzinfo=UTC)
    elsewhere = case.typed_payment(replace(FORM, when="2020-06-21T14:14:25-04:00"), ZURICH)
    assert elsewhere.timestamp.astimezone(UTC).hour == 18
    assert case.typed_payment(replace(FORM, when="2020-06-21 14:14"), ZURICH).timestamp.second == 0


@pytest.mark.parametrize(
    ("changes", "label", "reason"),
    [
        ({"when": "21.06.2020 12:14"}, "When", "write it as 2024-06-21 14:05:00"),
        ({"when": None}, "When", "is missing"),
        ({"when": "2999-01-01T00:00:00"}, "When", "ahead"),
        ({"amount": None}, "Amount", "is missing"),
        ({"amount": 1.234}, "Amount", "at most two decimals"),
        ({"birth_date": "19.03.1968"}, "Birth date of the cardholder", "is not a day"),
        ({"city_population": 1.5}, "Inhabitants of the home town", "whole number"),
        ({"home_latitude": 140.0}, "Home: latitude", "at most 90"),
        ({"merchant": "4111 1111 1111 1111"}, "Merchant", "card number"),
    ],
)
def test_what_is_wrong_is_named_by_its_label(changes: dict[str, Any], label: str, reason: str) -> None:
    with pytest.raises(WrongFormError) as refused:
        case.typed_payment(replace(FORM, **changes), ZURICH)
    (problem,) = refused.value.problems
    assert problem.field == label
    assert reason in problem.reason
    assert "4111" not in case.wrong_form(refused.value)


def test_empty_fields_count_as_missing() -> None:
    payment = case.typed_payment(Form(when=FORM.when, amount=1.0, merchant="  ", card="", category=None), ZURICH)
    assert (payment.merchant, payment.card, payment.category, payment.home_latitude) == (None, None, None, None)


def test_every_reason_is_told_with_its_part_and_no_markup_gets_through(served: LoadedModel, lookup: HistoryLookup) -> None:
    tested = case.tested(served, case.typed_payment(replace(FORM, category="<b>odd</b>"), ZURICH), lookup, None)
    shown = case.result(tested)
    assert "<b>odd" not in shown
    assert shown.count('class="bar ') == min(len(tested.reasons), case.SHOWN_REASONS) > 3
    total = tested.examined.base + sum(reason.contribution for reason in tested.reasons)
    assert total == pytest.approx(tested.examined.total)
    for name in ("tok", "1968"):
        assert name not in shown


def test_weak_reasons_are_told_together(served: LoadedModel, lookup: HistoryLookup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case, "SHOWN_REASONS", 2)
    tested = case.tested(served, case.typed_payment(FORM, ZURICH), lookup, None)
    shown = case.result(tested)
    assert f"{len(tested.reasons) - 2} other reasons together." in shown
    assert signed(sum(reason.contribution for reason in tested.reasons[2:])) in shown


def test_the_examples_can_be_scored_and_are_yesterdays(served: LoadedModel, lookup: HistoryLookup) -> None:
    now = datetime(2024, 3, 31, 9, tzinfo=UTC)
    for name, form in case.examples(now, served.scorer.zone, ZURICH).items():
        payment = case.typed_payment(form, ZURICH)
        assert payment.timestamp.astimezone(served.scorer.zone).date().isoformat() == "2024-03-30", name
        assert 0 <= case.tested(served, payment, lookup, None).examined.probability <= 1


def test_sliders_begin_at_the_case_and_change_only_what_is_moved(served: LoadedModel) -> None:
    payment = case.typed_payment(FORM, ZURICH)
    zone = served.scorer.zone
    begin = case.sliders_of(payment, zone)
    assert (begin.amount, begin.hour) == (2.86, 8)
    assert case.changed(payment, begin, zone) == payment
    moved = case.changed(payment, Sliders(250.0, 3, 900.0), zone)
    assert moved.amount_cents == 25_000
    assert moved.timestamp.astimezone(zone).hour == 3
    assert case.sliders_of(moved, zone).distance == pytest.approx(900.0, abs=0.1)
    assert (moved.home_latitude, moved.birth_date) == (payment.home_latitude, payment.birth_date)


def test_a_place_is_moved_along_its_own_direction(served: LoadedModel) -> None:
    payment = case.typed_payment(FORM, ZURICH)
    east, north = case._offset(payment)  # type: ignore[misc]
    moved = case.changed(payment, replace(case.sliders_of(payment, served.scorer.zone), distance=500.0), served.scorer.zone)
    further_east, further_north = case._offset(moved)  # type: ignore[misc]
    assert further_east / further_north == pytest.approx(east / north, rel=1e-6)


def test_what_if_shows_a_curve_for_each_slider_and_none_for_an_unknown_place(served: LoadedModel, lookup: HistoryLookup) -> None:
    payment = case.typed_payment(FORM, ZURICH)
    shown = case.what_if(served, payment, Sliders(250.0, 3, 900.0), lookup)
    assert shown.count("<svg") == 3
    assert "250.00 at 03:00, 900 km from home" in shown
    without = case.typed_payment(replace(FORM, home_latitude=None), ZURICH)
    assert case.sliders_of(without, served.scorer.zone).distance is None
    assert case.what_if(served, without, Sliders(250.0, 3, None), lookup).count("<svg") == 2
    assert case.place(without) == ""
