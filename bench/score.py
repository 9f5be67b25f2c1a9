"""`make bench`: what a score costs, beside what an empty FastAPI route costs. Needs Debian's `wrk`; writes docs/bench.md
and the sizing table of docs/scaling.md.

Ratios first: machines differ, and this one's speed varies from minute to minute, so that both routes are measured in turn, round
by round, and medians of the rounds' ratios are told. Server and load tool have a core each. `--quick` measures briefly, and
writes nothing into docs/. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import socket
import statistics
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pandas as pd
import polars as pl
from beside_batches import Beside, measure_beside
from installation import BUSY, ONLINE, SOURCE, Measured, api_frame, install, remember_busy_merchant
from report import write_report

from fraud_api.app import create_app
from fraud_api.schemas import Score
from fraud_cli.stack import servers as programs
from fraud_core.features import catalogue
from fraud_core.scoring.score import inputs_of, score_together
from fraud_core.simulator.simulate import simulate
from fraud_core.sources.source import load_source
from fraud_core.transactions.transaction import Transaction

HERE = Path(__file__).resolve().parent
T = TypeVar("T")
SERVER_CORE, LOAD_CORE = 0, 1
CONNECTIONS = 16
REMEMBERING = ("sqlite", "redis")  # kinds that read history, record and log; their installations go by the same names
# Likewise, with the fields of sources/simulated_online.toml: with the standard windows alone, and with its own ones beside them.
FIELDS, WINDOWS = "own fields", "own windows"
OWN_WINDOWS = 20


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int
    seconds: int
    file_rows: int
    starts: int
    busy: int


FULL = Effort(rounds=9, seconds=10, file_rows=1_000_000, starts=5, busy=1_000_000)
OF_WINDOWS = Effort(rounds=5, seconds=5, file_rows=0, starts=0, busy=0)
QUICK = Effort(rounds=3, seconds=2, file_rows=50_000, starts=1, busy=10_000)


@dataclass
class Server:
    """A running server with a core of its own."""

    process: subprocess.Popen[bytes]
    url: str
    ready_seconds: float

    def processor_seconds(self) -> float:
        """Processor time it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Round:
    """One round of load on one route."""

    per_second: float
    p99_ms: float
    processor_us: float


@dataclass
class Results:
    """Everything that was measured; lists hold a value a round."""

    rounds: dict[str, list[Round]] = field(default_factory=dict)
    half_load: dict[str, list[Round]] = field(default_factory=dict)
    one_caller: dict[str, list[Round]] = field(default_factory=dict)
    stages_us: dict[str, float] = field(default_factory=dict)
    batch_rows_per_s: list[float] = field(default_factory=list)
    beside: Beside = field(default_factory=Beside)
    bare_model_rows_per_s: float = 0.0
    file_rows: int = 0
    file_seconds: float = 0.0
    file_peak_mb: float = 0.0
    ready_s: list[float] = field(default_factory=list)
    rss_mb: float = 0.0
    dataframe_us: float = 0.0

    def ratios(self, of: str, to: str, value: Callable[[Round], float], rounds: dict[str, list[Round]]) -> list[float]:
        """Ratio of two routes, round by round."""
        return [value(a) / value(b) for a, b in zip(rounds[of], rounds[to], strict=True)]


