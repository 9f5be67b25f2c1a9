"""Nothing personal leaks: marked values in every personal field, right and wrong, on every way through the product.

They are looked for in every file that anything left behind, in every answer, log and error; only hashes of ids may be there, and
birth dates and homes where raw and the past of cards are.
"""

import contextlib
import io
import json
import logging
import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import dagster as dg
import httpx
import polars as pl
import pytest
import redis
from gradio_client import Client, handle_file
from matplotlib.figure import Figure
from matplotlib.text import Text

from fraud_api import deciding
from fraud_api.app import create_app
from fraud_assets.delivery import delivery
from fraud_assets.reports import plots
from fraud_client.client import FraudClient
from fraud_client.errors import FraudApiError
from fraud_client.types import Transaction
from fraud_core.settings import Settings
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import card_key
from tests.api_server import Servers
from tests.desk import DeskServer
from tests.few_trees import few_trees
from tests.home import Home
from tests.marked import ADDRESS, MARK, WRONG, found, payments, source, with_wrong
from tests.servers.redis_server import REDIS, RedisServer
from tests.simulated import WEEKS
from tests.unit.fraud_api.conftest import Caller

pytestmark = pytest.mark.integration
CSV, JSON, PARQUET = ({"Content-Type": kind} for kind in ("text/csv", "application/json", "application/vnd.apache.parquet"))


@dataclass
class Told:
    """All that was said on the way: where, and what."""

    said: list[tuple[str, bytes]] = field(default_factory=list)

    def hear(self, place: str, *what: Any) -> None:
        """Remember an answer of any kind."""
        self.said += [(place, one if isinstance(one, bytes) else str(one).encode()) for one in what]

    def answer(self, answer: httpx.Response) -> httpx.Response:
        """Remember an answer of the API, and give it back."""
        self.hear(f"{answer.request.method} {answer.status_code}", answer.content, answer.headers)
        return answer


def words_of(figure: Figure) -> bytes:
    """All that is written in a picture, in its place."""
    return "\n".join(text.get_text() for text in figure.findobj(Text)).encode()  # type: ignore[attr-defined]


@pytest.fixture
def told() -> Told:
    """What was said."""
    return Told()


