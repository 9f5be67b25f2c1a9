"""Who may call, and how often."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from fraud_api.http.rates import SharedRate
from fraud_api.http.security import OPEN_PATHS, SCOPES_OF, must_show_key
from fraud_core.access.addresses import is_loopback
from fraud_core.access.api_keys import ApiKeys
from fraud_core.errors import SettingsError
from fraud_core.transactions.transaction import EXAMPLE


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def keys(installation: Any) -> ApiKeys:
    installation.promote(1)
    return ApiKeys.of(installation.settings)


def test_without_a_living_key_nothing_is_answered_but_health(call: Any, installation: Any, keys: ApiKeys) -> None:
    revoked, token = keys.create("gone", ["score"])
    keys.revoke(revoked.id)
    api = call(installation.settings, asks_for_keys=True)
    for headers in ({}, bearer(token), bearer("fraud_x_y"), {"authorization": "Basic eA=="}, {"authorization": "Bearer"}):
        answer = api.post("/v1/score", json=EXAMPLE, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert api.get("/v1/nowhere").status_code == 401
    for path in OPEN_PATHS:
        assert api.get(path).status_code == (307 if path == "/" else 200)


def test_a_key_opens_what_its_scopes_say(call: Any, installation: Any, keys: ApiKeys) -> None:
    tokens = {scope: keys.create(scope, [scope])[1] for scope in ("score", "label", "admin")}
    api = call(installation.settings, asks_for_keys=True)

    def status(scope: str, method: str, path: str) -> int:
        content = {"json": EXAMPLE} if path == "/v1/score" else {}
        return int(getattr(api, method)(path, headers=bearer(tokens[scope]), **content).status_code)

    assert [status(scope, "post", "/v1/score") for scope in tokens] == [200, 403, 403]
    assert [status(scope, "get", "/v1/model") for scope in tokens] == [200, 403, 200]
    assert [status(scope, "get", "/v1/models") for scope in tokens] == [403, 403, 200]
    assert [status(scope, "post", "/v1/admin/reload") for scope in tokens] == [403, 403, 200]


def test_a_route_that_nobody_listed_needs_the_scope_admin(call: Any, installation: Any, keys: ApiKeys) -> None:
    token = keys.create("till", ["score", "label"])[1]
    api = call(installation.settings, asks_for_keys=True)
    paths = {route.path for route in api.app.routes} - set(SCOPES_OF) - OPEN_PATHS
    assert paths == {"/v1/models", "/v1/admin/reload"}
    for path in (*paths, "/v1/of/tomorrow"):
        assert api.get(path, headers=bearer(token)).status_code == 403


def test_a_key_is_known_by_its_id_in_the_log_and_by_nothing_else(
    call: Any, installation: Any, keys: ApiKeys, caplog: pytest.LogCaptureFixture
) -> None:
    key, token = keys.create("till", ["score"])
    api = call(installation.settings, asks_for_keys=True)
    caplog.set_level("INFO", "fraud_api.requests")
    api.post("/v1/score", json=EXAMPLE, headers=bearer(token))
    line = caplog.records[-1].getMessage()
    assert f"key={key.id}" in line
    assert token.rpartition("_")[2] not in line


def test_the_rate_is_a_keys_own(call: Any, installation: Any, keys: ApiKeys) -> None:
    settings = installation.settings.model_copy(update={"api_rate": 0.001, "api_rate_burst": 3})
    one, other = keys.create("one", ["score"])[1], keys.create("other", ["score"])[1]
    api = call(settings, asks_for_keys=True)
    statuses = [api.post("/v1/score", json=EXAMPLE, headers=bearer(one)).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    refused = api.post("/v1/score", json=EXAMPLE, headers=bearer(one))
    assert int(refused.headers["retry-after"]) > 100
    assert api.post("/v1/score", json=EXAMPLE, headers=bearer(other)).status_code == 200


def test_a_rate_refills_with_time_and_never_above_its_burst(tmp_path: Path) -> None:
    rate = SharedRate(tmp_path / "rates", rate=10, burst=2)
    assert [rate.take(1, now=100.0) == 0 for _ in range(3)] == [True, True, False]
    assert rate.take(1, now=100.0) == pytest.approx(0.1)
    assert rate.take(1, now=100.11) == 0
    assert [rate.take(1, now=200.0) == 0 for _ in range(3)] == [True, True, False]
    # the machine was started anew, and its clock with it
    assert rate.take(1, now=1.0) == 0
    rate.close()


def _take(path: Path, count: int, taken: Any) -> None:
    rate = SharedRate(path, rate=0.001, burst=500)
    with taken.get_lock():
        pass
    mine = sum(rate.take(5, now=50.0) == 0 for _ in range(count))
    rate.close()
    with taken.get_lock():
        taken.value += mine


def test_processes_share_one_budget_to_the_last_request(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    taken = context.Value("i", 0)
    workers = [context.Process(target=_take, args=(tmp_path / "rates", 400, taken)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert taken.value == 500


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert not is_loopback("")
    assert not is_loopback("scorer.internal")


def test_open_doors_need_a_loopback_address_or_many_words(installation: Any) -> None:
    def settings(**changes: Any) -> Any:
        return installation.settings.model_copy(update=changes)

    assert not must_show_key(settings(), "127.0.0.1")
    assert must_show_key(settings(), "0.0.0.0")
    assert must_show_key(settings(api_auth="keys"), "127.0.0.1")
    assert not must_show_key(settings(api_auth="off"), "::1")
    with pytest.raises(SettingsError, match="everyone who reaches"):
        must_show_key(settings(api_auth="off"), "0.0.0.0")
    assert not must_show_key(settings(api_auth="off", api_open_to_everyone_who_reaches_it=True), "0.0.0.0")


def test_where_no_key_is_asked_no_page_of_another_site_can_label(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings)
    label = {"json": {"transaction_id": "t1", "outcome": "fraud", "source": "analyst"}}
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        answer = api.post("/v1/labels", headers=headers, **label)
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:fraud:problem:from-another-site")
    assert api.post("/v1/labels", headers={"origin": "http://test"}, **label).status_code != 403
