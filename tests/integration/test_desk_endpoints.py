"""Every endpoint of the desk, as programs call it: who may, what comes back, and that a test leaves no trace."""

import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file

from fraud_core.models.registry import point_at
from fraud_core.scoring.score import score_together
from fraud_core.transactions.transaction import EXAMPLE, Transaction
from fraud_ui.sign_in import TRIES
from fraud_ui.views.case import LABELS
from tests.api_server import eventually
from tests.desk import DeskServer

pytestmark = pytest.mark.integration

OWN = {
    "headers": ["Field", "Value", "What it may be"],
    "data": [],
}  # no own fields
FORM = ("2020-06-21T12:14:25", 2.86, "personal_care", "Kirlin", "tok", "1968-03-19", 333497, 33.9, -80.9, 33.98, -81.2, OWN)
# What each endpoint is called with; what has no line is called by the page alone.
CALLS: dict[str, tuple[Any, ...]] = {
    "/arrive": ("Europe/Zurich",),
    "/status": (),
    "/follow_fields": (OWN,),
    "/example_a_plain_purchase": (),
    "/example_card_testing": (),
    "/example_an_account_takeover_at_night": (),
    "/example_a_far_away_purchase": (),
    "/load_case": ("case-001",),
    "/test_case": FORM,
    "/what_if_amount": (250.0, 3, 10.0, "city_population"),
    "/what_if_hour": (250.0, 4, 10.0, "city_population"),
    "/what_if_distance": (250.0, 3, 400.0, "city_population"),
    "/what_if_number": (250.0, 3, 10.0, "city_population"),
    "/cancel_file": (),
    "/open_queue": (),
    "/read_queue": (),
    "/take_case": (),
    "/put_back": (),
    "/open_models": ("review", 5),
    "/read_models": ("review", 5),
    "/move_which": (None, "decline", 5),
    "/move_line": (None, "review", 50),
}


def client(desk: DeskServer, cookie: str) -> Client:
    return Client(desk.url, headers=signed(desk, cookie), verbose=False, analytics_enabled=False)


def signed(desk: DeskServer, cookie: str) -> dict[str, str]:
    return {"cookie": f"{desk.cookie_name}={cookie}"}


