"""A champion that declares fields of its own: what the API takes, answers, documents, records, and never repeats."""

import asyncio
import io
import json
import logging
from typing import Any

import polars as pl
import pytest

from fraud_core.decisions.log import DecisionLog
from fraud_core.features.windows import Reach
from fraud_core.fields.declared import Declared
from fraud_core.history.export import export, schema_of
from fraud_core.history.open import open_history
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import card_key
from fraud_core.storage.database import open_database
from fraud_core.transactions.declared_type import example_of
from fraud_core.transactions.transaction import EXAMPLE
from tests.declared import ONLINE

SENT = example_of(ONLINE) | {"card": "4000123456789010"}
CSV = {"Content-Type": "text/csv"}


def _logged(installation: Any, identity: str = str(EXAMPLE["transaction_id"])) -> Any:
    found = DecisionLog(open_database(installation.settings), 30).find(identity)
    assert found is not None
    return found.transaction


def _csv(*rows: dict[str, Any]) -> bytes:
    return pl.DataFrame([{name: str(value) for name, value in row.items()} for row in rows]).write_csv().encode()


def _wrong(answer: Any) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    return {error["field"]: error["reason"] for error in answer.json()["errors"]}


def test_own_fields_are_taken_on_every_route_and_recorded(call: Any, installation: Any) -> None:
    installation.promote(1, declared=ONLINE)
    api = call(installation.settings)
    alone = api.post("/v1/score", json=SENT)
    assert alone.status_code == 200, alone.text
    batch = api.post("/v1/score/batch", json={"transactions": [SENT, EXAMPLE, SENT | {"bin": "1"}]}).json()["results"]
    assert batch[0]["probability"] == alone.json()["probability"]
    assert [one["errors"][0]["field"] for one in batch[1:]] == ["channel", "bin"]
    lines = [
        json.loads(line) for line in api.post("/v1/score/file", content=_csv(SENT | {"cvv": "Y"}), headers=CSV).text.splitlines()
    ]
    assert lines[0]["probability"] == alone.json()["probability"]
    assert lines[1]["complete"]
    assert _wrong(api.post("/v1/score/file", content=_csv(EXAMPLE), headers=CSV)) == {"channel": "is missing"}
    logged = _logged(installation)
    assert (logged.own["channel"], logged.own["bin"], logged.own["cvv"]) == ("web", "400012", True)
    assert not {"ip", "email", "income"} & set(logged.own)


def test_a_payment_sent_again_is_the_same_one_and_with_another_own_value_another(call: Any, installation: Any) -> None:
    installation.promote(1, declared=ONLINE)
    api = call(installation.settings)
    first = api.post("/v1/score", json=SENT)
    assert api.post("/v1/score", json=SENT).json() == first.json()
    assert api.post("/v1/score", json=SENT | {"device": "another"}).status_code == 409
    assert api.post("/v1/score", json=SENT | {"email": "joe@example.com"}).status_code == 409


def test_a_champion_with_other_fields_takes_over_and_callers_of_the_one_before_go_on(call: Any, installation: Any) -> None:
    newer = Declared.model_validate(
        {"fields": {"till": {"kind": "id", "required": True}, "network": {"from": {"network": "8/16", "of": "till"}}}}
    )
    installation.promote(1, declared=ONLINE)
    api = call(installation.settings)
    first = api.post("/v1/score", json=SENT)
    installation.promote(2, declared=newer)
    assert api.post("/v1/admin/reload").status_code == 200
    till = {"till": "192.0.2.1", "transaction_id": "b"}
    assert _wrong(api.post("/v1/score", json=SENT | {"transaction_id": "b"})) == {"till": "is missing"}
    assert api.post("/v1/score", json=SENT | till).status_code == 200
    assert api.post("/v1/score", json=EXAMPLE | till | {"transaction_id": "c"}).status_code == 200
    lines = api.post("/v1/score/file", content=_csv(SENT | till | {"cvv": "Y"}), headers=CSV).text.splitlines()
    assert json.loads(lines[0])["decision"]
    assert _logged(installation, "b").own["device"] == SENT["device"]
    assert _logged(installation, "b").own["network"] == "192.0.0.0/8"
    told = {field["name"]: field for field in api.get("/v1/model").json()["fields"]}
    assert (told["till"]["read"], told["device"]["read"], told["channel"]["required"]) == (True, False, False)
    # Back: what was sent before is the same payment, and the newer one's field may still be sent.
    installation.point(installation.bundle(1, ONLINE).version)
    api.post("/v1/admin/reload")
    assert api.post("/v1/score", json=SENT).json() == first.json()
    assert api.post("/v1/score", json=SENT | till | {"transaction_id": "d"}).status_code == 200
    # A process that starts now knows the one before, too.
    again = call(installation.settings)
    assert again.post("/v1/score", json=SENT | till | {"transaction_id": "e"}).status_code == 200


