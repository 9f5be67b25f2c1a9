"""What the scoring routes promise."""

import json
import random
import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import polars as pl
import pytest

from fraud_core.features import catalogue
from fraud_core.intake.files import LINE
from fraud_core.intake.parsing import parse
from fraud_core.models.scorer import Scorer
from fraud_core.scoring.score import inputs_of
from fraud_core.signing.keys import Key, canonical_json, sign
from fraud_core.sources.source import Source
from fraud_core.transactions.transaction import EXAMPLE, FIELDS, Transaction
from tests.api_server import NAMELESS

Make = Callable[[int], list[dict[str, Any]]]


def test_a_score_is_that_of_the_core(call: Any, installation: Any, made_transactions: Make) -> None:
    version = installation.promote(1)
    api = call(installation.settings)
    scorer = Scorer(installation.bundle(1))
    for sent in made_transactions(50):
        answer = api.post("/v1/score", json=sent)
        assert answer.status_code == 200
        expected = float(scorer.score_inputs(inputs_of([Transaction.model_validate(sent)]))[0])
        assert answer.json() == {
            "transaction_id": sent["transaction_id"],
            "probability": expected,
            "decision": scorer.decide(expected),
            "model_version": version,
            "degraded": False,
        }


@pytest.mark.parametrize(
    ("timezone", "columns"), [("America/New_York", FIELDS), ("UTC", tuple(set(FIELDS) - {"card", "merchant"}))]
)
def test_the_features_are_bit_equal_to_those_of_the_pipeline(timezone: str, columns: tuple[str, ...]) -> None:
    """From one table, by the intake's text parser and feature frame, and by the API's JSON and arrays."""
    rng = np.random.default_rng(3)
    rows = 20_000
    begin = np.datetime64("2019-01-01T00:00:00")
    table = {
        "transaction_id": [f"id{at}" for at in range(rows)],
        "timestamp": [str(moment).replace("T", " ") for moment in begin + rng.integers(0, 63_000_000, rows).astype("m8[s]")],
        "amount": [f"{cents // 100}.{cents % 100:02d}" for cents in rng.integers(0, 3_000_000, rows)],
        "card": [str(card) for card in rng.integers(10**15, 10**16, rows)],
        "merchant": rng.choice(["", "Kirlin and Sons", " Schmidt "], rows).tolist(),
        "category": rng.choice(["", "travel", " misc_net ", "new to us"], rows).tolist(),
        "birth_date": [str(day) for day in np.datetime64("1925-01-01") + rng.integers(0, 33_000, rows).astype("m8[D]")],
        "city_population": [str(n) for n in rng.integers(0, 10**7, rows)],
    }
    for name, bound in {"home_latitude": 90, "home_longitude": 180, "merchant_latitude": 90, "merchant_longitude": 180}.items():
        table[name] = [repr(value) for value in rng.uniform(-bound, bound, rows).round(6).tolist()]
    table = {name: values for name, values in table.items() if name in columns}
    declared = {name: name for name in table if name not in {"timestamp", "birth_date"}}
    source = Source.model_validate(
        {
            "name": "parity",
            "description": "For a test.",
            "paths": ["nowhere.csv"],
            "timezone": timezone,
            "cadence": "monthly",
            "first": "2019-01",
            "last": "2020-12",
            "label_delay_days": 7,
            "history_days": 30,
            "columns": {
                **declared,
                "timestamp": {"column": "timestamp", "formats": ["%Y-%m-%d %H:%M:%S"]},
                "birth_date": {"column": "birth_date", "formats": ["%Y-%m-%d"]},
                "label": "label",
            },
            "split": {"protocol": "time"},
        }
    )
    lines = pl.Series(LINE, range(1, rows + 1), dtype=pl.UInt32)
    raw = parse(pl.DataFrame({**table, "label": ["0"] * rows}).with_columns(lines), "file", source, Key(bytes(32))).rows
    assert len(raw) > 0.99 * rows  # a few have times that the clocks skipped
    kept = [at - 1 for at in raw["source_line"]]
    moments = dict(zip(raw["transaction_id"], raw["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"), strict=True))

    def as_sent(at: int) -> bytes:
        row: dict[str, Any] = {name: values[at] for name, values in table.items()}
        row["timestamp"] = moments[row["transaction_id"]]
        numbers = [name for name in row if name.endswith(("latitude", "longitude"))] + ["city_population"]
        return json.dumps(row | {name: json.loads(row[name]) for name in numbers}).encode()

    served = [Transaction.model_validate_json(as_sent(at)) for at in kept]
    zone = ZoneInfo(timezone)
    online = catalogue.compute(catalogue.PLAIN, inputs_of(served), zone)
    offline = catalogue.compute(catalogue.PLAIN, catalogue.inputs_of(raw, catalogue.PLAIN), zone)
    for name, values in offline.items():
        if values.dtype == object:
            assert online[name].tolist() == values.tolist()
        else:
            assert online[name].tobytes() == values.tobytes(), name