@pytest.fixture
def home(tmp_path: Path, told: Told) -> Iterator[Home]:
    """From the file to a champion; Dagster's records are in a database on disk, MLflow's beside them."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "small.toml").write_text(source("../given/payments.csv"))
    (tmp_path / "given").mkdir()
    with_wrong(payments()).write_csv(tmp_path / "given" / "payments.csv")
    made = Home(place, {"mlflow_url": "", "features_logged": 1.0})
    made.close()
    made.instance = dg.DagsterInstance.local_temp(str(place / "dagster"), {"telemetry": {"enabled": False}})
    with few_trees(), mock.patch.object(plots, "_png", words_of):
        for job, week in [("land", None), *(("materialize_partition", week) for week in WEEKS), ("train", None)]:
            done = made.run(job, week)
            assert done.success, [one.description for one in done.get_asset_check_evaluations() if not one.passed]
        assert made.run(delivery.JOB).success
    for run in made.instance.get_runs():
        told.hear("event log", *made.instance.all_logs(run.run_id))
    yield made
    made.close()


def sent_of(row: dict[str, str]) -> dict[str, Any]:
    """A row of the file as callers send it, under an id of its own."""
    sent = {name: value for name, value in row.items() if name not in {"label", "memo"} and value is not None}
    sent["transaction_id"] = f"sent-{sent['transaction_id']}"
    sent["last_login"] = sent["last_login"].replace(" ", "T") + "Z"
    numbers = ("income", *(f"{side}_{degrees}" for side in ("home", "merchant") for degrees in ("latitude", "longitude")))
    return sent | {name: float(sent[name]) for name in numbers} | {"city_population": int(sent["city_population"])}


def csv_of(*rows: dict[str, Any]) -> bytes:
    return pl.DataFrame([{name: str(value) for name, value in row.items()} for row in rows]).write_csv().encode()


def call_api(url: str, told: Told, rows: list[dict[str, Any]]) -> None:
    """Every route, with payments that are right, and in every way wrong."""
    http = httpx.Client(base_url=url, timeout=60)

    def post(path: str, **content: Any) -> httpx.Response:
        return told.answer(http.post(path, **content))

    one, *others = rows
    answer = post("/v1/score?explain=true", json=one)
    assert answer.status_code == 200, answer.text
    assert post("/v1/score", json=one | {"email": f"{MARK}other@shop.example"}).status_code == 409
    for name, value in WRONG.items():
        shapes = (value, [value], {value: value}, value + "y" * 5_000)
        for wrong in shapes if name not in {"merchant", "device", "channel", "timestamp", "amount"} else (value,):
            assert post("/v1/score", json=one | {name: wrong, "transaction_id": "w"}).status_code == 422, name
    for name in ("phone_no", f"{MARK}mail@shop.example"):
        assert post("/v1/score", json=one | {name: f"{MARK}phone"}).status_code == 422
    good = json.dumps(one)
    for broken in (good[:-1], good.replace(MARK, f'{MARK}"'), f"{MARK}{good}", good.replace(MARK, f"{MARK}\\ud800")):
        assert post("/v1/score", content=broken.encode(), headers=JSON).status_code in {400, 422}
    assert post("/v1/score", content=good.encode(), headers={"Content-Type": f"text/{MARK}"}).status_code == 415
    answer = post("/v1/score/batch", json={"transactions": [*others, *({**one, name: bad} for name, bad in WRONG.items())]})
    assert answer.status_code == 200
    assert answer.json()["refused"] == len(WRONG)
    assert post("/v1/score/batch", json={"payments": [one]}).status_code == 422
    file = csv_of(one, *({**one, name: bad} for name, bad in WRONG.items()))
    assert post("/v1/score/file", content=file, headers=CSV).status_code == 200
    assert post("/v1/score/file", content=csv_of(one | {"memo": MARK}), headers=CSV).status_code == 422
    for cut in (file.replace(MARK.encode(), f'"{MARK}'.encode(), 1), file.replace(MARK.encode(), b"\xff" + MARK.encode(), 1)):
        post("/v1/score/file", content=cut, headers=CSV)
    packed = io.BytesIO()
    pl.DataFrame([one]).write_parquet(packed)
    assert post("/v1/score/file", content=packed.getvalue(), headers=PARQUET).status_code == 200
    assert post("/v1/score/file", content=packed.getvalue()[:-9], headers=PARQUET).status_code == 422
    label = {"transaction_id": one["transaction_id"], "outcome": "fraud", "source": "chargeback"}
    assert post("/v1/labels", json=label).status_code == 201
    for more in ({"outcome": f"{MARK}card"}, {"card": f"{MARK}card"}, {"source": [f"{MARK}card"]}, {"note": [f"{MARK}card"]}):
        assert post("/v1/labels", json=label | more).status_code == 422
    mark = f"{MARK}card%40{ADDRESS}01"
    for path in (f"/v1/score/{mark}", f"/v1/{mark}", f"/{mark}?{mark}={mark}"):
        assert told.answer(http.get(path)).status_code == 404
        assert post(path, json=one).status_code == 404
    for path in ("/v1/model", "/v1/models", "/openapi.json", "/metrics", "/readyz", "/healthz", "/v1/score", "/docs"):
        told.answer(http.get(f"{path}?card={mark}", headers={"X-Request-Id": mark, "User-Agent": mark, "Referer": mark}))
    post(f"/v1/score?explain={mark}", json=one)
    post(f"/v1/admin/reload?{mark}", headers={"Authorization": f"Bearer {mark}", "traceparent": mark})
    http.close()


def call_client(url: str, told: Told, one: dict[str, Any]) -> None:
    """The typed client's errors, as a program logs them."""
    sent = one | {"timestamp": datetime.fromisoformat(one["timestamp"]), "amount": Decimal(one["amount"])}
    for name, value in {**WRONG, "phone_no": f"{MARK}phone"}.items():
        if name in {"timestamp", "amount"}:
            continue
        payment = Transaction(**sent | {name: value, "transaction_id": "client"})
        with FraudClient(url) as client, pytest.raises(FraudApiError) as refused:
            client.score(payment)
        told.hear("client", repr(payment), "".join(traceback.format_exception(refused.value)), vars(refused.value))
    with FraudClient("http://127.0.0.1:9", patience=0) as nowhere, pytest.raises(FraudApiError) as refused:
        nowhere.score(Transaction(**sent))
    told.hear("client", "".join(traceback.format_exception(refused.value)), vars(refused.value))