def test_a_process_that_has_not_looked_yet_takes_what_a_newer_champion_declares(
    call: Any, installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_till = Declared.model_validate({"fields": {"device": {"kind": "id"}, "till": {"kind": "id"}}})
    without = Declared.model_validate({"fields": {"device": {"kind": "id"}}})
    demanded = Declared.model_validate({"fields": {"device": {"kind": "id", "required": True}}})
    installation.promote(1, declared=without)
    settings = installation.settings.model_copy(update={"poll_seconds": 600.0})  # so that neither looks by itself
    first, second, third = (call(settings) for _ in range(3))
    old, new = EXAMPLE | {"device": "d"}, EXAMPLE | {"device": "d", "till": "t"}

    def taken(api: Any, payment: dict[str, Any], identity: str) -> str:
        answer = api.post("/v1/score", json=payment | {"transaction_id": identity})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["model_version"])

    newer = installation.promote(2, declared=with_till)
    assert taken(first, new, "a") == newer
    assert taken(second, old, "b") != newer  # nothing in it asks for a newer one
    batch = second.post("/v1/score/batch", json={"transactions": [new, EXAMPLE | {"amount": "x"}]}).json()
    assert (batch["model_version"], batch["refused"]) == (newer, 1)
    file = third.post("/v1/score/file", content=_csv(new), headers=CSV)
    assert json.loads(file.text.splitlines()[0])["decision"], file.text
    assert file.headers["X-Model-Version"] == newer
    # Removed: who sends it still is taken, and so is who has stopped, by whichever process.
    fewer = installation.promote(3, declared=demanded)
    assert taken(first, new, "c") == newer
    assert taken(second, old, "d") == newer
    first.post("/v1/admin/reload")
    assert taken(first, new, "e") == fewer
    least = installation.promote(4, declared=Declared())
    assert taken(first, EXAMPLE, "f") == least
    # Whatever else is wrong is refused at once, and what nobody declares after one look at the pointer.
    looks: list[int] = []
    follower = first.app.state.services.follower
    monkeypatch.setattr(follower, "poll", lambda: looks.append(1))
    assert _wrong(first.post("/v1/score", json=EXAMPLE | {"amount": "x"})) == {
        "amount": "is not an amount with at most two decimals"
    }
    assert not looks
    assert _wrong(first.post("/v1/score", json=EXAMPLE | {"nobody": 1})) == {"nobody": "is not a known field"}

    async def many() -> list[Any]:
        return await asyncio.gather(*(first.http.post("/v1/score", json=EXAMPLE | {"nobody": 1}) for _ in range(30)))

    assert {answer.status_code for answer in first.runner.run(many())} == {422}
    assert 2 <= len(looks) <= 4


@pytest.mark.parametrize("mode", ["refuse", "ignore", "keep"])
def test_unknown_fields_are_refused_ignored_or_kept_for_people(call: Any, installation: Any, mode: str) -> None:
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"api_unknown_fields": mode}))
    more = EXAMPLE | {"coupon": "SPRING"}
    answer = api.post("/v1/score", json=more)
    (row,) = api.post("/v1/score/batch", json={"transactions": [more]}).json()["results"]
    file = api.post("/v1/score/file", content=_csv(more), headers=CSV)
    if mode == "refuse":
        assert _wrong(answer) == {"coupon": "is not a known field"}
        assert row["errors"] == [{"field": "coupon", "reason": "is not a known field"}]
        assert _wrong(file) == {"coupon": "is not a known column"}
        return
    assert answer.status_code == 200
    assert row["probability"] == answer.json()["probability"]
    assert "coupon, is not known, and was left out" in json.loads(file.text.splitlines()[-1])["notes"][0]
    assert dict(_logged(installation).own) == ({"coupon": "SPRING"} if mode == "keep" else {})
    if mode == "keep":
        assert list(_wrong(api.post("/v1/score", json=more | {"coupon": "4111111111111111"}))) == ["coupon"]