def test_one_row_has_the_same_bits_as_in_a_batch(call: Any, installation: Any, made_transactions: Make) -> None:
    installation.promote(1)
    api = call(installation.settings)
    sent = made_transactions(200)
    batch = api.post("/v1/score/batch", json={"transactions": sent}).json()
    single = [api.post("/v1/score", json=row).json()["probability"] for row in sent]
    assert [result["probability"] for result in batch["results"]] == single


def test_reasons_base_and_the_rest_sum_to_the_served_log_odds(call: Any, installation: Any, made_transactions: Make) -> None:
    installation.promote(3)
    api = call(installation.settings)
    for sent in made_transactions(20):
        answer = api.post("/v1/score?explain=true", json=sent).json()
        explanation, probability = answer["explanation"], answer["probability"]
        named = sum(reason["contribution"] for reason in explanation["reasons"])
        assert explanation["base"] + named + explanation["others"] == pytest.approx(explanation["total"], abs=1e-9)
        assert explanation["total"] == pytest.approx(np.log(probability / (1 - probability)), abs=1e-9)
        assert explanation["reasons"][0]["sentence"].endswith("risk.")


def test_a_field_the_model_needs_and_the_request_lacks_counts_as_missing(call: Any, installation: Any) -> None:
    installation.promote(1)
    answer = call(installation.settings).post(
        "/v1/score?explain=true", json={"timestamp": "2020-06-21T02:00:00Z", "amount": 900, "category": "never seen"}
    )
    assert answer.status_code == 200
    assert len(answer.json()["transaction_id"]) == 32


def test_a_wrong_row_does_not_sink_the_others(call: Any, installation: Any) -> None:
    installation.promote(1)
    rows: list[Any] = [EXAMPLE, {**EXAMPLE, "amount": -1}, 5, None, EXAMPLE, {}]
    answer = call(installation.settings).post("/v1/score/batch", json={"transactions": rows}).json()
    assert (answer["rows"], answer["refused"]) == (6, 4)
    assert [("errors" in result) for result in answer["results"]] == [False, True, True, True, False, True]
    assert answer["results"][1]["errors"] == [{"field": "amount", "reason": "is out of bounds (0 to 1000000000)"}]
    assert {error["field"] for error in answer["results"][5]["errors"]} == {"timestamp", "amount"}


def test_a_batch_of_ten_thousand_is_taken_and_one_more_is_not(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings)
    row = {"timestamp": "2020-06-21T02:00:00Z", "amount": 900}
    assert api.post("/v1/score/batch", json={"transactions": [row] * 10_000}).json()["rows"] == 10_000
    refused = api.post("/v1/score/batch", json={"transactions": [row] * 10_001})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "transactions"


def test_without_a_model_it_lives_is_not_ready_and_says_what_to_do(call: Any, installation: Any) -> None:
    api = call(installation.settings)
    assert api.get("/healthz").status_code == 200
    assert (api.get("/readyz").status_code, api.get("/readyz").json()["ready"]) == (503, False)
    for path, content in [("/v1/score", EXAMPLE), ("/v1/score/batch", {"transactions": [EXAMPLE]})]:
        answer = api.post(path, json=content)
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert "Promote a champion" in answer.json()["detail"]


def test_a_promotion_is_served_without_a_restart_and_on_request_at_once(call: Any, installation: Any) -> None:
    api = call(installation.settings.model_copy(update={"poll_seconds": 3600}))
    assert api.post("/v1/score", json=NAMELESS).status_code == 503
    first = installation.promote(1)
    assert api.post("/v1/admin/reload").json()["model_version"] == first
    assert api.post("/v1/score", json=NAMELESS).json()["model_version"] == first
    second = installation.promote(2)
    assert api.post("/v1/score", json=NAMELESS).json()["model_version"] == first
    api.post("/v1/admin/reload")
    assert api.post("/v1/score", json=NAMELESS).json()["model_version"] == second


