"""The door: who is let in, for how long, and from which addresses nobody needs to knock."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from fraud_core.addresses import is_loopback
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings
from fraud_core.stores.database import open_database
from fraud_core.stores.users import User, Users
from fraud_ui.server import must_sign_in
from fraud_ui.services import Desk
from fraud_ui.sign_in import COOKIE, TRIES, VISIT_SECONDS, Door, NotAllowedError, NotSignedInError, Visits

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


@pytest.fixture
def knock(users: Users) -> Callable[..., Browser]:
    def browser(users: Users | None = users) -> Browser:
        async def inside(_: Request) -> PlainTextResponse:
            return PlainTextResponse("inside")

        routes = [Route("/", inside), Route("/healthz", inside)]
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
    assert COOKIE not in waiting.cookies


def test_a_form_from_another_site_and_one_too_long_are_refused(knock: Callable[..., Browser]) -> None:
    client = knock()
    foreign = client.post("/sign-in", data={"name": "anna", "password": "x"}, headers={"origin": "http://elsewhere"})
    assert foreign.status_code == 403
    assert client.post("/sign-in", data={"name": "anna", "password": "x" * 5_000}).status_code == 413


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