def main() -> None:
    """Measure everything, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure briefly; write nothing into docs/")
    parser.add_argument("--windows", action="store_true", help="measure own windows alone; write nothing into docs/")
    given = parser.parse_args()
    quick = given.quick or given.windows
    effort = QUICK if given.quick else OF_WINDOWS if given.windows else FULL
    if shutil.which("wrk") is None:
        sys.exit("bench: the load tool is missing; apt-get install wrk")
    if (os.cpu_count() or 1) < 2:
        sys.exit("bench: server and load tool need a core each")
    with tempfile.TemporaryDirectory(prefix="fraud-bench-") as folder:
        told("training and promoting models")
        results = Results()
        with redis_server(Path(folder)) as redis:
            remembering = {"sqlite": install(Path(folder) / "sqlite", history=True)}
            if redis is not None:
                remembering["redis"] = install(Path(folder) / "redis", history=True, redis=redis)
            remembering |= install_online(Path(folder), redis)
            if given.windows:
                compare_windows(remembering, Path(folder), effort, results)
                print(json.dumps(of_windows(results)))
                return
            measured = install(Path(folder) / "home")
            told(f"a merchant of {effort.busy:,} payments")
            remember_busy_merchant(remembering["sqlite"].settings, effort.busy)
            compare_routes(measured, remembering, Path(folder), effort, results)
        measure_batch(measured, Path(folder), effort, results)
        measure_file(measured, Path(folder), effort, results)
        measure_start(measured, effort, results)
        on_core(SERVER_CORE, lambda: measure_in_process(measured, results))
    summary = summarised(results)
    if not quick:
        write_report(results, summary, HERE.parent / "docs")
    print(json.dumps(summary))


def told(what: str) -> None:
    """Tell what is going on."""
    print(f"bench: {what}", file=sys.stderr, flush=True)


# --- a, b: routes side by side -------------------------------------------------------------------------------------------------


@contextmanager
def serving(measured: Measured, kind: str) -> Iterator[Server]:
    """A server of this kind (see server.py) that is ready."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = os.environ | {
        "FRAUD_HOME": str(measured.settings.home),
        "FRAUD_SOURCE": str(measured.settings.source),
        "FRAUD_API_AUTH": "keys",
        "FRAUD_API_RATE": "1000000",
        "FRAUD_API_RATE_BURST": "1000000",
        "FRAUD_LOG_FORMAT": "json",
        "FRAUD_RECORD": "on" if measured.has_history else "off",
    }
    if measured.settings.history is not None:
        environment["FRAUD_HISTORY"] = measured.settings.history.get_secret_value()
    log = (measured.settings.home / f"{kind}.log").open("wb")
    begin = time.perf_counter()
    command = [*on(SERVER_CORE), sys.executable, str(HERE / "server.py"), kind, str(port)]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603 - our own command
    url = f"http://127.0.0.1:{port}"
    try:
        while not is_ready(url):
            if process.poll() is not None:
                sys.exit(f"bench: the server ended: {Path(log.name).read_text()[-2_000:]}")
            time.sleep(0.005)
        yield Server(process, url, time.perf_counter() - begin)
    finally:
        process.terminate()
        process.wait()
        log.close()


def on(core: int) -> list[str]:
    """The beginning of a command that runs on one core."""
    return ["taskset", "--cpu-list", str(core)]


def is_ready(url: str) -> bool:
    """Whether a server can score."""
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def loaded(
    server: Server, measured: Measured, bodies: Path, seconds: int, path: str, *, connections: int, pause: int = 0
) -> Round:
    """Load a server for so long."""
    run = "".join(secrets.choice(string.ascii_letters) for _ in range(12))  # no id twice, none with a card number in it
    environment = os.environ | {"BODIES": str(bodies), "TOKEN": measured.token, "PAUSE": str(pause), "RUN": run}
    before = server.processor_seconds()
    command = [
        *on(LOAD_CORE),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "10s",
        "-s",
        str(HERE / "load.lua"),
        f"{server.url}{path}",
    ]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own
    told_by_wrk = json.loads(output.rpartition("RESULT ")[2])
    if told_by_wrk["failed"]:
        sys.exit(f"bench: {told_by_wrk['failed']} requests failed")
    used = server.processor_seconds() - before
    return Round(told_by_wrk["requests"] / told_by_wrk["seconds"], told_by_wrk["p99_ms"], used / told_by_wrk["requests"] * 1e6)


