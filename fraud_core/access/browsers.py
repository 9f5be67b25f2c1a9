"""CSRF and DNS rebinding: what a web page elsewhere can make a browser send to a server of this machine, and why it is refused.

A server on loopback is reached by every page that its user's browser shows: by a form, a picture, a script, a WebSocket, or under
a name of the page's own that suddenly leads to 127.0.0.1. Programs (curl, the typed client) send none of what browsers say of
themselves, and are not held up.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fraud_core.access.addresses import is_loopback

_FRAMES = frozenset({b"iframe", b"frame", b"embed", b"object", b"fencedframe"})


@dataclass(frozen=True)
class Foreign:
    """Why a request is not taken: an HTTP status, and a sentence."""

    status: int
    reason: str


def foreign(scope: Any, hosts: Collection[str] | None) -> Foreign | None:
    """Whether a request was made by a page of another site, or for a name that is not this server's; None: neither.

    Args:
        scope: ASGI's, of a request or a WebSocket.
        hosts: names of this server, in small letters, beside those of loopback; None: every name is taken.
    """
    said: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        said.setdefault(name.lower(), []).append(value)
    host = _only(said.get(b"host", ()))
    if host is None or not (hosts is None or _is_own(host, hosts)):
        return Foreign(421, "This server is not known by that name. Reach it as 127.0.0.1, or name it in FRAUD_ALLOWED_HOSTS.")
    origins = said.get(b"origin", [])
    if not all(_is_same(origin.decode("latin-1").lower(), host, hosts or ()) for origin in origins):
        return Foreign(403, "This was sent by a page of another site, and is not carried out.")
    sites = said.get(b"sec-fetch-site", [])
    if any(site not in (b"same-origin", b"none") for site in sites) and not _is_visit(scope, said):
        return Foreign(403, "This was sent by a page of another site, and is not carried out.")
    return None


def own_hosts(allowed: str, *urls: str) -> frozenset[str]:
    """Names of a server: those of a setting, by commas, and those in the addresses under which people reach it."""
    names = {name.strip().lower() for name in allowed.split(",")} | {urlsplit(url).hostname or "" for url in urls}
    return frozenset(name for name in names if name and not is_loopback(name))


def _is_own(host: str, hosts: Collection[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return False
    return is_loopback(name) or name in hosts


def _is_same(origin: str, host: str, hosts: Collection[str]) -> bool:
    """Whether a page is this server's own; a proxy before it may have put another name into `Host`."""
    try:
        parts = urlsplit(origin)
        return parts.netloc == host or (parts.hostname or "") in hosts
    except ValueError:
        return False


def _is_visit(scope: Any, said: dict[bytes, list[bytes]]) -> bool:
    """Whether somebody followed a link from another site, to a page of its own."""
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and said.get(b"sec-fetch-mode") == [b"navigate"]
        and _FRAMES.isdisjoint(said.get(b"sec-fetch-dest", []))
    )


def _only(values: Iterable[bytes]) -> str | None:
    found = list(values)
    return found[0].decode("latin-1").strip().lower() if len(found) == 1 else None
