"""Files over real connections: whoever sends, reads or asks too slowly holds no place that others need."""

import io
import json
import socket
import time
from contextlib import closing
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fraud_core.access.api_keys import ApiKeys
from tests.api_server import Server, Servers, eventually

pytestmark = pytest.mark.integration

CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
HEAD, LINE = b"timestamp,amount\n", b"2020-01-01T00:00:00Z,1\n"
STALL = 5.0  # seconds: on a busy machine a process that scores may say nothing for two


@pytest.fixture
def tokens(installation: Any) -> list[str]:
    installation.promote(1)
    keys = ApiKeys.of(installation.settings)
    return [keys.create(name, ["score"])[1] for name in ("one", "other")]


@pytest.fixture
def server(servers: Servers, installation: Any, tokens: list[str]) -> Server:
    """With a place for one file a key, and two in all."""
    return servers.start(
        installation.settings,
        FRAUD_API_AUTH="keys",
        FRAUD_FILE_STALL_SECONDS=str(STALL),
        FRAUD_FILES_AT_ONCE="2",
        FRAUD_FILES_PER_KEY="1",
    )


def begun(server: Server, token: str, length: int, *, buffer: int | None = None) -> socket.socket:
    """A connection that has announced a file of so many bytes."""
    address = httpx.URL(server.url)
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(60)
    connection.connect((address.host, address.port))
    head = f"POST /v1/score/file HTTP/1.1\r\nHost: {address.host}\r\nAuthorization: Bearer {token}\r\n"
    connection.sendall(f"{head}Content-Type: {CSV}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode())
    return connection


def whole(connection: socket.socket) -> bytes:
    """All that is answered."""
    answer = b""
    while block := connection.recv(1 << 20):
        answer += block
    return answer


def sent(server: Server, token: str, content: bytes = HEAD + LINE, kind: str = CSV) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
    return httpx.post(f"{server.url}/v1/score/file", content=content, headers=headers, timeout=60)


def parquet(**columns: pa.Array) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def test_an_upload_that_trickles_is_ended_and_its_place_is_free_for_its_key_alone_until_then(
    server: Server, tokens: list[str]
) -> None:
    one, other = tokens
    with closing(begun(server, one, 1_000_000)) as trickling:
        begin = time.monotonic()
        trickling.sendall(HEAD)
        refused = sent(server, one)
        assert (refused.status_code, "this key has 1 file" in refused.json()["detail"]) == (429, True)
        assert refused.headers["retry-after"] == "60"
        trickling.setblocking(False)
        answer = b""
        while not answer and time.monotonic() - begin < 10 * STALL:
            try:
                trickling.send(b"2")  # ten bytes a second: far below the least rate
                answer = trickling.recv(1 << 16)
            except BlockingIOError:
                time.sleep(0.1)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"more slowly than 10000 bytes a second" in answer
    eventually(lambda: sent(server, one).status_code == 200)
    with closing(begun(server, one, 1_000_000)):  # one key's idle upload, however long, leaves the other's place alone
        assert sent(server, other).status_code == 200


def test_a_reader_that_stalls_loses_its_place_and_is_told_what_is_missing(server: Server, tokens: list[str]) -> None:
    one, _ = tokens
    body = HEAD + LINE * 100_000
    with closing(begun(server, one, len(body), buffer=4_096)) as stalled:
        stalled.sendall(body)
        assert stalled.recv(12) == b"HTTP/1.1 200"
        assert sent(server, one).status_code == 429
        eventually(lambda: sent(server, one).status_code == 200)
        text = whole(stalled)
    last = json.loads(text[text.rindex(b'{"rows":') :].partition(b"\n")[0])
    assert last["problem"] == f"Nothing of the answer was taken for {STALL:.0f} s; send the rest again."
    assert (last["complete"], 0 < last["rows"] < 100_000) == (False, True)
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_odd_files_are_answered_with_what_is_wrong_and_the_next_one_is_scored(server: Server, tokens: list[str]) -> None:
    nothing = parquet(timestamp=pa.nulls(2_000_000, pa.string()), amount=pa.nulls(2_000_000, pa.float64()))
    out_of_reach = pa.array([0, 2**62, 0], pa.timestamp("us", "UTC"))
    whole_files = [
        (nothing, PARQUET, "would expand to 2,000,000 rows"),
        (b"timestamp,amount," + b",".join(b"c%d" % at for at in range(30_000)), CSV, "30002 columns"),
    ]
    for content, kind, reason in whole_files:
        answer = sent(server, tokens[0], content, kind)
        assert (answer.status_code, reason in answer.text) == (422, True), answer.text
        assert len(answer.json().get("errors", ())) <= 100
    answer = sent(server, tokens[0], parquet(timestamp=out_of_reach, amount=pa.array([1.0] * 3)), PARQUET)
    *rows, last = map(json.loads, answer.text.splitlines())
    assert ["errors" in row for row in rows] == [False, True, False]
    assert (last["rows"], last["refused"], last["complete"]) == (3, 1, True)