def compare_routes(measured: Measured, remembering: dict[str, Measured], folder: Path, effort: Effort, results: Results) -> None:
    """(a) and (b), and scoring with history and decision log: rounds in turn, at full load and at half of what scoring bears."""
    installed = dict.fromkeys(("empty", "scoring", "bare"), measured) | remembering
    bodies = {kind: write_bodies(folder / f"{kind}.jsonl", one.rows) for kind, one in installed.items()}
    busy = write_bodies(folder / "busy.jsonl", [row | {"merchant": BUSY} for row in measured.rows])
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(serving(one, kind)) for kind, one in installed.items()}

        def load_on(kind: str, connections: int = CONNECTIONS, pause: int = 0, what: Path | None = None) -> Round:
            return loaded(
                servers[kind],
                installed[kind],
                what or bodies[kind],
                effort.seconds,
                "/v1/score",
                connections=connections,
                pause=pause,
            )

        for kind, server in servers.items():
            loaded(server, installed[kind], bodies[kind], 1, "/v1/score", connections=CONNECTIONS)
        for number in range(effort.rounds):
            told(f"routes side by side, round {number + 1} of {effort.rounds}")
            for kind in installed:
                results.rounds.setdefault(kind, []).append(load_on(kind))
            if "sqlite" in remembering:
                results.rounds.setdefault(BUSY, []).append(load_on("sqlite", what=busy))
        for number in range(min(3, effort.rounds)):
            told(f"one caller at a time, round {number + 1}")
            for kind in ("empty", "scoring"):
                results.one_caller.setdefault(kind, []).append(load_on(kind, connections=1))
        half = statistics.median(load.per_second for load in results.rounds["scoring"]) / 2
        pause = max(1, round(CONNECTIONS * 1_000 / half))
        for number in range(effort.rounds):
            told(f"half load, round {number + 1} of {effort.rounds}")
            for kind in ("empty", "scoring"):
                results.half_load.setdefault(kind, []).append(load_on(kind, pause=pause))


def compare_windows(installed: dict[str, Measured], folder: Path, effort: Effort, results: Results) -> None:
    """What own windows cost alone: rounds in turn of all that remember."""
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(serving(one, kind)) for kind, one in installed.items()}
        bodies = {kind: write_bodies(folder / f"{kind}.jsonl", one.rows) for kind, one in installed.items()}
        for number in range(-1, effort.rounds):  # the first one warms up
            told(f"own windows, round {number + 1} of {effort.rounds}")
            for kind, server in servers.items():
                seconds = effort.seconds if number >= 0 else 1
                one = loaded(server, installed[kind], bodies[kind], seconds, "/v1/score", connections=CONNECTIONS)
                if number >= 0:
                    results.rounds.setdefault(kind, []).append(one)
    for kind, rounds in results.rounds.items():
        told(f"{kind}: {[round(one.per_second) for one in rounds]} a second, {[round(one.processor_us) for one in rounds]} us")


def install_online(folder: Path, redis: str | None) -> dict[str, Measured]:
    """The installations with own fields, and with own windows, where each store is."""
    found = {}
    for store, url in (("sqlite", None), ("redis", redis)):
        for database, (what, own) in enumerate(((FIELDS, False), (WINDOWS, True)), 1):
            if store == "sqlite" or url is not None:
                kind = f"{store}, {what}"
                own_url = None if url is None else url.removesuffix("/0") + f"/{database}"
                home = folder / kind.replace(", ", "-").replace(" ", "-")
                found[kind] = install(home, history=True, redis=own_url, path=ONLINE, own_windows=own)
    return found