def test_the_model_and_its_predecessors_are_told(call: Any, installation: Any) -> None:
    first, second = installation.promote(1), installation.promote(2)
    card = {"version": second, "created": "2026-01-01T00:00:00Z", "kind": "boosting"}
    where, api = f"models/{second}/runs/run1/card.json", call(installation.settings)
    installation.store.put(where, canonical_json(card))  # as release 0.1.0 did, or anybody
    model = api.get("/v1/model").json()
    assert (model["card"], model["unsigned_card"]) == (None, card)
    installation.store.put(where, canonical_json(sign(card, installation.key)))
    installation.store.put("models/0123456789abcdef/manifest.json", b"{}")  # of a version that is none
    model = api.get("/v1/model").json()
    assert (model["model_version"], model["card"], model["thresholds"]) == (second, card, {"review": 0.4, "decline": 0.8})
    assert model["partitions"] == [{"partition": "2019-01", "content": "c0ffee", "verdict": "accepted"}]
    assert "amount" in model["needs"]
    listed = api.get("/v1/models").json()
    assert {item["model_version"]: item["state"] for item in listed["models"]} == {first: "available", second: "champion"}
    assert [change["model_version"] for change in listed["history"]] == [first, second]


def malformed_bodies(count: int) -> list[bytes]:
    """Bodies that are wrong in every way we could think of, from a seed."""
    rng = random.Random(5)
    whole = json.dumps(EXAMPLE).encode()
    wrong_values = [None, True, [], {}, "", " ", "\u0000", "x" * 300, -1, 1e308, 10**30, "NaN", [1], {"a": 1}, "2020-13-45", "४"]
    bodies: list[bytes] = [b"", b" ", b"null", b"[]", b"5", b'"x"', b"{", b"[" * 5_000, b'{"a":' * 2_000, b"\xff\xfe", b"\x00"]
    while len(bodies) < count:
        match rng.randrange(5):
            case 0:  # cut off
                bodies.append(whole[: rng.randrange(len(whole) - 1)])
            case 1:  # bytes that no text has
                at = rng.randrange(len(whole))
                bodies.append(whole[:at] + bytes([rng.randrange(128, 256)]) + whole[at:])
            case 2:  # a required field gone or wrong
                name = rng.choice(["timestamp", "amount"])
                body: dict[str, Any] = {**EXAMPLE, name: rng.choice(wrong_values[:10])}
                if rng.random() < 0.3:
                    del body[name]
                bodies.append(json.dumps(body).encode())
            case 3:  # an unknown field
                name = "".join(rng.choices(string.printable, k=rng.randrange(1, 30)))
                if name not in FIELDS:
                    bodies.append(json.dumps({**EXAMPLE, name: rng.choice(wrong_values)}).encode())
            case 4:  # a number no field takes
                name = rng.choice([name for name in FIELDS if name.endswith("tude")])
                bodies.append(
                    json.dumps({**EXAMPLE, name: rng.choice([float("nan"), float("inf"), 1e6, "1", [], True])}).encode()
                )
    return bodies


