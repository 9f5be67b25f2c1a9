"""The door of the desk: who signed in, for how long, and what a browser may load. Nothing behind it is reached without it."""

import hashlib
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from importlib import resources
from string import Template
from urllib.parse import parse_qs, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fraud_core.errors import FraudError, StoreError
from fraud_core.stores.users import User, Users
from fraud_ui.wording import escaped

COOKIE = "fraud_desk"
VISIT_SECONDS = 12 * 3_600
TRIES, WAIT_SECONDS = 5, 60.0  # so many wrong passwords for a name from an address, then so long a pause
OPEN_PATHS = frozenset({"/sign-in", "/healthz"})
LONGEST_FORM = 2_000  # bytes

# What a page may load: this server alone. Gradio's own code needs inline scripts, eval and blobs.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}


class NotSignedInError(FraudError):
    """Nobody is signed in here, or no longer."""


class NotAllowedError(FraudError):
    """The person may not do this."""


@dataclass(frozen=True)
class Visit:
    """Somebody who signed in. `password` is the hash that held then: with a new password all visits end."""

    id: str
    name: str
    password: str
    ends: float


class Visits:
    """Who is signed in, in this process. A token is kept as its hash alone. Safe to share between threads."""

    def __init__(self) -> None:
        self._visits: dict[str, Visit] = {}
        self._wrong: dict[tuple[str, str], tuple[int, float]] = {}
        self._lock = threading.Lock()

    def open(self, user: User, now: float | None = None) -> str:
        """Begin a visit; returns the token for the browser's cookie."""
        token = secrets.token_urlsafe(32)
        now = time.monotonic() if now is None else now
        with self._lock:
            self._visits = {key: visit for key, visit in self._visits.items() if visit.ends > now}
            self._visits[_hash(token)] = Visit(secrets.token_hex(8), user.name, user.password, now + VISIT_SECONDS)
        return token

    def of(self, token: str, now: float | None = None) -> Visit | None:
        """The visit that a token belongs to, while it lasts."""
        visit = self._visits.get(_hash(token))
        return visit if visit is not None and visit.ends > (time.monotonic() if now is None else now) else None

    def by_id(self, identity: str) -> Visit | None:
        """The visit of this public id."""
        with self._lock:
            return next((visit for visit in self._visits.values() if visit.id == identity), None)

    def close(self, token: str) -> None:
        """End a visit."""
        with self._lock:
            self._visits.pop(_hash(token), None)

    def must_wait(self, name: str, address: str) -> bool:
        """Whether too many wrong passwords came for this name from this address just now."""
        count, since = self._wrong.get((name, address), (0, 0.0))
        return count >= TRIES and time.monotonic() - since < WAIT_SECONDS

    def failed(self, name: str, address: str) -> None:
        """Note a wrong password."""
        now = time.monotonic()
        with self._lock:
            self._wrong = {key: (n, since) for key, (n, since) in self._wrong.items() if now - since < WAIT_SECONDS}
            count, _ = self._wrong.get((name, address), (0, now))
            self._wrong[name, address] = count + 1, now


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Door:
    """ASGI middleware around the whole desk: the sign-in page, and nothing else without a visit.

    Args:
        users: None where nobody signs in (on loopback alone): then only the headers are added.
    """

    def __init__(self, app: ASGIApp, visits: Visits, users: Users | None) -> None:
        self._app = app
        self._visits = visits
        self._users = users
        self._hashing = threading.Semaphore(4)  # each takes 19 MB for a moment

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan" or self._users is None:
                await self._app(scope, receive, send)
            return  # a websocket is not served

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app = self._app if self._users is None else await self._answering(scope, receive, self._users)
        await app(scope, receive, with_headers)

    async def _answering(self, scope: Scope, receive: Receive, users: Users) -> ASGIApp:
        path, method, headers = scope["path"], scope["method"], Headers(scope=scope)
        if path == "/sign-in":
            return HTMLResponse(page()) if method == "GET" else await self._sign_in(Request(scope, receive), users)
        if path == "/sign-out" and method == "POST":
            self._visits.close(token_of(headers))
            gone = RedirectResponse("/sign-in", 303)
            gone.delete_cookie(COOKIE)
            return gone
        if path in OPEN_PATHS or self._visits.of(token_of(headers)) is not None:
            return self._app
        if method == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/sign-in", 303)
        return JSONResponse({"detail": "Sign in first, on /sign-in."}, 401)

    async def _sign_in(self, request: Request, users: Users) -> Response:
        origin = request.headers.get("origin")
        if origin not in (None, "null") and urlsplit(origin or "").netloc != request.headers.get("host"):
            return HTMLResponse(page("This form was sent from another site; sign in here."), 403)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_FORM:
                return HTMLResponse(page("That is too long for a name and a password."), 413)
        typed = parse_qs(body.decode("utf-8", "replace"))
        name = typed.get("name", [""])[0].strip().lower()[:40]
        address = request.client.host if request.client else ""
        if self._visits.must_wait(name, address):
            return HTMLResponse(page("Too many wrong passwords. Wait a minute, then try again."), 429)
        try:
            user = await run_in_threadpool(self._verified, users, name, typed.get("password", [""])[0].strip())
        except StoreError as error:
            return HTMLResponse(page(f"Nobody can sign in now. {error}"), 503)
        if user is None:
            self._visits.failed(name, address)
            return HTMLResponse(page("That name and password do not go together."), 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            self._visits.open(user),
            max_age=VISIT_SECONDS,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    def _verified(self, users: Users, name: str, password: str) -> User | None:
        with self._hashing:
            return users.verified(name, password)


def token_of(headers: Mapping[str, str]) -> str:
    """The token in a request's cookie; empty where there is none."""
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def page(problem: str = "") -> str:
    """The sign-in page."""
    told = f'<p class="problem" role="alert">{escaped(problem)}</p>' if problem else ""
    text = resources.files("fraud_ui").joinpath("sign_in.html").read_text(encoding="utf-8")
    return Template(text).substitute(problem=told)
