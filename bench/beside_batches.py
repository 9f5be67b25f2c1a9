"""What a single payment waits while six batches of 10,000 are being scored: `measure_beside` for the bench's table.

By itself: `beside_batches.py URL TOKEN BODIES`, against any server; BODIES has a payment a line, as JSON. One caller sends single
payments one after the other, alone first, then as long as the batches last, which are all sent at once and come from the same
payments. Callers are one process with a thread each; a thread that waits for its batch costs the others nothing.
"""

import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

BATCHES = 6
ROWS = 10_000


@dataclass
class Beside:
    """Latencies of single payments in ms, and rows of all batches a second; a value a payment, or a round."""

    alone_ms: list[float] = field(default_factory=list)
    beside_ms: list[float] = field(default_factory=list)
    rows_per_s: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Medians and 95th percentiles."""
        told = {"alone": self.alone_ms, "beside_batches": self.beside_ms}
        figures: dict[str, float] = {}
        for name, values in told.items():
            figures[f"single_{name}_ms"] = round(statistics.median(values), 2)
            figures[f"single_{name}_p95_ms"] = round(percentile(values, 95), 2)
        figures["six_batches_rows_per_s"] = round(statistics.median(self.rows_per_s))
        return figures


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, -(-len(ranked) * percent // 100) - 1)]


def measure_beside(url: str, token: str, rows: Sequence[dict[str, Any]], rounds: int = 1, seconds: float = 3.0) -> Beside:
    """Rounds in turn: single payments alone for so long, then beside six batches until all of these are answered."""
    unnamed = [{name: value for name, value in row.items() if name != "transaction_id"} for row in rows]
    bodies = [json.dumps(row).encode() for row in unnamed[:1_000]]
    batch = json.dumps({"transactions": [unnamed[at % len(unnamed)] for at in range(ROWS)]}).encode()
    caller = _Caller(url, token)
    measured = Beside()
    caller.send("/v1/score/batch", batch)  # what is made at first use is made
    for _ in range(rounds):
        end = time.perf_counter() + seconds
        measured.alone_ms += caller.singles(bodies, lambda end=end: time.perf_counter() > end)
        batches = [threading.Thread(target=_Caller(url, token).send, args=("/v1/score/batch", batch)) for _ in range(BATCHES)]
        begun = time.perf_counter()
        for thread in batches:
            thread.start()
        measured.beside_ms += caller.singles(bodies, lambda threads=batches: not any(thread.is_alive() for thread in threads))
        measured.rows_per_s.append(BATCHES * ROWS / (time.perf_counter() - begun))
    return measured


class _Caller:
    """A caller with one connection."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

    def send(self, path: str, body: bytes) -> None:
        self._connection.request("POST", path, body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"bench: {path} was answered {answer.status}: {content[:500]!r}")

    def singles(self, bodies: Sequence[bytes], is_over: Any) -> list[float]:
        """Milliseconds of one payment after the other, each under an id of its own."""
        taken: list[float] = []
        run = token_hex(4)
        while not is_over():
            identity = f'{{"transaction_id":"run{run}x{len(taken)}",'.encode()
            body = identity + bodies[len(taken) % len(bodies)][1:]
            begun = time.perf_counter()
            self.send("/v1/score", body)
            taken.append((time.perf_counter() - begun) * 1e3)
        return taken


def main() -> None:
    """Measure a server that runs, and tell."""
    url, token, bodies = sys.argv[1:]
    rows = [json.loads(line) for line in Path(bodies).read_text().splitlines()]
    print(json.dumps(measure_beside(url, token, rows).summary()))


if __name__ == "__main__":
    main()