def test_a_thousand_malformed_bodies_are_each_refused_with_the_field_named(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings)
    for body in malformed_bodies(1_000):
        answer = api.post("/v1/score", content=body, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500, body
        assert answer.headers["content-type"] == "application/problem+json"
        assert all(problem["field"] and problem["reason"] for problem in answer.json()["errors"])
        assert answer.json()["errors"], body


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_only_json_is_taken_for_json(call: Any, installation: Any, content_type: str | None) -> None:
    installation.promote(1)
    headers = {} if content_type is None else {"content-type": content_type}
    answer = call(installation.settings).post("/v1/score", content=json.dumps(EXAMPLE).encode(), headers=headers)
    assert answer.status_code == 415


def test_every_answer_carries_the_id_that_its_log_line_has(
    call: Any, installation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    caplog.set_level("INFO", "fraud_api.requests")
    answer = api.post("/v1/score", json={})
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert f"request={answer.json()['request_id']}" in caplog.records[-1].getMessage()
    assert "refused=invalid-input" in caplog.records[-1].getMessage()


def test_an_error_of_ours_is_in_the_log_under_the_id_that_its_caller_got_and_tells_nothing_of_the_payment(
    call: Any, installation: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.promote(1)

    async def fails(*_: object, **__: object) -> None:
        raise ValueError(EXAMPLE["card"])

    monkeypatch.setattr("fraud_api.deciding.Deciding.decide", fails)
    api = call(installation.settings)
    api.http = httpx.AsyncClient(transport=httpx.ASGITransport(api.app, raise_app_exceptions=False), base_url="http://test")
    answer = api.post("/v1/score", json=EXAMPLE)
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:fraud:problem:our-fault")
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert told == f"request {answer.json()['request_id']} ended in a ValueError of ours"
    assert str(EXAMPLE["card"]) not in answer.text


def test_nothing_of_a_payment_reaches_log_metrics_or_problems(
    call: Any, installation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    caplog.set_level("DEBUG")
    secrets = {"card": "4111111111111111", "birth_date": "1968-03-19", "merchant": "Kirlin and Sons", "home_latitude": 33.9659}
    told = []
    for body in [EXAMPLE | secrets, EXAMPLE | secrets | {"amount": -1}, EXAMPLE | secrets | {"4111111111111111": 1}]:
        told.append(api.post("/v1/score?card=4111111111111111", json=body).text)
    told.append(api.post("/v1/score", json=EXAMPLE | secrets | {"transaction_id": "4111111111111111"}).text)
    told.append(api.get("/v1/4111111111111111").text)
    told.append(api.get("/metrics").text)
    told += [record.getMessage() for record in caplog.records if not record.name.startswith("httpx")]
    for secret in ("4111111111111111", "1968-03-19", "Kirlin", "33.9659"):
        assert not any(secret in text for text in told), secret


def test_metrics_count_requests_decisions_and_refusals_with_bounded_labels(call: Any, installation: Any) -> None:
    version = installation.promote(1)
    api = call(installation.settings)
    api.post("/v1/score", json=EXAMPLE)
    api.post("/v1/score", json={})
    for at in range(20):
        api.get(f"/nowhere/{at}")
    text = api.get("/metrics").text
    assert 'http_request_duration_seconds_count{handler="/v1/score",method="POST",status="200"} 1.0' in text
    assert 'fraud_refused_total{kind="invalid-input"} 1.0' in text
    assert 'fraud_decisions_total{decision="approve"} 1.0' in text
    assert f'fraud_model_info{{version="{version}"}} 1.0' in text
    assert text.count("http_request_duration_seconds_count{") == 3
    assert 'handler="none"' in text


def test_bodies_longer_than_allowed_are_refused_whatever_their_header_says(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"api_body_bytes": 2_000}))
    long = json.dumps(EXAMPLE).encode() + b" " * 2_000

    async def in_chunks() -> Any:
        for begin in range(0, len(long), 100):
            yield long[begin : begin + 100]

    declared = api.post("/v1/score", content=long, headers={"content-type": "application/json"})
    chunked = api.post("/v1/score", content=in_chunks(), headers={"content-type": "application/json"})
    assert (declared.status_code, chunked.status_code) == (413, 413)
    assert api.post("/v1/score", json=EXAMPLE).status_code == 200


def test_a_body_that_does_not_arrive_in_time_is_refused(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"api_body_seconds": 0.05}))

    async def send_slowly() -> httpx.Response:
        import asyncio

        sent: list[dict[str, Any]] = []
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/score",
            "raw_path": b"/v1/score",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"test"), (b"content-type", b"application/json")],
        }

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(3600)
            return {}

        async def send(message: Any) -> None:
            sent.append(message)

        await api.app(scope, receive, send)
        return httpx.Response(sent[0]["status"], content=sent[1]["body"])

    assert api.runner.run(send_slowly()).status_code == 408


def test_the_openapi_document_names_every_route_with_an_example(call: Any, installation: Any) -> None:
    document = call(installation.settings).get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/score",
        "/v1/score/batch",
        "/v1/score/file",
        "/v1/refunds",
        "/v1/labels",
        "/v1/model",
        "/v1/models",
        "/v1/admin/reload",
        "/healthz",
        "/readyz",
    }
    body = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"] == EXAMPLE
    label = document["paths"]["/v1/labels"]["post"]
    for content in (label["requestBody"]["content"], label["responses"]["201"]["content"]):
        assert set(content["application/json"]["examples"]) == {"one", "several"}
    assert set(document["components"]["schemas"]["Transaction"]["properties"]) == set(FIELDS)


def test_scoring_from_many_threads_gives_each_its_own_answer(installation: Any, made_transactions: Make) -> None:
    scorer = Scorer(installation.bundle(1))
    rows = [inputs_of([Transaction.model_validate(sent)]) for sent in made_transactions(100)]
    alone = [float(scorer.score_inputs(row)[0]) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: float(scorer.score_inputs(row)[0]), rows * 5)) == alone * 5