CARD = "4111111111111111"


@pytest.mark.parametrize(
    "more",
    [
        {"coupon": CARD},
        {"coupon": int(CARD)},
        {"coupon": float(CARD)},
        {"coupon": f"paid with {CARD[:4]}-{CARD[4:8]}-{CARD[8:12]}-{CARD[12:]}."},
        {"coupon": "\uff14" + CARD[1:]},
        {"coupon": [CARD]},
        {"coupon": {"pan": CARD}},
        {CARD: "x"},
        {f"c{CARD}": "x"},
        {"_".join(CARD[at : at + 4] for at in range(0, 16, 4)): "x"},
        {"coupon": "x" * 201},
        {"coupon": 10**60},
        {f"coupon_{at}": "x" for at in range(51)},
        {"c" * 65: "x"},
    ],
)
def test_what_is_kept_of_unknown_fields_is_short_and_holds_no_card_number(
    call: Any, installation: Any, caplog: pytest.LogCaptureFixture, more: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    installation.promote(1)
    settings = installation.settings.model_copy(update={"api_unknown_fields": "keep"})
    api = call(settings)
    answer = api.post("/v1/score", json=EXAMPLE | more)
    assert answer.status_code == 422
    kept = EXAMPLE | {"coupon": "SPRING", "steps": 3, "gift": True}
    first = api.post("/v1/score", json=kept)
    assert api.post("/v1/score", json=kept | {"coupon": "AUTUMN", "other": 1}).json() == first.json()  # the same payment
    assert dict(_logged(installation).own) == {"coupon": "SPRING", "steps": 3, "gift": True}
    told = [
        answer.text,
        caplog.text,
        *(path.read_bytes().decode("latin-1") for path in settings.home.rglob("*") if path.is_file()),
    ]
    assert not any(CARD in text or "4111_1111" in text for text in told)


def test_the_documents_follow_the_champion(call: Any, installation: Any) -> None:
    api = call(installation.settings)
    assert "device" not in api.get("/openapi.json").json()["components"]["schemas"]["Transaction"]["properties"]
    installation.promote(1, declared=ONLINE)
    api.post("/v1/admin/reload")
    document = api.get("/openapi.json").json()
    payment = document["components"]["schemas"]["Transaction"]
    assert payment["properties"]["channel"]["enum"] == ["web", "app"]
    assert payment["required"] == ["timestamp", "amount", "channel"]
    for path, shown in {"/v1/score": example_of(ONLINE), "/v1/score/batch": {"transactions": [example_of(ONLINE)]}}.items():
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert content["example"] == shown
        assert api.post(path, json=shown).status_code == 200
    told = {field["name"]: field for field in api.get("/v1/model").json()["fields"]}
    assert told["basket"] == {
        "name": "basket",
        "kind": "number",
        "meaning": "The basket",
        "required": False,
        "personal": False,
        "values": None,
        "unit": "items",
        "lowest": 0.0,
        "highest": 1000.0,
        "read": True,
        "derived_from": None,
    }
    assert told["channel"]["values"] == ["web", "app"]
    assert (told["ip"]["personal"], told["card"]["personal"], told["amount"]["required"]) == (True, True, True)
    assert told["bin"]["derived_from"] == ["card"]


def test_a_batch_of_the_greatest_size_is_not_taken_for_too_many_fields(call: Any, installation: Any) -> None:
    wide = Declared.model_validate({"fields": {f"V{at}": {"kind": "number"} for at in range(40)}})
    installation.promote(1, declared=wide)
    api = call(installation.settings.model_copy(update={"api_batch_bytes": 64_000_000}))
    rows = [example_of(wide)] * 1_000
    body = json.dumps({"transactions": rows}).encode().count(b",") * 10
    assert body > 40 * 10_000  # what was allowed when a payment had twelve fields
    answer = api.post("/v1/score/batch", json={"transactions": rows * 10})
    assert answer.status_code == 200, answer.text
    assert answer.json()["refused"] == 0


# Marked: these values must be nowhere afterwards but in the requests themselves.
MARKED = {
    "card": "marked-card-7351",
    "ip": "198.51.100.73",
    "email": "marked7351@mail.example.net",
    "income": 7351.7351,
    "birth_date": "1973-05-17",
    "home_latitude": 7.351735,
    "home_longitude": 73.517351,
}
SECRETS = ("marked-card-7351", "198.51.100.73", "marked7351", "7351.7351")
PEOPLES = ("1973-05-17", "7.351735", "73.517351")  # history alone keeps these, as it always has


def test_nothing_personal_leaves_or_is_kept(
    call: Any, installation: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    installation.promote(1, declared=ONLINE)
    settings = installation.settings.model_copy(update={"degraded_review_amount": 0, "api_unknown_fields": "keep"})
    api = call(settings)
    sent = SENT | MARKED
    parquet = io.BytesIO()
    pl.DataFrame([sent]).write_parquet(parquet)
    wrong = {name: [value] for name, value in MARKED.items()}
    answers = [
        api.post("/v1/score", json=sent, params={"explain": "true"}),
        api.post("/v1/score", json=sent | {"device": "other"}),
        api.post("/v1/score", json=sent | {"channel": "fax"}),
        *(api.post("/v1/score", json=sent | {name: value}) for name, value in wrong.items()),
        api.post("/v1/score", json=sent | {str(MARKED["email"]): MARKED["email"]}),
        api.post("/v1/score", content=json.dumps(sent)[:-1], headers={"Content-Type": "application/json"}),
        api.post("/v1/score/batch", json={"transactions": [sent, sent | wrong, sent | {"channel": None}]}),
        api.post("/v1/score/file", content=_csv(sent | {"cvv": "Y"}, sent | {"channel": "fax"}), headers=CSV),
        api.post("/v1/score/file", content=_csv(sent | {"ip": "198.51.100.73" * 40, "cvv": "Y"}), headers=CSV),
        api.post("/v1/score/file", content=parquet.getvalue(), headers={"Content-Type": "application/vnd.apache.parquet"}),
        api.post("/v1/score/file", content=parquet.getvalue()[:-9], headers={"Content-Type": "application/x-parquet"}),
        *(api.get(path) for path in ("/v1/model", "/v1/models", "/openapi.json", "/metrics", "/readyz")),
    ]
    assert [answer.status_code for answer in answers[:4]] == [200, 409, 422, 422]
    assert answers[-1].status_code == 200
    logged = _logged(installation)
    store = open_history(settings, Reach.of_days(90, 180))
    (recorded,) = store.recorded(0, 10)
    done = export(store, settings.home / "exported", ONLINE)
    exported = pl.read_parquet(done.files[0])
    store.close()
    key = card_key(settings)
    assert exported.columns == list(schema_of(ONLINE))
    assert exported["ip"].item() == hashed_card(str(MARKED["ip"]), key)
    assert "income" not in exported.columns
    assert exported["email_domain"].item() == logged.own["email_domain"] == "mail.example.net"
    assert exported["network"].item() == "198.51.100.0/24"
    assert exported["opened"].dtype == pl.Datetime("us", "UTC")
    streams = capfd.readouterr()
    told = {
        "answers": "".join(answer.text for answer in answers),
        "log": caplog.text + streams.out + streams.err,
        "decision log": repr(logged),
        "history": recorded.payment.decode(),
        "export": exported.write_json(),
    }
    for place, text in told.items():
        people = () if place in {"history", "export"} else PEOPLES
        assert [one for one in (*SECRETS, *people) if one in text] == [], place
    kept = [path for path in settings.home.rglob("*") if path.is_file()]
    assert len(kept) > 5
    assert [path.name for path in kept for one in SECRETS if one.encode() in path.read_bytes()] == []
