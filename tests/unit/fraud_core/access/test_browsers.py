"""What a page of another site can make a browser send is told from what people and programs send."""

from typing import Any

import pytest

from fraud_core.access.browsers import foreign, own_hosts

LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
OWN = own_hosts("fraud.example, Second.example", "https://dagster.example:8443/path", "http://127.0.0.1:3000", "")


def scope(method: str = "POST", kind: str = "http", **headers: str) -> dict[str, Any]:
    given = {"host": "127.0.0.1:3000"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return {"type": kind, "method": method, "headers": [(n.encode(), v.encode("latin-1")) for n, v in given.items()]}


def test_a_servers_own_names_are_those_it_is_given_and_not_loopback_which_is_nobodys() -> None:
    assert {"fraud.example", "second.example", "dagster.example"} == OWN


@pytest.mark.parametrize(
    "headers",
    [
        {},  # curl
        {"host": "localhost:13000", "origin": "http://localhost:13000", "sec_fetch_site": "same-origin"},  # through a tunnel
        {"host": "[::1]:3000", "origin": "http://[::1]:3000"},
        {"host": "127.8.8.8"},
        {"host": "Fraud.Example", "origin": "https://fraud.example"},
        {"host": "127.0.0.1:3000", "origin": "https://dagster.example:8443"},  # a proxy before it put in another name
        {"sec_fetch_site": "none"},  # typed into the address bar
    ],
)
def test_people_and_programs_are_let_through(headers: dict[str, str]) -> None:
    assert foreign(scope(**headers), OWN) is None
    assert foreign(scope(kind="websocket", **headers), OWN) is None


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (421, {"host": "evil.example:3000"}),
        (421, {"host": "127.0.0.1.evil.example"}),
        (421, {"host": ""}),
        (421, {"host": "[::1"}),
        (421, {"host": "evil@127.0.0.1.nip.example"}),
        (403, {"origin": "http://evil.example"}),
        (403, {"origin": "null"}),
        (403, {"origin": "http://127.0.0.1:8888"}),  # another server of this machine shows the page
        (403, {"origin": "http://[::1"}),
        (403, {"sec_fetch_site": "cross-site"}),
        (403, {"sec_fetch_site": "same-site"}),
        (403, LINK),  # a form that leads here
    ],
)
def test_what_a_page_of_another_site_sends_is_refused(status: int, headers: dict[str, str]) -> None:
    for kind in ("http", "websocket"):
        found = foreign(scope(kind=kind, **headers), OWN)
        assert found is not None
        assert (found.status, found.reason[-1]) == (status, ".")


def test_of_another_site_only_a_link_to_a_whole_page_is_followed() -> None:
    assert foreign(scope("GET", **LINK), OWN) is None
    assert foreign(scope("GET", **LINK | {"sec-fetch-dest": "iframe"}), OWN) is not None
    assert foreign(scope("GET", **LINK | {"sec-fetch-mode": "no-cors"}), OWN) is not None


def test_without_known_names_every_name_is_taken_and_still_no_page_of_another_site() -> None:
    assert foreign(scope(host="anything.example"), None) is None
    assert foreign(scope(host="anything.example", origin="http://evil.example"), None) is not None
    twice = scope() | {"headers": [(b"host", b"127.0.0.1"), (b"host", b"evil.example")]}
    assert foreign(twice, OWN) is not None