def write_bodies(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Bodies of requests, one a line, each under an id that the load tool makes."""
    path.write_text("\n".join(json.dumps(row | {"transaction_id": "@ID@"}) for row in rows[:2_000]))
    return path


@contextmanager
def redis_server(folder: Path) -> Iterator[str | None]:
    """A Redis on the load tool's core, by its URL; None where none is installed."""
    binary = programs.find("redis")
    if binary is None:
        told("redis-server is missing (apt-get install redis-server); its row is left out")
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [*on(LOAD_CORE), *programs.redis(binary, folder, port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    try:
        while not is_open(port):
            time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def is_open(port: int) -> bool:
    """Whether something listens on a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- c, d, e -------------------------------------------------------------------------------------------------------------------


def measure_batch(measured: Measured, folder: Path, effort: Effort, results: Results) -> None:
    """(c) batches of 1,000; then single payments, alone and beside six batches of 10,000."""
    bodies = folder / "batches.jsonl"
    bodies.write_text("\n".join(json.dumps({"transactions": measured.rows[at : at + 1_000]}) for at in range(0, 5_000, 1_000)))
    with serving(measured, "scoring") as server:
        for number in range(effort.rounds):
            told(f"batches, round {number + 1} of {effort.rounds}")
            load = loaded(server, measured, bodies, max(2, effort.seconds // 2), "/v1/score/batch", connections=2)
            results.batch_rows_per_s.append(load.per_second * 1_000)
        told("single payments beside batches")
        results.beside = on_core(
            LOAD_CORE, lambda: measure_beside(server.url, measured.token, measured.rows, min(3, effort.rounds), effort.seconds)
        )


def measure_file(measured: Measured, folder: Path, effort: Effort, results: Results) -> None:
    """(d) a Parquet file: rows a second, and the most memory that server and scoring process have together."""
    told(f"a file of {effort.file_rows:,} rows")
    path = folder / "payments.parquet"
    source = load_source(SOURCE)
    assert source.simulator is not None
    config = source.simulator.model_copy(update={"cardholders": max(200, effort.file_rows // 250)})
    start, end = np.datetime64("2024-01-01"), np.datetime64("2025-01-01")
    frame = simulate(config, *(aware(at, source.zone) for at in (start, end)), source.zone)
    repeated = pl.concat([frame] * (effort.file_rows // len(frame) + 1)).head(effort.file_rows)
    api_frame(repeated).write_parquet(path)
    del frame, repeated
    with serving(measured, "scoring") as server, peak_memory(server.process.pid) as peak:
        begin = time.perf_counter()
        headers = {"Authorization": f"Bearer {measured.token}", "Content-Type": "application/vnd.apache.parquet"}
        with (
            path.open("rb") as file,
            httpx.stream("POST", f"{server.url}/v1/score/file", content=file, headers=headers, timeout=3_600) as answer,
        ):
            last = b""
            for piece in answer.iter_bytes():
                last = (last + piece)[-1_000:]
        results.file_seconds = time.perf_counter() - begin
        summary = json.loads(last.splitlines()[-1])
        if not summary["complete"] or summary["rows"] != effort.file_rows or summary["refused"]:
            sys.exit(f"bench: the file was not scored whole: {summary}")
        results.file_rows = summary["rows"]
    results.file_peak_mb = peak[0]


def aware(day: np.datetime64, zone: Any) -> Any:
    """The beginning of a day in a zone."""
    return day.astype("datetime64[s]").item().replace(tzinfo=zone)


@contextmanager
def peak_memory(pid: int) -> Iterator[list[float]]:
    """The most resident memory of a process and its children, in MB, looked at every 10 ms; pages they share count twice."""
    peak, ended = [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            peak[0] = max(peak[0], sum(resident_mb(one) for one in family(pid)))

    thread = threading.Thread(target=look)
    thread.start()
    yield peak
    ended.set()
    thread.join()


def family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(int(child) for child in children)]


def resident_mb(pid: int) -> float:
    """Resident memory of a process, 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def measure_start(measured: Measured, effort: Effort, results: Results) -> None:
    """(e) start to ready, and resident memory after some scores."""
    for number in range(effort.starts):
        told(f"start, {number + 1} of {effort.starts}")
        with serving(measured, "scoring") as server:
            results.ready_s.append(server.ready_seconds)
            headers = {"Authorization": f"Bearer {measured.token}"}
            for row in measured.rows[:50]:
                httpx.post(f"{server.url}/v1/score?explain=true", json=row, headers=headers).raise_for_status()
            results.rss_mb = max(results.rss_mb, resident_mb(server.process.pid))


# --- in this process: stages, the bare model, the DataFrame ---------------------------------------------------------------------


def on_core(core: int, what: Callable[[], T]) -> T:
    """Do something on one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return what()
    finally:
        os.sched_setaffinity(0, allowed)


def best_us(call: Callable[[], Any], times: int = 500, repeats: int = 9) -> float:
    """Processor microseconds of a call: the median of repeats."""
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        for _ in range(times):
            call()
        taken.append((time.process_time() - begin) / times * 1e6)
    return statistics.median(taken)


def measure_in_process(measured: Measured, results: Results) -> None:
    """Processor time by stage, (c)'s bare model, and (f) the way through a DataFrame."""
    told("stages of a score")
    app = create_app(measured.settings.model_copy(update={"record": "off"}), asks_for_keys=False)
    follower = app.state.services.follower
    served = follower.poll().served
    assert served is not None
    scorer = served.scorer
    body = json.dumps(measured.rows[0]).encode()
    transaction = Transaction.model_validate_json(body)
    inputs = inputs_of([transaction])
    crowd = [Transaction.model_validate(row) for row in measured.rows[:CONNECTIONS]]
    values = catalogue.compute(scorer.features, inputs, scorer.zone)
    matrix = scorer.bundle.encoder.matrix(values)
    result = Score(transaction_id="t", probability=0.5, decision="review", model_version=served.version)
    results.stages_us = {
        "read and check the JSON": best_us(lambda: Transaction.__pydantic_validator__.validate_json(body)),
        "to arrays": best_us(lambda: inputs_of([transaction])),
        "features": best_us(lambda: catalogue.compute(scorer.features, inputs, scorer.zone)),
        "encode": best_us(lambda: scorer.bundle.encoder.matrix(values)),
        "trees and calibration": best_us(lambda: scorer.score_matrix(matrix)),
        "the four stages before, for one of 16 payments at once": best_us(lambda: score_together(scorer, crowd, None))
        / len(crowd),
        "write the JSON": best_us(lambda: result.__pydantic_serializer__.to_json(result)),
        "whole request in the application, one at a time": asyncio.run(request_us(app, body)),
    }
    ready = np.ascontiguousarray(measured.matrix[:1_000])
    results.bare_model_rows_per_s = 1_000 / best_us(lambda: scorer.score_matrix(ready), times=20) * 1e6
    row = pd.DataFrame(measured.matrix[:1], columns=list(scorer.bundle.encoder.features))
    results.dataframe_us = best_us(lambda: measured.estimator.predict_proba(row), times=20)


async def request_us(app: Any, body: bytes) -> float:
    """Processor microseconds of a request to the application, without uvicorn, key and network."""
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200

    async def once() -> None:
        scope = {"type": "http", "method": "POST", "path": "/v1/score", "raw_path": b"/v1/score", "query_string": b""}
        await app(scope | {"root_path": "", "headers": headers, "http_version": "1.1", "scheme": "http"}, receive, send)

    taken = []
    for _ in range(9):
        begin = time.process_time()
        for _ in range(300):
            await once()
        taken.append((time.process_time() - begin) / 300 * 1e6)
    return statistics.median(taken)


def ratio_to_empty(results: Results, kind: str) -> float:
    """Requests a second of a kind to those of the empty route, the median of the rounds."""
    return round(statistics.median(results.ratios(kind, "empty", lambda load: load.per_second, results.rounds)), 3)


def of_windows(results: Results) -> dict[str, float]:
    """What own windows cost: requests a second in the share of what the standard windows allow, and processor time.

    By store: to the same fields without own windows, to the standard source, and microseconds a window and payment.
    """
    found = {}
    for store in REMEMBERING:
        own, fields = f"{store}, {WINDOWS}", f"{store}, {FIELDS}"
        if own in results.rounds:
            for name, than in (("fields", fields), ("standard", store)):
                rates = results.ratios(own, than, lambda load: load.per_second, results.rounds)
                found[f"{store}_own_windows_vs_{name}"] = round(statistics.median(rates), 3)
            pairs = zip(results.rounds[own], results.rounds[fields], strict=True)
            spent = statistics.median(one.processor_us - without.processor_us for one, without in pairs)
            found[f"{store}_own_window_us"] = round(spent / OWN_WINDOWS, 2)
    return found


def summarised(results: Results) -> dict[str, float]:
    """The figures of the last line."""
    rate = results.ratios("scoring", "empty", lambda load: load.per_second, results.rounds)
    bare = results.ratios("scoring", "bare", lambda load: load.per_second, results.rounds)
    alone = results.ratios("scoring", "empty", lambda load: load.per_second, results.one_caller)
    tail = results.ratios("scoring", "empty", lambda load: load.p99_ms, results.half_load)
    return {
        "score_vs_empty_route": round(statistics.median(rate), 3),
        "score_vs_bare_route": round(statistics.median(bare), 3),
        "score_vs_empty_route_one_caller": round(statistics.median(alone), 3),
        "p99_vs_empty_route": round(statistics.median(tail), 3),
        **{f"{kind}_vs_empty_route": ratio_to_empty(results, kind) for kind in REMEMBERING if kind in results.rounds},
        "busy_merchant_vs_empty_route": ratio_to_empty(results, BUSY),
        **of_windows(results),
        "batch_rows_per_s": round(statistics.median(results.batch_rows_per_s)),
        **results.beside.summary(),
        "file_rows_per_s": round(results.file_rows / results.file_seconds),
        "file_peak_mb": round(results.file_peak_mb),
        "ready_s": round(statistics.median(results.ready_s), 2),
        "rss_mb": round(results.rss_mb),
    }


if __name__ == "__main__":
    main()
