"""Files over https, from whom one meant to ask: every hop is https, every address is checked, and every answer is bounded.

The connection is made to the very address that was checked, so that a name cannot mean another one a moment later.
"""

import contextlib
import ipaddress
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import httpcore
import httpx

from fraud_core.errors import SourceError
from fraud_core.sources.limits import Limits

MOST_HOPS = 5
IDLE_SECONDS = 30.0  # without a byte
WHOLE_SECONDS = 3_600.0  # for a file
HEAD_SECONDS = 10.0  # for a question about one
_REDIRECTS = {301, 302, 303, 307, 308}


def download(url: str, target: Path, limits: Limits) -> Path:
    """Fetch a file.

    Raises:
        SourceError: it cannot be had, or not within the bounds.
    """
    most = int(limits.download_gb * 1e9)
    too_much = SourceError(
        f"{url} has more than {limits.download_gb:g} GB. If that is right, raise `download_gb` under [limits] in its TOML."
    )
    begin = time.monotonic()
    with _answer("GET", url, limits, IDLE_SECONDS) as answer:
        if int(_headers(answer).get("content-length") or 0) > most:
            raise too_much
        size = 0
        with target.open("wb") as file:
            for block in answer.iter_stream():
                size += len(block)
                if size > most:
                    raise too_much
                if time.monotonic() - begin > WHOLE_SECONDS:
                    raise SourceError(
                        f"{url} took more than {WHOLE_SECONDS / 60:.0f} minutes; fetch it yourself, and name the file."
                    )
                file.write(block)
    return target


def head(url: str, limits: Limits) -> Mapping[str, str]:
    """The headers that a server tells about a file, by their names in small letters.

    Raises:
        SourceError: it cannot be asked.
    """
    with _answer("HEAD", url, limits, HEAD_SECONDS) as answer:
        return _headers(answer)


@contextlib.contextmanager
def _answer(method: str, url: str, limits: Limits, seconds: float) -> Iterator[httpcore.Response]:
    """The answer at the end of all redirects."""
    at = httpx.URL(url)
    asked = {"headers": {"Accept-Encoding": "identity"}, "extensions": {"timeout": dict.fromkeys(_TIMEOUTS, seconds)}}
    try:
        with httpcore.ConnectionPool(httpx.create_ssl_context(), network_backend=_CheckedNetwork(limits)) as pool:
            for _ in range(MOST_HOPS + 1):
                if at.scheme != "https":
                    raise SourceError(f"{url} leads to an address that is not https; name the file's own https address.")
                target = httpcore.URL(scheme=at.raw_scheme, host=at.raw_host, port=at.port, target=at.raw_path)
                with pool.stream(method, target, **asked) as answer:  # type: ignore[arg-type]
                    if answer.status == 200:
                        yield answer
                        return
                    if answer.status not in _REDIRECTS:
                        raise SourceError(f"{url} could not be fetched: the server answers {answer.status}.")
                    at = at.join(_headers(answer).get("location", ""))
            raise SourceError(f"{url} could not be fetched: it is redirected more than {MOST_HOPS} times.")
    except (*_NO_ANSWER, httpx.InvalidURL, ValueError, OSError) as error:
        raise SourceError(f"{url} could not be fetched: {type(error).__name__}: {error}.") from error


_TIMEOUTS = ("connect", "read", "write", "pool")
_NO_ANSWER = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.UnsupportedProtocol)


def _headers(answer: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}


class _CheckedNetwork(httpcore.SyncBackend):
    """Resolves a name once, refuses what is not a public address, and connects to what it resolved."""

    def __init__(self, limits: Limits) -> None:
        self._named = {host.lower().strip("[]") for host in limits.private_hosts}

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if host.lower().strip("[]") not in self._named:
            for address in addresses:
                if not is_public(address):
                    raise SourceError(
                        f"{host} is an address of this machine or of a private network, from which nothing is fetched unless its "
                        'name is listed: `private_hosts = ["..."]` under [limits] in the source\'s TOML.'
                    )
        problem: Exception | None = None
        for address in addresses:
            try:
                return super().connect_tcp(address, port, timeout, local_address)
            except httpcore.ConnectError as error:
                problem = error
        raise problem or httpcore.ConnectError(f"{host} has no address")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
