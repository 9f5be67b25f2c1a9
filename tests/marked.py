"""Payments whose personal values are marked, and a search for the marks in all that a product wrote or answered.

A mark is looked for in bytes as they are, in what is packed with zlib or gzip, in each cell of a Parquet file, and, of
numbers and times, as the eight bytes by which a machine has them.
"""

import gzip
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import polars as pl

from tests.simulated import SHORT, WEEKS, five_weeks

MARK = "q7351"  # stands in every personal text, right or wrong
INCOMES = [735_173.5137 + one * 1.0001 for one in range(8)]  # no two are an amount of whole cents apart
LOGINS = [datetime(1999, 7, 31, 7, 35, second, tzinfo=UTC) for second in range(10, 18)]
ADDRESS = "203.0.113.1"  # how all addresses begin; their network, 203.0.113.0/24, is declared to be seen
BIRTHS = ("1973-05-17", "1951-03-19")
HOMES = [(33.127351 + one, -80.927351 - one) for one in range(5)]
NOT_KEPT = frozenset({"income", "last_login", "vip"})  # no object has a column of these

DECLARED = """
[quality]
quarantined_share = 0.1
[fields.email]
kind = "id"
personal = true
[fields.phone]
kind = "id"
personal = true
[fields.ip]
kind = "id"
personal = true
[fields.income]
kind = "number"
personal = true
lowest = 0
[fields.last_login]
kind = "time"
personal = true
formats = ["%Y-%m-%d %H:%M:%S"]
[fields.vip]
kind = "flag"
personal = true
[fields.device]
kind = "id"
[fields.channel]
kind = "category"
values = ["web", "app"]
[fields.email_domain]
from = { part = "domain", of = "email" }
[fields.network]
from = { network = "24/48", of = "ip" }
kind = "id"
[fields.over_income]
from = { difference = ["amount", "income"] }
drift = "left_out"
[fields.since_login]
from = { hours_since = "last_login" }
drift = "left_out"
[[windows]]
of = "email"
measure = ["count", "fraud_rate"]
spans = ["1d"]
[[windows]]
of = "phone"
measure = "distinct"
over = "email"
spans = ["7d"]
[[windows]]
of = ["email", "phone"]
measure = "seen_before"
spans = ["7d"]
[[windows]]
of = "network"
measure = "distinct"
over = "ip"
spans = ["1h"]
"""
# In one bad row each: what is too long, of another type, unreadable, or in the wrong column.
WRONG: dict[str, str] = {
    "card": f"{MARK}card" + "x" * 80,
    "email": f"{MARK}mail@" + "x" * 300,
    "phone": f"{MARK}\a",
    "ip": f"{MARK}ip" + "9" * 300,
    "income": f"{MARK}income",
    "last_login": f"{MARK}login",
    "vip": f"{MARK}flag",
    "birth_date": f"{MARK}birth",
    "home_latitude": f"{MARK}north",
    "home_longitude": f"{MARK}east",
    "merchant": f"{MARK} 4111 1111 1111 1111",
    "amount": f"{MARK}amount",
    "device": f"{MARK}device" + "x" * 200,
    "channel": f"{MARK}channel",
    "timestamp": f"{MARK}when",
}


def payments() -> pl.DataFrame:
    """Five weeks of payments as text, all personal values of which are marked, and a column that nobody declared."""
    rows = five_weeks()
    number = pl.col("card").hash(1)

    def one_of(values: Iterable[Any]) -> pl.Expr:
        some = [str(value) for value in values]
        return (number % len(some)).replace_strict(dict(enumerate(some)), return_dtype=pl.String)

    at = (pl.col("transaction_id").hash(2) % 100).cast(pl.String)
    return rows.with_columns(
        (pl.col("amount_cents") / 100).round(2).alias("amount"),
        pl.col("label").cast(pl.Int8),
        pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        pl.format("{}card{}", pl.lit(MARK), number % 100_000).alias("card"),
        pl.format("{}mail{}@{}", pl.lit(MARK), number % 100_000, one_of(["shop.example", "post.example"])).alias("email"),
        pl.format("{}phone{}", pl.lit(MARK), number % 90_000).alias("phone"),
        pl.format("{}{}", pl.lit(ADDRESS), at.str.zfill(2)).alias("ip"),
        one_of(INCOMES).alias("income"),
        one_of(f"{login:%Y-%m-%d %H:%M:%S}" for login in LOGINS).alias("last_login"),
        one_of("YN").alias("vip"),
        one_of(BIRTHS).alias("birth_date"),
        one_of(north for north, _ in HOMES).alias("home_latitude"),
        one_of(east for _, east in HOMES).alias("home_longitude"),
        pl.format("device-{}", at).alias("device"),
        pl.when(pl.col("transaction_id").hash(3) % 2 == 0).then(pl.lit("web")).otherwise(pl.lit("app")).alias("channel"),
        pl.lit(f"{MARK}memo").alias("memo"),
    ).drop("kind", "amount_cents").select(pl.all().cast(pl.String))  # fmt: skip


def with_wrong(rows: pl.DataFrame) -> pl.DataFrame:
    """The same with a bad row of each kind, in the third week."""
    one = rows.filter(pl.col("timestamp").str.starts_with(WEEKS[2])).row(0, named=True)
    bad = [one | {"transaction_id": f"bad-{name}", name: value} for name, value in WRONG.items()]
    return pl.concat([rows, pl.DataFrame(bad, schema=rows.schema)])


def source(name: str) -> str:
    """The TOML for such a file."""
    simulator = SHORT[SHORT.index("[simulator]") : SHORT.index("[split]")]
    short = SHORT.replace(simulator, "").replace('"2024-02-05"', '"2024-01-29"').replace('birth_date = "birth_date"', BIRTH)
    formats = '{ column = "timestamp", formats = ["%Y-%m-%dT%H:%M:%S%#z"] }'
    short = short.replace('timestamp = "timestamp"', f"timestamp = {formats}")
    return short.replace('timezone = "UTC"', f'timezone = "UTC"\npaths = ["{name}"]') + DECLARED


BIRTH = 'birth_date = { column = "birth_date", formats = ["%Y-%m-%d"] }'
PACKED = [struct.pack("<d", income) for income in INCOMES]
PACKED += [struct.pack("<q", int(login.timestamp()) * scale) for login in LOGINS for scale in (1_000, 1_000_000)]
TEXTS = [MARK, ADDRESS, "1999-07-31", "93340651", *map(str, INCOMES)]
SECRET = [*(text.encode() for text in TEXTS), *PACKED]
# Kept where the past of cards is, and in raw, as they always have been; nowhere else.
PEOPLES = [text.encode() for text in (*BIRTHS, *(str(degrees) for home in HOMES for degrees in home))]


def found(content: bytes, peoples: bool = True) -> list[bytes]:
    """The marks that are in it.

    Args:
        content: of a file, or an answer.
        peoples: whether birth dates and homes are looked for, too.
    """
    marks = SECRET + PEOPLES if peoples else SECRET
    return sorted({mark for part in _unpacked(content) for mark in marks if mark in part})


def _unpacked(content: bytes) -> Iterator[bytes]:
    yield content
    if content[:4] == b"PAR1":
        frame = pl.read_parquet(BytesIO(content))
        assert not NOT_KEPT & set(frame.columns)
        yield json.dumps(frame.to_dicts(), default=str).encode()
    with suppress(OSError, EOFError, zlib.error):
        yield gzip.decompress(content)
    with suppress(zlib.error):
        yield zlib.decompress(content)
