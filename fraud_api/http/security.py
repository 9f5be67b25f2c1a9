"""Authentication of API callers: keys with scopes, checked before anything of a request is read."""

import logging
import time
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from fraud_api.http import pages
from fraud_api.http.problems import Refused, response
from fraud_api.http.rates import SharedRate
from fraud_core.access.addresses import must_authenticate
from fraud_core.access.api_keys import KeyRing
from fraud_core.access.browsers import foreign
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings

logger = logging.getLogger(__name__)

OPEN_PATHS = pages.PATHS | {"/healthz", "/readyz", "/openapi.json"}
# Any of these scopes opens the path.
SCOPES_OF = {
    "/v1/score": ("score",),
    "/v1/score/batch": ("score",),
    "/v1/score/file": ("score",),
    "/v1/refunds": ("score",),
    "/v1/labels": ("label",),
    "/v1/model": ("score", "admin"),
    "/metrics": ("metrics", "admin"),
}
EVERY_OTHER_PATH = ("admin",)  # a route that somebody forgets to list is closed, not open


def must_show_key(settings: Settings, host: str) -> bool:
    """Whether callers need a key where the API binds to this address.

    Raises:
        SettingsError: it would be open to whoever reaches a public address, and nobody said that this is meant.
    """
    asked = must_authenticate(settings.api_auth, host)
    if asked is not None:
        return asked
    if not settings.api_open_to_everyone_who_reaches_it:
        raise SettingsError(
            f"FRAUD_API_AUTH=off on {host} would let everyone who reaches that address score payments. Use API keys "
            "(FRAUD_API_AUTH=keys, `fraud keys create`), bind to 127.0.0.1, or, where something else guards the address, "
            "say so with FRAUD_API_OPEN_TO_EVERYONE_WHO_REACHES_IT=true."
        )
    logger.warning("no API key is asked, and %s is not a loopback address: whoever reaches it may score", host)
    return False


class OwnPagesOnly:
    """ASGI middleware where no key is asked: 403 for what a page of another site sends, 421 for a name that is not this server's.

    Args:
        hosts: names of this server beside those of loopback; None: they are not known, and every name is taken.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = foreign(scope, self._hosts) if scope["type"] == "http" else None
        if found is not None:
            refused = Refused(found.status, "from-another-site" if found.status == 403 else "unknown-host", found.reason)
            await response(refused, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class Guard:
    """ASGI middleware: 401 without a living key, 403 where it lacks the scope, 429 above its rate; open paths ask for none."""

    def __init__(self, app: ASGIApp, ring: KeyRing, rate: SharedRate, open_paths: frozenset[str] = OPEN_PATHS) -> None:
        self._app = app
        self._open_paths = open_paths
        self._ring = ring
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._open_paths:
            try:
                self._admit(scope)
            except Refused as refused:
                await response(refused, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        key = self._ring.holder_of(_bearer_token(scope))
        if key is None and self._ring.is_damaged:
            raise Refused(
                503,
                "keys-unreadable",
                "The API keys cannot be read, and yours is not among those that were read last; the log says what to do.",
                headers={"Retry-After": "30"},
            )
        if key is None:
            raise Refused(
                401,
                "no-valid-key",
                "Send a living API key as `Authorization: Bearer ...`; an administrator makes one with `fraud keys create`.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        scope["state"]["key_id"], scope["state"]["key_name"] = key.id, key.name
        scopes = SCOPES_OF.get(scope["path"], EVERY_OTHER_PATH)
        if not any(key.allows(one) for one in scopes):
            raise Refused(403, "scope-missing", f"This needs a key with the scope {' or '.join(scopes)}; ask for one.")
        wait = self._rate.take(key.number, time.monotonic())
        if wait:
            raise Refused(
                429,
                "rate-exceeded",
                "This key's rate is used up; wait as long as Retry-After says, or send batches.",
                headers={"Retry-After": str(max(1, round(wait)))},
            )


def _bearer_token(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""
