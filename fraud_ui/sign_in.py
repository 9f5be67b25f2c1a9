"""Authentication of the desk's users: sign-in, sessions, and what a browser may load. Nothing is reached without it."""

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from importlib import resources
from string import Template
from urllib.parse import parse_qs, urlsplit

import anyio.to_thread
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fraud_core.access.users import User, Users
from fraud_core.errors import FraudError, StoreError
from fraud_ui.kit.wording import escaped

VISIT_SECONDS = 12 * 3_600
TRIES, WAIT_SECONDS = 5, 60.0  # so many wrong passwords for a name from an address, then so long a pause
ADDRESS_TRIES = 30  # wrong passwords from one address, whatever the names
PRESENT_SECONDS = 1.0  # so long is believed that somebody may still be here
OPEN_PATHS = frozenset({"/healthz", "/metrics"})  # what guards itself, or needs no guard
UPLOAD = "/gradio_api/upload"
LONGEST_FORM = 2_000  # bytes
LONGEST_BODY = 1_000_000  # bytes of anything but a file
GONE = "You are not signed in any more. Open /sign-in in another tab, then go on here."

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
    "referrer-policy": "same-origin",  # with no-referrer, a browser sends our own form with the origin `null`
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


class Tries:
    """Wrong passwords, by name and address. Each try counts as wrong until it proves right: of many at once, few are judged.

    Safe to share between threads.
    """

    def __init__(self) -> None:
        self._wrong: dict[tuple[str, str], tuple[int, float]] = {}
        self._lock = threading.Lock()

    def begin(self, name: str, address: str, now: float | None = None) -> bool:
        """Whether this name may be tried from this address now; if so, the try is counted."""
        now = time.monotonic() if now is None else now
        with self._lock:
            self._wrong = {key: (n, since) for key, (n, since) in self._wrong.items() if now - since < WAIT_SECONDS}
            keys = {(name, address): TRIES, ("", address): ADDRESS_TRIES}
            if any(self._wrong.get(key, (0, now))[0] >= most for key, most in keys.items()):
                return False
            for key in keys:
                self._wrong[key] = self._wrong.get(key, (0, now))[0] + 1, now
        return True

    def forgive(self, name: str, address: str) -> None:
        """The password was right, or could not be looked at: the try does not count."""
        with self._lock:
            for key in ((name, address), ("", address)):
                count, since = self._wrong.get(key, (0, 0.0))
                if count > 1:
                    self._wrong[key] = count - 1, since
                else:
                    self._wrong.pop(key, None)