def fail_inside(settings: Settings, told: Told, one: dict[str, Any]) -> None:
    """What nobody foresaw, with the payment in the error's own words."""
    with Caller(create_app(settings, asks_for_keys=False)) as api:
        broken = mock.Mock(side_effect=RuntimeError(json.dumps(one)))
        with mock.patch.object(deciding, "score_together", broken), contextlib.suppress(RuntimeError):
            answer = told.answer(api.post("/v1/score", json=one | {"transaction_id": "fails"}))
            assert answer.status_code == 500
        assert broken.called


def call_desk(desk: DeskServer, told: Told, row: dict[str, Any], given: Path) -> None:
    """Every endpoint to which a value can be typed, or which shows a payment."""
    page = Client(desk.url, verbose=False, analytics_enabled=False, download_files=str(given / "taken"))

    def ask(name: str, *values: Any) -> Any:
        try:
            answer = page.predict(*values, api_name=name)
        except Exception as error:
            told.hear(name, "".join(traceback.format_exception_only(error)))
            return None
        told.hear(name, answer)
        return answer

    ask("/arrive", "UTC")
    table = ask("/follow_fields", {"headers": ["Field", "Value", "What it may be"], "data": []})[1]["value"]
    labels = {"Email": "email", "Phone": "phone", "Ip": "ip", "Income": "income", "Last login": "last_login", "Device": "device"}
    assert {*labels, "Vip", "Channel"} <= {line[0] for line in table["data"]}

    def form(**changed: Any) -> tuple[Any, ...]:
        typed = {**row, **changed}
        names = ("category", "merchant", "card", "birth_date", "city_population", "home_latitude", "home_longitude")
        own = [[label, str(typed[name]), ""] for label, name in labels.items()]
        first = (str(typed["timestamp"]).removesuffix("Z"), float(row["amount"]))
        places = (float(row["merchant_latitude"]), float(row["merchant_longitude"]))
        numbers = {"city_population", "home_latitude", "home_longitude"}
        middle = [float(typed[name]) if name in numbers else typed[name] for name in names]
        return *first, *middle, *places, {"headers": ["Field", "Value", "What it may be"], "data": own}

    assert "Exactly" in ask("/test_case", *form())[0]
    assert "Probability of fraud by amount" in ask("/what_if_amount", 250.0, 3, 10.0, None)
    ask("/what_if_number", 250.0, 3, 10.0, "city_population")
    for name in ("card", "email", "phone", "ip", "income", "last_login", "birth_date", "timestamp", "device"):
        assert "cannot be scored yet" in ask("/test_case", *form(**{name: WRONG[name]}))[0], name
    loaded = ask("/load_case", row["transaction_id"])
    assert row["transaction_id"] in loaded[-1]
    # As it was logged, by a model with fields and pasts of personal ids, and without these ids: the same score.
    again = ask("/test_case", *loaded[:12])
    assert "Nothing was changed" in again[0]
    ask("/what_if_hour", 250.0, 3, 10.0, None)
    for name in ("/open_queue", "/read_queue", "/take_case", "/put_back"):
        ask(name)
    ask("/load_case", f"{MARK}card")
    (given / "scored.csv").write_bytes(csv_of(row, *({**row, name: bad} for name, bad in WRONG.items())))
    ask("/score_file", handle_file(given / "scored.csv"))
    told.hear("desk", httpx.get(f"{desk.url}/config").content, httpx.get(f"{desk.url}/metrics").content)
    for path in (given / "taken").rglob("*.csv"):
        told.hear("scored file", path.read_bytes())
    httpx.get(f"{desk.url}/gradio_api/{MARK}card?card={MARK}")
    page.close()