def send(desk: DeskServer, cookie: str, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{desk.url}/gradio_api/{path}", headers=signed(desk, cookie), timeout=30, **body)


def sent(folder: Path, content: str) -> Path:
    path = folder / "sent.csv"
    path.write_text(content)
    return path


def call_raw(desk: DeskServer, cookie: str, function: dict[str, Any]) -> httpx.Response:
    """An endpoint called by its number with nothing, as anybody on the network could."""
    data = [{"slider": 5, "dataframe": OWN}.get(kind) for kind in function["kinds"]]
    body = {"data": data, "fn_index": function["id"], "session_hash": "anybody"}
    return send(desk, cookie, "run/predict", json=body)


def functions(desk: DeskServer, cookie: str) -> list[dict[str, Any]]:
    config = httpx.get(f"{desk.url}/config", headers=signed(desk, cookie)).json()
    kinds = {component["id"]: component["type"] for component in config["components"]}
    found = [function for function in config["dependencies"] if function["backend_fn"]]
    return [function | {"kinds": [kinds[one] for one in function["inputs"]]} for function in found]


def test_nothing_but_the_door_is_reached_without_signing_in(desk: DeskServer) -> None:
    paths = ["/config", "/gradio_api/info", "/theme.css", "/gradio_api/queue/data?session_hash=x", "/gradio_api/file=/etc/passwd"]
    for path in paths:
        assert httpx.get(desk.url + path).status_code == 401, path
    for path in ("/gradio_api/run/test_case", "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/call/take_case"):
        assert httpx.post(desk.url + path, json={"data": []}).status_code == 401, path
    front = httpx.get(desk.url, headers={"accept": "text/html"})
    assert (front.status_code, front.headers["location"]) == (303, "/sign-in")
    assert httpx.post(f"{desk.url}/sign-in", data={"name": "nobody", "password": "x"}).status_code == 401
    for path in ("/healthz", "/sign-in"):
        answer = httpx.get(desk.url + path)
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_every_endpoint_refuses_whoever_was_revoked_and_a_lead_only_one_refuses_analysts(desk: DeskServer) -> None:
    cookie = desk.newcomer("leaver")
    found = functions(desk, cookie)
    assert len(found) > 25
    leads_only = [function for function in found if function["api_name"] == "overrule"]
    assert leads_only
    for function in leads_only:
        assert "Only a lead" in call_raw(desk, cookie, function).text
    desk.users.revoke("leaver")
    for function in found:
        told = call_raw(desk, cookie, function).text
        assert "not signed in any more" in told, (function["api_name"], told[:200])


def test_whatever_fails_in_any_handler_is_a_sentence_whose_id_the_log_has_without_a_value(desk: DeskServer) -> None:
    cookie = desk.newcomer("breaker", "lead")
    before = desk.log.stat().st_size
    found, ids = functions(desk, cookie), []
    for function in found:
        body = {
            "data": [{"4111111111111111": "secret"}] * len(function["inputs"]),
            "fn_index": function["id"],
            "session_hash": "any",
        }
        answer = send(desk, cookie, "run/predict", json=body)
        assert "Traceback" not in answer.text
        if answer.status_code != 200:
            told = answer.json()["error"]
            assert told, function["api_name"]
            ids += re.findall(r"as error ([0-9a-f]{12});", told)
    assert ids
    log = desk.log.read_text()[before:]
    assert [one for one in ids if one not in log] == []
    assert "fraud_ui/endpoints.py:" in log
    assert [value for value in ("4111", "secret", "Traceback") if value in log] == []
    metrics = httpx.get(f"{desk.url}/metrics").text
    errors = dict(re.findall(r'fraud_desk_handler_errors_total\{handler="(\w+)"\} ([0-9.]+)', metrics))
    assert set(errors) == {function["api_name"] for function in found}  # so none is forgotten
    assert sum(float(count) for count in errors.values()) >= len(ids)
    assert 'fraud_desk_handler_seconds_count{handler="test_case"}' in metrics


def test_what_one_user_sends_and_takes_away_no_other_reaches(desk: DeskServer, tmp_path: Path) -> None:
    owner, other = desk.newcomer("owner"), desk.newcomer("other")
    content = f"timestamp,amount\n{FORM[0]}Z,12.5\n"
    (path,) = send(desk, owner, "upload", files={"files": ("mine.csv", content)}).json()
    score = next(function for function in functions(desk, other) if function["api_name"] == "score_file")
    reader = client(desk, owner)

    def seen(cookie: str, path: str) -> set[int]:
        ways = (f"file={path}", f"file/{path}", f"file/{path.removeprefix('/')}")
        return {httpx.get(f"{desk.url}/gradio_api/{way}", headers=signed(desk, cookie)).status_code for way in ways}

    assert 200 in seen(owner, path)
    assert seen(other, path) == seen(owner, "/etc/passwd") == seen(owner, str(desk.settings.home / "fraud.sqlite")) == {403}
    stolen = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for named in (
        stolen,
        stolen | {"path": "http://127.0.0.1:9/x.csv"},
        stolen | {"path": str(desk.settings.home / "fraud.sqlite")},
    ):
        told = send(
            desk, other, "run/predict", json={"data": [named, None], "fn_index": score["id"], "session_hash": "any"}
        ).json()
        assert "no such file of yours" in told["error"]
    assert Path(path).read_text() == content

    _, _, download, *_ = reader.predict(handle_file(sent(tmp_path, content)), api_name="/score_file")
    made = next((desk.settings.home / "run" / "desk").glob("*/made/*/scored.csv"))
    assert "12.50" in Path(download["value"] if isinstance(download, dict) else download).read_text()
    assert seen(other, str(made)) == {403}


def test_gradios_routes_that_the_page_does_not_need_are_closed(desk: DeskServer) -> None:
    cookie = desk.newcomer("curious")
    for path in (
        "proxy=http://127.0.0.1:1/",
        "vibe-code",
        "vibe-edit/",
        "process_recording",
        "deep_link",
        "stream/x/y/z/playlist.m3u8",
    ):
        for method in ("GET", "POST"):
            answer = httpx.request(method, f"{desk.url}/gradio_api/{path}", headers=signed(desk, cookie))
            assert (answer.status_code, answer.text) == (404, "There is nothing here."), path
    assert httpx.get(f"{desk.url}/monitoring", headers=signed(desk, cookie)).status_code == 404


def test_an_address_that_a_caller_makes_up_does_not_begin_the_count_anew(desk: DeskServer) -> None:
    def status(number: int) -> int:
        headers = {"x-forwarded-for": f"10.0.0.{number}"}
        return httpx.post(f"{desk.url}/sign-in", data={"name": "guessed", "password": "x"}, headers=headers).status_code

    assert [status(number) for number in range(TRIES + 1)] == [401] * TRIES + [429]


def test_a_new_password_ends_every_visit(desk: DeskServer) -> None:
    cookie = desk.newcomer("renewed")
    status = next(function for function in functions(desk, cookie) if function["api_name"] == "status")
    assert "renewed (analyst)" in call_raw(desk, cookie, status).text
    _, password = desk.users.reset("renewed")
    assert "not signed in any more" in call_raw(desk, cookie, status).text
    assert "renewed (analyst)" in call_raw(desk, desk.cookie("renewed", password), status).text


def test_every_endpoint_answers(desk: DeskServer, tmp_path: Path) -> None:
    analyst = client(desk, desk.newcomer("caller"))
    version = desk.versions[0]
    answers = {}
    for name, given in CALLS.items():
        answers[name] = analyst.predict(*(version if value is None else value for value in given), api_name=name)
    assert version in answers["/status"]
    assert answers["/example_card_testing"][1] == 1.07
    assert answers["/load_case"][1] == 57.02
    assert "Kirlin &amp; Sons" in answers["/load_case"][-1]
    assert "Exactly <code>0." in answers["/test_case"][0]
    assert "Probability of fraud by distance" in answers["/what_if_distance"]
    assert "Waiting for you" in answers["/open_queue"][-2]
    assert "case-059" in answers["/take_case"][0]
    assert "Average precision" in answers["/open_models"][2]
    assert "Cost by the decline threshold" in answers["/move_which"]
    other = desk.versions[1]
    card, _, compared = analyst.predict(version, other, "review", 5, api_name="/choose_version")
    assert "http://127.0.0.1:5000/#/experiments/1/runs/7" in card
    assert "runs/2f00ba12-3c" in card
    assert f"{version}</code> had an average precision <strong>+0.0123" in compared
    assert analyst.predict(version, version, api_name="/choose_other").count("Choose two versions") == 1
    assert "2024-03 is rejected" in analyst.predict("2024-03", api_name="/choose_partition")
    for outcome in ("legitimate", "unsure", "fraud"):
        analyst.predict(api_name="/take_case")
        shown, _, *_ = analyst.predict("seen", api_name=f"/label_{outcome}")
        assert f"is labelled {outcome}" in shown
    told = {label.transaction_id: label for label in desk.labels.since(0, 100) if label.author == "caller"}
    assert sorted(label.outcome for label in told.values()) == ["fraud", "legitimate", "unsure"]
    assert {(label.source, label.role, label.note) for label in told.values()} == {("analyst", "analyst", "seen")}
    lead = client(desk, desk.newcomer("boss", "lead"))
    unsure = next(one for one, label in told.items() if label.outcome == "unsure")
    lead.predict(unsure, "fraud", "the card was stolen", api_name="/overrule")
    assert [label.outcome for label in desk.labels.of([unsure])[unsure]] == ["unsure", "fraud"]
    uploaded = tmp_path / "few.csv"
    uploaded.write_text("transaction_id,timestamp,amount,merchant\n=1+1,2020-01-01T00:00:00Z,1,@x\n,2020-01-01,7,\n")
    *_, (_, summary, download, *_) = analyst.submit(handle_file(uploaded), api_name="/score_file")
    assert "1 scored, 1 refused" in summary
    assert "(it is written as 9999-99-99)" in summary
    taken = Path(download["value"] if isinstance(download, dict) else download).read_text()
    assert "'=1+1" in taken
    assert "'@x" in taken
    called = {*CALLS, "/choose_version", "/choose_other", "/choose_partition", "/overrule", "/score_file"}
    called |= {f"/label_{outcome}" for outcome in ("legitimate", "unsure", "fraud")}
    assert called == set(analyst.view_api(return_format="dict")["named_endpoints"])
    left = list((desk.settings.home / "run" / "desk").rglob("few.csv"))
    assert left == []


def test_tests_and_what_ifs_record_nothing(desk: DeskServer) -> None:
    analyst = client(desk, desk.newcomer("tester"))

    def recorded() -> dict[str, int]:
        """Rows of every table of every database under the home."""
        counts = {}
        for path in desk.settings.home.glob("*.sqlite"):
            with closing(sqlite3.connect(path)) as database:
                tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                for name in tables:
                    counts[f"{path.name} {name}"] = database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
        return counts

    analyst.predict(*FORM, api_name="/test_case")
    before = recorded()
    for amount in (1.0, 10.0, 100.0):
        analyst.predict(FORM[0], amount, *FORM[2:], api_name="/test_case")
        analyst.predict(amount, 3, 10.0, None, api_name="/what_if_amount")
    assert recorded() == before
    assert before["fraud.sqlite decisions"] == 60


def test_what_is_wrong_is_named_and_nothing_typed_is_lost(desk: DeskServer) -> None:
    analyst = client(desk, desk.newcomer("typo"))
    result = analyst.predict(
        "21.06.2020 12:14", 1.234, "x", "m", "", "1968", None, 140, None, None, None, OWN, api_name="/test_case"
    )
    for said in (LABELS["when"], "at most two decimals", LABELS["birth_date"], "must be at most 90", "still there"):
        assert said in result[0]
    assert len(result) == 6  # the result, the sliders, the choice of a number and the curves: no field of the form


def test_twenty_analysts_at_once_see_their_own_cases_alone(desk: DeskServer) -> None:
    cookies = [desk.newcomer(f"analyst-{number}") for number in range(20)]

    def work(number: int) -> tuple[list[str], str]:
        analyst = client(desk, cookies[number])
        mine = []
        for turn in range(2):
            amount = 100.0 * number + turn + 1
            result = analyst.predict(FORM[0], amount, *FORM[2:], api_name="/test_case")
            mine.append(result[0])
            assert f"The amount of {amount:,.2f}" in result[0]
            curves = analyst.predict(amount, 3, 10.0, None, api_name="/what_if_amount")
            assert f"<strong>{amount:,.2f} at 03:00" in curves
        case = analyst.predict(api_name="/take_case")[0]
        found = re.search(r"case-\d{3}", case)
        return mine, found[0] if found else ""

    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(work, range(20)))
    cases = [case for _, case in done]
    assert all(cases)
    assert len(set(cases)) == 20  # no case twice


