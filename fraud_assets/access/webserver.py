"""Dagster's web server behind a guard: allowed hosts, same origin, no GraphQL by GET, and a sign-in where it is not on loopback.

Dagster's own carries out GraphQL mutations by GET, and by POST from any page, and looks at neither Host nor Origin: a picture in
any web page that an operator opens could accept a partition.
"""

import base64
import binascii
import hashlib
import logging
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fraud_assets.access.attribution import signed_in
from fraud_core.access.addresses import must_authenticate
from fraud_core.access.browsers import foreign, own_hosts
from fraud_core.access.users import User, Users
from fraud_core.errors import SettingsError, StoreError
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database

logger = logging.getLogger(__name__)

ROLE = "lead"
OPEN_PATHS = frozenset({"/server_info"})  # versions alone, for health checks, which come under any name
TRIES, WAIT_SECONDS = 5, 60.0  # so many wrong passwords for a name from an address, then so long a pause
REMEMBERED_SECONDS = 5.0  # so long after it was revoked or changed, a password is worth nothing
HEADERS = {"x-frame-options": "DENY", "x-content-type-options": "nosniff", "referrer-policy": "same-origin"}
ASK = {"www-authenticate": 'Basic realm="Dagster, for users of the role lead", charset="UTF-8"'}


class Passwords:
    """HTTP Basic sign-in of the desk's users. Safe to share between threads."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._right: dict[str, tuple[User, float]] = {}  # by the hash of what the browser sends: who it is, and as of when
        self._wrong: dict[tuple[str, str], tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._turns = [threading.Lock() for _ in range(16)]  # one password is verified once, however many requests bring it
        self._hashing = threading.Semaphore(4)  # each takes 19 MB for a moment

    def holder(self, header: str, address: str) -> str | None:
        """The name of the lead whose name and password a header holds; None: there is none, or the password is wrong.

        Raises:
            StoreError: the database of users cannot be asked.
            TooManyTriesError: too many wrong ones came just now; none is looked at.
        """
        given = _basic(header)
        if given is None:
            return None
        proof = hashlib.sha256(header.encode()).hexdigest()
        with self._turns[int(proof[0], 16)]:
            user = self._known(proof) or self._verified(*given, address, proof)
        return user.name if user is not None and user.role == ROLE else None

    def _known(self, proof: str) -> User | None:
        """Who showed the same password before, if nothing about him has changed."""
        user, seen = self._right.get(proof, (None, 0.0))
        if user is None or time.monotonic() - seen < REMEMBERED_SECONDS:
            return user
        now = self._users.find(user.name)
        if now is None or now.revoked is not None or now.password != user.password:
            self._right.pop(proof, None)
            return None
        self._right[proof] = now, time.monotonic()
        return now

    def _verified(self, name: str, password: str, address: str, proof: str) -> User | None:
        self._count(name, address)
        with self._hashing:
            user = self._users.verified(name, password)
        if user is not None:
            with self._lock:
                self._wrong.pop((name, address), None)
            self._right[proof] = user, time.monotonic()
        return user

    def _count(self, name: str, address: str) -> None:
        """Count a try before it is evaluated, so that many at once are no more than many one by one."""
        now = time.monotonic()
        with self._lock:
            self._wrong = {key: (n, since) for key, (n, since) in self._wrong.items() if now - since < WAIT_SECONDS}
            count, since = self._wrong.get((name, address), (0, now))
            if count >= TRIES:
                raise TooManyTriesError
            self._wrong[name, address] = count + 1, since


class TooManyTriesError(Exception):
    """Too many wrong passwords."""


class Guard:
    """ASGI middleware around Dagster's web server.

    Args:
        hosts: its names beside those of loopback.
        passwords: None where nobody signs in, on loopback alone.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], passwords: Passwords | None) -> None:
        self._app = app
        self._hosts = hosts
        self._passwords = passwords

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS and scope["method"] == "GET"):
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        name = ""
        if refused is None and self._passwords is not None:
            name, refused = await self._signed_in(scope, self._passwords)
        if refused is not None:
            if scope["type"] == "websocket":  # closed before it is accepted, it is answered 403
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
            else:
                await refused(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        before = signed_in.set(name)
        try:
            await self._app(scope, receive, with_headers)
        finally:
            signed_in.reset(before)

    def _refused(self, scope: Scope) -> PlainTextResponse | None:
        found = foreign(scope, self._hosts)
        if found is not None:
            return PlainTextResponse(found.reason, found.status)
        asks = scope["type"] == "http" and scope["method"] != "POST" and scope["path"].rstrip("/").endswith("/graphql")
        if asks and "query" in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            return PlainTextResponse("GraphQL is taken by POST alone.", 405, {"allow": "POST"})
        return None

    async def _signed_in(self, scope: Scope, passwords: Passwords) -> tuple[str, PlainTextResponse | None]:
        header = Headers(scope=scope).get("authorization", "")
        address = scope["client"][0] if scope.get("client") else ""
        try:
            name = await run_in_threadpool(passwords.holder, header, address)
        except TooManyTriesError:
            return "", PlainTextResponse("Too many wrong passwords. Wait a minute, then try again.", 429, {"retry-after": "60"})
        except StoreError as error:
            return "", PlainTextResponse(f"Nobody can sign in now. {error}", 503, {"retry-after": "5"})
        if name is None:
            return "", PlainTextResponse(
                "Sign in as a user of the role lead; `fraud users create NAME --role lead` makes one.", 401, ASK
            )
        return name, None


def guarded(app: ASGIApp, settings: Settings, host: str) -> Guard:
    """Dagster's application behind its guard, for an address that it binds to.

    Raises:
        SettingsError: it would be open to whoever reaches an address that is not loopback.
    """
    signs_in = must_sign_in(settings, host)
    passwords = Passwords(Users(open_database(settings))) if signs_in else None
    return Guard(app, own_hosts(settings.allowed_hosts, settings.dagster_url), passwords)


def must_sign_in(settings: Settings, host: str) -> bool:
    """Whether people sign in where the web server binds to this address.

    Raises:
        SettingsError: it would be open to whoever reaches an address that is not loopback.
    """
    asked = must_authenticate(settings.dagster_auth, host)
    if asked is not None:
        return asked
    raise SettingsError(
        f"FRAUD_DAGSTER_AUTH=off on {host} would let everyone who reaches that address accept partitions. Let people sign in "
        "(FRAUD_DAGSTER_AUTH=users, `fraud users create NAME --role lead`), or bind to 127.0.0.1."
    )


def serve(settings: Settings, arguments: Sequence[str]) -> None:
    """Dagster's own command `dagster-webserver`, all of its options included, with our guard around what it serves.

    Raises:
        SettingsError: it would be open to whoever reaches an address that is not loopback.
    """
    from dagster_webserver import cli  # noqa: PLC0415 - Dagster's GraphQL takes two seconds to import
    from dagster_webserver.app import create_app_from_workspace_process_context  # noqa: PLC0415

    # The one place where Dagster hands over what is to be served; the version is pinned, and a test attacks what runs.
    def host_guarded(
        context: Any, host: str | None, port: int | None, prefix: str, log_level: str, poll: int | None = None
    ) -> None:
        host = host or cli.DEFAULT_WEBSERVER_HOST
        app = create_app_from_workspace_process_context(context, prefix, poll, lifespan=cli._lifespan)
        whole = guarded(app, settings, host)
        logger.info("Dagster on http://%s:%s%s", host, port or cli.DEFAULT_WEBSERVER_PORT, prefix)
        uvicorn.run(whole, host=host, port=port or cli.DEFAULT_WEBSERVER_PORT, log_level=log_level, server_header=False)

    cli.host_dagster_ui_with_workspace_process_context = host_guarded  # type: ignore[assignment]
    cli.cli(list(arguments), prog_name="fraud webserver", auto_envvar_prefix="DAGSTER_WEBSERVER", standalone_mode=False)


def _basic(header: str) -> tuple[str, str] | None:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(token.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name.strip().lower()[:40], password.strip()) if colon else None
