"""Network addresses: what services bind to, and what no proxy stands before."""

import ipaddress
from collections.abc import Mapping

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def must_authenticate(mode: str, host: str) -> bool | None:
    """Whether callers must say who they are where a service binds to this address; None: they need not, and others reach it.

    Args:
        mode: "auto" (wherever others than this machine reach it), "off", or the way that is always asked for.
        host: what the service binds to.
    """
    if mode not in {"auto", "off"}:
        return True
    if is_loopback(host):
        return False
    return True if mode == "auto" else None


def direct_to_loopback(variables: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY in both spellings, with this machine added: behind HTTP_PROXY our own servers would never answer."""
    named = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    given = [name.strip() for name in named.split(",") if name.strip()]
    value = ",".join([*given, *(name for name in LOOPBACK if name not in given)]) if "*" not in given else "*"
    return {"NO_PROXY": value, "no_proxy": value}