def present(users: Users, visit: Visit | None) -> User:
    """The person of a visit, as the database has them now.

    Raises:
        NotSignedInError: there is no visit, or the person was revoked or has another password since.
        StoreError: the users cannot be read.
    """
    user = users.find(visit.name) if visit is not None else None
    if visit is None or user is None or user.revoked is not None or user.password != visit.password:
        raise NotSignedInError(GONE)
    return user


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Door:
    """ASGI middleware around the whole desk: the sign-in page, and nothing else without a visit of somebody who may be here.

    Every request is looked at: pages, events, uploads, downloads and functions of components alike. The user's name is put into
    the request's state as `visitor`.

    Args:
        users: None where nobody signs in (on loopback alone): then everybody is the same visitor.
        visitor: the name of whoever comes where nobody signs in.
    """

    def __init__(self, app: ASGIApp, visits: Visits, users: Users | None, visitor: str = "") -> None:
        self._app = app
        self._visits = visits
        self._users = users
        self._visitor = visitor
        self._tries = Tries()
        self._seen: dict[str, float] = {}  # id of a visit -> when its person was found to be present
        self._hashing = anyio.CapacityLimiter(4)  # each takes 19 MB for a moment; whoever waits holds no thread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan" or self._users is None:
                await self._app(scope, receive, send)
            return  # a websocket is not served

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD") and _is_foreign(headers):
            app: ASGIApp = HTMLResponse(page("This was sent from another site; sign in here."), 403)
        elif self._users is None:
            app = self._inside(self._visitor, None)
        else:
            app = await self._answering(scope, receive, headers, self._users)
        await app(scope, receive, with_headers)

    async def _answering(self, scope: Scope, receive: Receive, headers: Headers, users: Users) -> ASGIApp:
        path, method = scope["path"], scope["method"]
        by_eye = method == "GET" and "text/html" in headers.get("accept", "")
        if path == "/sign-in":
            return HTMLResponse(page()) if method in ("GET", "HEAD") else await self._sign_in(Request(scope, receive), users)
        if path == "/sign-out" and method == "POST":
            self._visits.close(token_of(headers))
            gone = RedirectResponse("/sign-in", 303)
            gone.delete_cookie(cookie_name(headers))
            return gone
        if path in OPEN_PATHS:
            return self._app
        visit = self._visits.of(token_of(headers))
        try:
            if visit is not None:
                await self._see_present(visit, users)
                return self._inside(visit.name, visit)
            told = GONE if token_of(headers) else "Sign in first, on /sign-in."
        except NotSignedInError as error:
            told = str(error)
        except StoreError as error:
            told = f"Who may be here cannot be looked up now. {error}"
            return HTMLResponse(page(told), 503) if by_eye else JSONResponse({"detail": told}, 500)
        return RedirectResponse("/sign-in", 303) if by_eye else JSONResponse({"detail": told}, 401)

    async def _see_present(self, visit: Visit, users: Users) -> None:
        now = time.monotonic()
        if now - self._seen.get(visit.id, float("-inf")) < PRESENT_SECONDS:
            return
        await run_in_threadpool(present, users, visit)
        self._seen = {key: at for key, at in self._seen.items() if now - at < PRESENT_SECONDS} | {visit.id: now}

    def _inside(self, visitor: str, visit: Visit | None) -> ASGIApp:
        """The desk, for a request of bounded length by somebody who stays present while it comes in."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("state", {})["visitor"] = visitor
            left = float("inf") if scope["path"] == UPLOAD else LONGEST_BODY

            async def bounded() -> Message:
                nonlocal left
                message = await receive()
                left -= len(message.get("body", b""))
                if left < 0:
                    return {"type": "http.disconnect"}
                if visit is not None and self._users is not None and message.get("more_body"):
                    try:
                        await self._see_present(visit, self._users)
                    except NotSignedInError:
                        return {"type": "http.disconnect"}
                    except StoreError:
                        pass  # whoever was let in a moment ago may finish; the next request is looked at anew
                return message

            length = Headers(scope=scope).get("content-length", "0")
            if length.isdecimal() and int(length) > left:
                await JSONResponse({"detail": f"That is longer than {LONGEST_BODY:,} bytes."}, 413)(scope, receive, send)
            else:
                await self._app(scope, bounded, send)

        return app

    async def _sign_in(self, request: Request, users: Users) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_FORM:
                return HTMLResponse(page("That is too long for a name and a password."), 413)
        typed = parse_qs(body.decode("utf-8", "replace"))
        name = typed.get("name", [""])[0].strip().lower()[:40]
        address = request.client.host if request.client else ""
        if not self._tries.begin(name, address):
            return HTMLResponse(page("Too many wrong passwords. Wait a minute, then try again."), 429)
        password = typed.get("password", [""])[0].strip()
        try:
            user = await anyio.to_thread.run_sync(users.verified, name, password, limiter=self._hashing)
        except StoreError as error:
            self._tries.forgive(name, address)
            return HTMLResponse(page(f"Nobody can sign in now. {error}"), 503)
        if user is None:
            return HTMLResponse(page("That name and password do not go together."), 401)
        self._tries.forgive(name, address)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            cookie_name(request.headers),
            self._visits.open(user),
            max_age=VISIT_SECONDS,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer


def _is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site sent this; a sandboxed one says `null`. A program says nothing."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def cookie_name(headers: Mapping[str, str]) -> str:
    """The name of the cookie of this desk. Cookies know no ports, so two desks on one host need two names."""
    port = re.search(r":(\d{1,5})$", headers.get("host", ""))
    return f"fraud_desk_{port[1]}" if port else "fraud_desk"


def token_of(headers: Mapping[str, str]) -> str:
    """The token in a request's cookie; empty where there is none."""
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    name = cookie_name(headers)
    return cookies[name].value if name in cookies else ""


def page(problem: str = "") -> str:
    """The sign-in page."""
    told = f'<p class="problem" role="alert">{escaped(problem)}</p>' if problem else ""
    text = resources.files("fraud_ui").joinpath("sign_in.html").read_text(encoding="utf-8")
    return Template(text).substitute(problem=told)
