"""The door: who is let in, for how long, and from which addresses nobody needs to knock."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from fraud_core.access.addresses import is_loopback
from fraud_core.access.users import User, Users
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from fraud_ui import sign_in
from fraud_ui.server import must_sign_in
from fraud_ui.services import Desk
from fraud_ui.sign_in import LONGEST_BODY, TRIES, UPLOAD, VISIT_SECONDS, Door, NotAllowedError, NotSignedInError, Visits

ANNA = User("anna", "analyst", "hash", datetime.now(UTC), None, frozenset())


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(open_database(Settings(_env_file=None, home=tmp_path / "home")))


class Browser:
    """Follows no redirect, and keeps cookies."""

    def __init__(self, app: ASGIApp) -> None:
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
        self.cookies = self.http.cookies

    def get(self, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self.http.get(path, **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self.http.post(path, **options))

    def post_at_once(self, path: str, bodies: list[dict[str, str]]) -> list[httpx.Response]:
        async def together() -> list[httpx.Response]:
            return await asyncio.gather(*[self.http.post(path, data=body) for body in bodies])

        return asyncio.run(together())


@pytest.fixture
def knock(users: Users) -> Callable[..., Browser]:
    def browser(users: Users | None = users) -> Browser:
        async def inside(_: Request) -> PlainTextResponse:
            return PlainTextResponse("inside")

        async def reading(request: Request) -> PlainTextResponse:
            return PlainTextResponse(f"{len(await request.body())} bytes by {request.state.visitor}")

        routes = [Route("/", inside), Route("/healthz", inside), Route("/{path:path}", reading, methods=["GET", "POST"])]
        return Browser(Door(Starlette(routes=routes), Visits(), users))

    return browser


def test_a_visit_lasts_half_a_day_and_ends_when_it_is_closed() -> None:
    visits = Visits()
    token = visits.open(ANNA, now=0.0)
    visit = visits.of(token, now=VISIT_SECONDS - 1.0)
    assert visit is not None
    assert (visit.name, visits.by_id(visit.id)) == ("anna", visit)
    assert visits.of(token, now=VISIT_SECONDS + 1.0) is None
    assert visits.of("guessed", now=1.0) is None
    assert token not in repr(visits.__dict__)
    visits.close(token)
    assert visits.of(token, now=1.0) is None


def test_the_right_password_opens_and_signing_out_closes(knock: Callable[..., Browser], users: Users) -> None:
    _, password = users.create("anna", "analyst")
    client = knock()
    assert client.get("/", headers={"accept": "text/html"}).headers["location"] == "/sign-in"
    assert client.get("/").status_code == 401
    answer = client.post("/sign-in", data={"name": " Anna ", "password": password})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert client.get("/").text == "inside"
    assert client.post("/sign-out").headers["location"] == "/sign-in"
    client.cookies.clear()
    assert client.get("/").status_code == 401
    assert client.get("/healthz").status_code == 200


def test_wrong_passwords_are_slowed_down_and_never_repeated(knock: Callable[..., Browser], users: Users) -> None:
    _, password = users.create("anna", "analyst")
    client = knock()
    for _ in range(TRIES):
        answer = client.post("/sign-in", data={"name": "anna", "password": "<b>guess</b>"})
        assert answer.status_code == 401
        assert "guess" not in answer.text
    waiting = client.post("/sign-in", data={"name": "anna", "password": password})
    assert waiting.status_code == 429
    assert not waiting.cookies


def test_of_a_hundred_passwords_at_once_no_more_are_judged_than_one_after_the_other(
    knock: Callable[..., Browser], users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    monkeypatch.setattr(users, "verified", lambda name, password: judged.append(name))
    answers = knock().post_at_once("/sign-in", [{"name": "anna", "password": str(number)} for number in range(100)])
    assert judged == ["anna"] * TRIES
    assert sorted(answer.status_code for answer in answers) == [401] * TRIES + [429] * (100 - TRIES)


def test_many_names_from_one_address_are_slowed_down_too_and_right_passwords_do_not_count(
    knock: Callable[..., Browser], users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "verified", lambda name, _: ANNA if name == "anna" else None)
    client = knock()
    for _ in range(2 * TRIES):
        assert client.post("/sign-in", data={"name": "anna", "password": "right"}).status_code == 303
    answers = client.post_at_once("/sign-in", [{"name": f"n{number}", "password": "x"} for number in range(100)])
    assert sum(answer.status_code == 401 for answer in answers) == sign_in.ADDRESS_TRIES


@pytest.mark.parametrize("signs_in", [True, False])
@pytest.mark.parametrize("origin", ["http://elsewhere", "null", "http://test:81", "http://test.elsewhere"])
def test_what_another_site_sends_is_refused_whether_or_not_people_sign_in(
    knock: Callable[..., Browser], users: Users, origin: str, signs_in: bool
) -> None:
    client = knock(users if signs_in else None)
    for path in ("/sign-in", "/sign-out", UPLOAD, "/gradio_api/queue/join"):
        assert client.post(path, data={"name": "anna"}, headers={"origin": origin}).status_code == 403, path


def test_our_own_form_is_taken_and_one_too_long_is_not(knock: Callable[..., Browser], users: Users) -> None:
    _, password = users.create("anna", "analyst")
    client = knock()
    assert client.post("/sign-in", data={"name": "anna", "password": "x" * 5_000}).status_code == 413
    own = client.post("/sign-in", data={"name": "anna", "password": password}, headers={"origin": "http://test"})
    assert own.status_code == 303
    assert own.headers["referrer-policy"] == "same-origin"  # with `no-referrer`, browsers send our own form as from `null`
    assert client.post("/gradio_api/run/predict", content=b"x" * (LONGEST_BODY + 1)).status_code == 413
    assert client.post(UPLOAD, content=b"x" * (LONGEST_BODY + 1)).text == f"{LONGEST_BODY + 1} bytes by anna"


def test_two_desks_on_one_host_do_not_sign_each_other_out(knock: Callable[..., Browser], users: Users) -> None:
    _, password = users.create("anna", "analyst")
    one, other = knock(), knock()
    for desk, port in ((one, 7860), (other, 7861)):
        desk.http.base_url = httpx.URL(f"http://test:{port}")
        desk.http.cookies = one.http.cookies  # one browser, which keeps cookies by host
        assert desk.post("/sign-in", data={"name": "anna", "password": password}).status_code == 303
    assert [desk.get("/").text for desk in (one, other)] == ["inside", "inside"]
    other.post("/sign-out")
    assert (one.get("/").status_code, other.get("/").status_code) == (200, 401)


def test_whoever_is_revoked_is_refused_at_every_path_and_in_the_middle_of_an_upload(
    knock: Callable[..., Browser], users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "PRESENT_SECONDS", 0.0)
    _, password = users.create("anna", "analyst")
    client = knock()
    client.post("/sign-in", data={"name": "anna", "password": password})
    came: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(10):
            if number == 3:
                users.revoke("anna")
            came.append(number)
            yield b"x" * 1_000

    with pytest.raises(ClientDisconnect):  # as the route sees it, which then removes what came so far
        client.post(UPLOAD, content=pieces())
    assert max(came) < 9
    for path in ("/", "/config", UPLOAD, "/gradio_api/component_server", "/gradio_api/queue/join", "/gradio_api/file=x"):
        for answer in (client.get(path), client.post(path)):
            assert answer.status_code == 401, path
            assert "not signed in any more" in answer.text


def test_every_answer_forbids_what_is_elsewhere(knock: Callable[..., Browser]) -> None:
    for client in (knock(), knock(None)):
        policy = client.get("/healthz").headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy
    assert knock(None).get("/").text == "inside"


def test_who_asks_is_asked_of_the_database_each_time(tmp_path: Path) -> None:
    desk = Desk.open(Settings(_env_file=None, home=tmp_path), signs_in=True)
    assert desk.users is not None
    user, _ = desk.users.create("anna", "analyst")
    visit = desk.visits.of(desk.visits.open(user))
    assert visit is not None
    assert desk.person(visit.id, "analyst").name == "anna"
    with pytest.raises(NotAllowedError, match="Only a lead"):
        desk.person(visit.id, "lead")
    desk.users.change_role("anna", "lead")
    assert desk.person(visit.id, "lead").role == "lead"
    for nobody in (None, "", "guessed"):
        with pytest.raises(NotSignedInError):
            desk.person(nobody, "analyst")
    desk.users.revoke("anna")
    with pytest.raises(NotSignedInError):
        desk.person(visit.id, "analyst")


def test_without_signing_in_whoever_reaches_it_is_a_lead_under_an_unverified_name(tmp_path: Path) -> None:
    somebody = Desk.open(Settings(_env_file=None, home=tmp_path), signs_in=False).person(None, "lead")
    assert somebody.name.startswith("unverified:")
    assert somebody.role == "lead"


@pytest.mark.parametrize(
    ("auth", "host", "expected"),
    [("auto", "127.0.0.1", False), ("auto", "0.0.0.0", True), ("users", "127.0.0.1", True), ("off", "::1", False)],
)
def test_people_sign_in_wherever_others_could_reach_it(auth: str, host: str, expected: bool) -> None:
    assert must_sign_in(Settings(_env_file=None, ui_auth=auth), host) is expected  # type: ignore[arg-type]


def test_an_open_desk_binds_to_this_machine_alone() -> None:
    with pytest.raises(SettingsError, match="FRAUD_UI_AUTH=off on"):
        must_sign_in(Settings(_env_file=None, ui_auth="off"), "0.0.0.0")
    assert is_loopback("localhost")
    assert not is_loopback("desk.example")