def run_commands(home: Home, told: Told, given: Path) -> None:
    """What is written for people and programs: drafts, samples, typed modules, exports."""
    file = given / "payments.csv"
    commands: list[tuple[str, ...]] = [("source", "init", str(file)), ("source", "check", str(home.source)), ("client-types",)]
    commands += [("served", "export"), ("models",), ("calibrate",), ("settings",)]
    text = file.read_text()
    header, *lines = text.splitlines()
    damaged = {
        "open.csv": text.replace(MARK, f'"{MARK}', 1),
        "short.csv": text[: text.index("\n") + 1] + f"{MARK}card,{MARK}mail\n",
        "cut.csv": text[: text.index("mail", 4_000)],
        "shifted.csv": "\n".join([header, *(f"{MARK},{line}" for line in lines[:200])]),
        "nul.csv": text[:3_000].replace("mail", "\0"),
    }
    for name, content in damaged.items():
        (given / name).write_text(content)
        commands += [("source", "init", str(given / name)), ("source", "check", str(home.source), "--file", str(given / name))]
    (given / "latin.csv").write_bytes(text[:3_000].replace("mail", "\xe9").encode("latin-1"))
    commands += [("source", "check", str(home.source), "--file", str(given / "latin.csv"))]
    for command in commands:
        done = home.fraud(*command)
        told.hear(" ".join(command[:2]), done.out, done.err)
        assert done.status == 0 or command[0] == "source", (command, done.err)


def held_in(url: str) -> bytes:
    """All that a Redis holds."""
    with redis.Redis.from_url(url) as client:
        return repr([(key, client.dump(key), _value(client, key)) for key in client.scan_iter()]).encode()


def _value(client: Any, key: bytes) -> Any:
    reads: dict[bytes, Callable[[], Any]] = {
        b"string": lambda: client.get(key),
        b"hash": lambda: client.hgetall(key),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"stream": lambda: client.xrange(key),
    }
    return reads[client.type(key)]()


def keeps_peoples(path: Path) -> bool:
    """Whether birth dates and homes may be in a file: raw and what lands for it, the past of cards, and its export."""
    text = str(path)
    return any(part in text for part in ("/assets/raw/", "/assets/landing/", "/history.sqlite", "/redis/", "/served/"))


def test_nothing_personal_is_anywhere_but_in_the_source(
    home: Home,
    told: Told,
    servers: Servers,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    given, settings = tmp_path / "given", home.installation.settings
    rows = [sent_of(row) for row in payments().filter(pl.col("timestamp") > "2024-02-04").head(20).to_dicts()]
    quiet = {"FRAUD_API_AUTH": "off", "FRAUD_FEATURES_LOGGED": "1"}

    api = servers.start(settings, **quiet)
    call_api(api.url, told, rows)
    call_client(api.url, told, rows[0])
    api.stop()
    if REDIS is not None:
        (tmp_path / "redis").mkdir()
        server = RedisServer(tmp_path / "redis")
        api = servers.start(settings, **quiet, FRAUD_HISTORY=server.url)
        for row in rows[:5]:
            answer = httpx.post(f"{api.url}/v1/score", json=row | {"transaction_id": f"r-{row['transaction_id']}"}, timeout=60)
            assert told.answer(answer).status_code == 200
        api.stop()
        past = held_in(server.url)
        server.stop()
        assert hashed_card(rows[0]["email"], card_key(settings)).encode() in past
        assert found(past, peoples=False) == []
    fail_inside(settings, told, rows[0])
    with DeskServer(SimpleNamespace(settings=settings), tmp_path, home.environment | {"FRAUD_UI_AUTH": "off"}, False) as desk:
        call_desk(desk, told, rows[0], given)
    run_commands(home, told, given)

    streams = capfd.readouterr()
    told.hear("streams", streams.out, streams.err)
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]  # theirs is the caller's
    told.hear("log", *(record.getMessage() + str(record.exc_text) for record in ours))
    assert [(place, marks) for place, what in told.said if (marks := found(what))] == []
    shutil.rmtree(given)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in left}
    assert {".parquet", ".sqlite", ".db", ".log", ".json", ".joblib", ".md"} <= kinds
    marked = {str(path.relative_to(tmp_path)): found(path.read_bytes(), not keeps_peoples(path)) for path in left}
    assert {name: marks for name, marks in marked.items() if marks} == {}
    # Not for want of looking: what is declared to be seen is found in the same places.
    seen = [path for path in left if any(b"203.0.113.0/24" in part for part in _parts(path))]
    assert {path.suffix for path in seen} >= {".parquet", ".sqlite"}


def _parts(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    yield content
    if content[:4] == b"PAR1":
        yield str(pl.read_parquet(path).to_dicts()).encode()
