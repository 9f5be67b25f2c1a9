"""What fetching over https promises: https at every hop, to addresses that were checked, within bounds."""

import socket
from pathlib import Path

import httpcore
import pytest

from fraud_core.errors import SourceError
from fraud_core.intake import download as downloads
from fraud_core.intake.download import download, head, is_public
from fraud_core.sources.limits import Limits

PUBLIC = "93.184.215.14"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: one\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BLOCK = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"


def moved(to: str) -> list[bytes]:
    return [f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()]


class Internet:
    """Names with their addresses, and what is answered there; remembers whom it connected to."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.answers: dict[str, list[bytes]] = {}
        self.connected: list[str] = []
        self.resolved: list[str] = []

    def host(self, name: str, answer: list[bytes], *addresses: str) -> None:
        self.addresses[name] = list(addresses or (PUBLIC,))
        self.answers.update(dict.fromkeys(self.addresses[name], answer))

    def getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.resolved.append(host)
        if host not in self.addresses:
            raise socket.gaierror("unknown name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses[host]]

    def connect(self, host: str) -> httpcore.NetworkStream:
        self.connected.append(host)
        return httpcore.MockStream(list(self.answers[host]))


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    there = Internet()
    monkeypatch.setattr(downloads.socket, "getaddrinfo", there.getaddrinfo)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", lambda _, host, *__: there.connect(host))
    return there


def test_a_file_is_fetched_from_the_address_that_was_checked(internet: Internet, tmp_path: Path) -> None:
    internet.host("files.test", [OK, b"a,b\n1"])
    target = download("https://files.test/a.csv?token=1", tmp_path / "a", Limits())
    assert target.read_bytes() == b"a,b\n1"
    assert internet.connected == [PUBLIC]  # an address, so that nothing is resolved again
    assert head("https://files.test/a.csv", Limits())["etag"] == "one"


def test_redirects_are_followed_over_https_alone(internet: Internet, tmp_path: Path) -> None:
    internet.host("files.test", moved("https://store.test/x"))
    internet.host("store.test", [OK, b"12345"], "93.184.215.15")
    assert download("https://files.test/a.csv", tmp_path / "a", Limits()).read_bytes() == b"12345"
    for there in ("http://127.0.0.1:9000/", "http://store.test/x", "file:///etc/passwd"):
        internet.host("files.test", moved(there))
        with pytest.raises(SourceError, match="not https"):
            download("https://files.test/a.csv", tmp_path / "b", Limits())
    internet.host("files.test", moved("https://files.test/again"))
    with pytest.raises(SourceError, match="redirected more than 5 times"):
        download("https://files.test/a.csv", tmp_path / "b", Limits())
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1",), (PUBLIC, "10.0.0.7"), ("169.254.169.254",), ("::1",), ("::ffff:10.1.1.1",)]
)
@pytest.mark.parametrize("hop", [False, True])
def test_private_addresses_are_refused_unless_their_host_is_named(
    internet: Internet, tmp_path: Path, addresses: tuple[str, ...], hop: bool
) -> None:
    internet.host("files.test", moved("https://inside.test/x"), "93.184.215.15")
    internet.host("inside.test", [OK, b"12345"], *addresses)
    url = "https://files.test/a.csv" if hop else "https://inside.test/x"
    with pytest.raises(SourceError, match=r"inside\.test is an address of this machine or of a private network.*private_hosts"):
        download(url, tmp_path / "a", Limits())
    assert internet.connected == (["93.184.215.15"] if hop else [])
    assert download(url, tmp_path / "a", Limits(private_hosts=("inside.test",))).read_bytes() == b"12345"


@pytest.mark.parametrize("answer", [[ENDLESS, *[BLOCK] * 8], [b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n"]])
def test_a_file_that_never_ends_is_refused_with_the_bound(internet: Internet, tmp_path: Path, answer: list[bytes]) -> None:
    internet.host("files.test", answer)
    with pytest.raises(SourceError, match=r"more than 0\.002 GB.*`download_gb`"):
        download("https://files.test/a.csv", tmp_path / "a", Limits(download_gb=0.002))
    assert not (tmp_path / "a").exists() or (tmp_path / "a").stat().st_size <= 2_000_000


def test_a_file_that_trickles_is_refused_after_its_time(
    internet: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "WHOLE_SECONDS", -1.0)
    internet.host("files.test", [ENDLESS, BLOCK, BLOCK])
    with pytest.raises(SourceError, match="took more than"):
        download("https://files.test/a.csv", tmp_path / "a", Limits())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://nowhere.test/a.csv", "https://nowhere.test/a.csv could not be fetched: gaierror"),
        ("https://files.test/a.csv", "the server answers 404"),
        ("https://broken.test/a.csv", "broken.test/a.csv could not be fetched: RemoteProtocolError"),
    ],
)
def test_what_cannot_be_fetched_is_told_by_its_address(internet: Internet, tmp_path: Path, url: str, says: str) -> None:
    internet.host("files.test", [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"])
    internet.host("broken.test", [b"SSH-2.0\r\n\r\n"], "93.184.215.15")
    with pytest.raises(SourceError, match=says):
        download(url, tmp_path / "a", Limits())


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.9.9.9",
        "169.254.1.1",
        "172.16.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
    ],
)
def test_all_others_are_not(address: str) -> None:
    assert not is_public(address)