def test_a_score_comes_to_the_last_digit(desk: DeskServer) -> None:
    analyst = client(desk, desk.newcomer("compares"))
    for amount in (0.0, 2.86, 1_149.99):
        sent = EXAMPLE | {"amount": amount}
        expected = score_together(desk.scorer, [Transaction.model_validate(sent)], None).probabilities[0]
        named = ("category", "merchant", "card", "birth_date", "city_population")
        places = ("home_latitude", "home_longitude", "merchant_latitude", "merchant_longitude")
        typed = (sent["timestamp"], amount, *(sent[name] for name in (*named, *places)), OWN)
        assert f"Exactly <code>{float(expected)!r}</code>" in analyst.predict(*typed, api_name="/test_case")[0]


def test_a_promotion_is_followed_without_a_restart(desk: DeskServer) -> None:
    analyst = client(desk, desk.newcomer("follower"))
    new, old = desk.versions
    store, key, now = desk.installation.store, desk.installation.key, datetime.now(UTC)
    assert new in analyst.predict(api_name="/status")
    point_at(store, old, key, how="rollback", who="t", at=now, reason="a test", withdraw=new)
    assert eventually(lambda: old in analyst.predict(api_name="/status"))
    assert f"by version <code>{old}" in analyst.predict(*FORM, api_name="/test_case")[0]
    point_at(store, new, key, how="restoration", who="t", at=now, reason="a test")
    assert eventually(lambda: new in analyst.predict(api_name="/status"))


def test_a_store_that_is_gone_is_told_in_a_sentence_and_scoring_goes_on(desk: DeskServer) -> None:
    analyst = client(desk, desk.newcomer("patient"))
    store = Path(desk.settings.store_url)
    away = store.with_name("away")
    store.rename(away)
    try:
        assert eventually(lambda: "cannot be followed" in analyst.predict(api_name="/status"))
        assert "Exactly <code>" in analyst.predict(*FORM, api_name="/test_case")[0]
    finally:
        away.rename(store)
    assert eventually(lambda: "cannot be followed" not in analyst.predict(api_name="/status"))
