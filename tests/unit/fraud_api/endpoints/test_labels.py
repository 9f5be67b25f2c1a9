"""Labels over HTTP: what is added, and what is refused."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from fraud_api.schemas import MOST_LABELS
from fraud_core.access.api_keys import ApiKeys
from fraud_core.errors import StoreError
from fraud_core.labels.log import LabelLog
from fraud_core.storage.database import open_database

Make = Callable[[int], list[dict[str, Any]]]


@pytest.fixture
def scored(call: Any, installation: Any, made_transactions: Make) -> Any:
    """The caller of an API that decided about the payments t0, t1 and t2."""
    installation.promote(1)
    api = call(installation.settings)
    for payment in made_transactions(3):
        assert api.post("/v1/score", json=payment).status_code == 200
    return api


def labels_of(installation: Any) -> list[Any]:
    return LabelLog(open_database(installation.settings)).since(0, 10_000)


def test_a_label_is_added_with_the_payments_time_and_the_servers(scored: Any, installation: Any, made_transactions: Make) -> None:
    begun = datetime.now(UTC)
    answer = scored.post("/v1/labels", json={"transaction_id": "t1", "outcome": "fraud", "note": " he called "})
    assert answer.status_code == 201
    (label,) = labels_of(installation)
    assert (label.transaction_id, label.outcome, label.source) == ("t1", "fraud", "chargeback")
    assert (label.author, label.role, label.note) == ("unkeyed", "", "he called")
    assert label.event_time == datetime.fromisoformat(made_transactions(3)[1]["timestamp"])
    assert begun <= label.known_at <= datetime.now(UTC)
    told = answer.json()
    assert (told["transaction_id"], told["sequence"]) == ("t1", label.sequence)
    assert datetime.fromisoformat(told["known_at"]) == label.known_at


def test_a_list_is_answered_in_its_order_and_later_words_have_greater_numbers(scored: Any, installation: Any) -> None:
    said = [("t2", "fraud", "chargeback"), ("t0", "unsure", "analyst"), ("t2", "legitimate", "analyst")]
    given = [{"transaction_id": identity, "outcome": outcome, "source": source} for identity, outcome, source in said]
    answer = scored.post("/v1/labels", json=given)
    assert [one["transaction_id"] for one in answer.json()] == ["t2", "t0", "t2"]
    assert [(one.transaction_id, one.outcome, one.source) for one in labels_of(installation)] == said
    numbers = [one["sequence"] for one in answer.json()]
    assert numbers == sorted(set(numbers))


def test_a_label_may_come_before_its_payment_and_says_so(scored: Any, installation: Any) -> None:
    given = [{"transaction_id": identity, "outcome": "fraud"} for identity in ("t0", "nobody.1")]
    answer = scored.post("/v1/labels", json=given)
    assert answer.status_code == 201
    assert [one["decided"] for one in answer.json()] == [True, False]
    known, unknown = labels_of(installation)
    assert known.event_time < known.known_at
    assert unknown.event_time == unknown.known_at


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"outcome": "maybe"}, "outcome"),
        ({"source": "source"}, "source"),
        ({"author": "me"}, "author"),
        ({"known_at": "2020-01-01T00:00:00Z"}, "known_at"),
        ({"note": "card 4111 1111 1111 1111"}, "note"),
        ({"transaction_id": 7}, "transaction_id"),
    ],
)
def test_what_is_wrong_with_a_label_is_named(scored: Any, installation: Any, wrong: dict[str, Any], field: str) -> None:
    answer = scored.post("/v1/labels", json={"transaction_id": "t0", "outcome": "fraud"} | wrong)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert "4111" not in answer.text
    assert labels_of(installation) == []


@pytest.mark.parametrize("count", [0, MOST_LABELS + 1])
def test_a_list_has_its_limits(scored: Any, count: int) -> None:
    assert scored.post("/v1/labels", json=[{"transaction_id": "t0", "outcome": "fraud"}] * count).status_code == 422
    assert scored.post("/v1/labels", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert scored.post("/v1/labels", content=b"{}").status_code == 415


def test_the_longest_list_is_taken(scored: Any, installation: Any) -> None:
    given = [{"transaction_id": f"t{at % 3}", "outcome": "fraud", "note": "x" * 1_000} for at in range(MOST_LABELS)]
    assert scored.post("/v1/labels", json=given).status_code == 201
    assert len(labels_of(installation)) == MOST_LABELS


def test_the_author_is_the_api_key_and_only_a_key_for_labels_opens_them(call: Any, installation: Any, scored: Any) -> None:
    keys = ApiKeys.of(installation.settings)
    tokens = {scope: keys.create(f"the {scope} desk", [scope])[1] for scope in ("score", "label", "admin")}
    guarded = call(installation.settings, asks_for_keys=True)
    label = {"transaction_id": "t0", "outcome": "fraud"}
    statuses = {
        scope: guarded.post("/v1/labels", json=label, headers={"authorization": f"Bearer {token}"}).status_code
        for scope, token in tokens.items()
    }
    assert statuses == {"score": 403, "label": 201, "admin": 403}
    assert [one.author for one in labels_of(installation)] == ["the label desk"]


def test_labels_are_counted_by_outcome_and_source(scored: Any) -> None:
    scored.post("/v1/labels", json=[{"transaction_id": "t0", "outcome": "fraud"}] * 2)
    assert 'fraud_labels_received_total{outcome="fraud",source="chargeback"} 2.0' in scored.get("/metrics").text


def test_while_the_database_is_gone_nothing_is_promised(scored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise StoreError("gone")

    monkeypatch.setattr(LabelLog, "append_all", gone)
    answer = scored.post("/v1/labels", json={"transaction_id": "t0", "outcome": "fraud"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fraud:problem:labels-unreachable")


def test_a_payment_whose_decision_waits_on_the_disk_is_not_called_unknown(scored: Any) -> None:
    writer = scored.app.state.services.decisions
    writer._rests_until = float("inf")  # as while the database is away
    answer = scored.post("/v1/labels", json={"transaction_id": "t9", "outcome": "fraud"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fraud:problem:decisions-waiting")
