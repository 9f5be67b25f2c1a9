"""One caller cannot hold up the others: what is refused is refused before it is built, and batches leave the event loop alone."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fraud_core.scoring.score import score_rows

JSON = {"content-type": "application/json"}
Make = Callable[[int], list[dict[str, Any]]]


def unknown_fields(count: int) -> bytes:
    return b",".join(b'"x%d":1' % at for at in range(count))


@pytest.mark.parametrize(
    ("path", "head", "tail", "count"),
    [
        ("/v1/score/batch", b'{"transactions":[{}],', b"}", 1_300_000),
        ("/v1/score/batch", b'{"transactions":[{', b"}]}", 1_300_000),
        ("/v1/score/batch", b'{"transactions":[{}],', b"}", 20_000),
        ("/v1/score/batch", b'{"transactions":[{', b"}]}", 20_000),
        ("/v1/labels", b"{", b"}", 1_300_000),
        ("/v1/labels", b"[{", b"}]", 1_300_000),
        ("/v1/labels", b"{", b"}", 20_000),
        ("/v1/labels", b"[{},{", b"}]", 20_000),
        ("/v1/score", b"{", b"}", 3_000),
    ],
)
def test_a_body_of_unknown_fields_is_refused_with_a_hundred_problems_at_most_and_at_once(
    call: Any, installation: Any, path: str, head: bytes, tail: bytes, count: int
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    body = head + unknown_fields(count) + tail
    begun = time.thread_time()
    answer = api.post(path, content=body, headers=JSON)
    assert time.thread_time() - begun < 1.0  # of this thread, which runs the event loop; it was 7 seconds and more
    document = answer.json()
    problems = document["errors"] if answer.status_code == 422 else document["results"][0]["errors"]
    assert 1 <= len(problems) <= 100 + 14
    assert len(answer.content) < 20_000


def test_a_batch_is_scored_beside_the_event_loop(
    call: Any, installation: Any, made_transactions: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.promote(1)
    api = call(installation.settings)
    threads: list[threading.Thread] = []

    def spy(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return score_rows(*arguments, **options)

    monkeypatch.setattr("fraud_api.endpoints.score.score_rows", spy)
    monkeypatch.setattr("fraud_api.endpoints.score.ROWS_AT_ONCE", 100)
    sent = made_transactions(250)

    async def two() -> list[Any]:
        return await asyncio.gather(*[api.http.post("/v1/score/batch", json={"transactions": sent}) for _ in range(2)])

    for answer in api.runner.run(two()):
        document = answer.json()
        assert [record["transaction_id"] for record in document["results"]] == [row["transaction_id"] for row in sent]
        assert [record["row"] for record in document["results"]] == list(range(250))
    assert len(threads) >= 6  # chunks, between which the other one has its turn
    assert threading.main_thread() not in threads
    assert len(set(threads)) == 1
