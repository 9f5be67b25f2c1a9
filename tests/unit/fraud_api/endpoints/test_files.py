"""Files: streamed in bounded memory, row by row, with a last record that says whether they are all."""

import asyncio
import csv
import io
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fraud_api.uploads import Uploads
from fraud_core.scoring.file import escaped
from fraud_core.scoring.file_parsing import FileFormat, pieces

CSV = {"content-type": "text/csv"}
PARQUET = {"content-type": "application/vnd.apache.parquet"}
Make = Callable[[int], list[dict[str, Any]]]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(frame: pl.DataFrame, **options: Any) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, **options)
    return buffer.getvalue()


def records(answer: httpx.Response) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    *rows, last = [json.loads(line) for line in answer.text.splitlines()]
    return rows, last


@pytest.fixture
def api(call: Any, installation: Any) -> Any:
    installation.promote(1)
    return call(installation.settings)


def test_csv_parquet_and_batch_give_the_same_scores(api: Any, made_transactions: Make) -> None:
    sent = made_transactions(300)
    batch = [row["probability"] for row in api.post("/v1/score/batch", json={"transactions": sent}).json()["results"]]
    frame = pl.DataFrame(sent, infer_schema_length=None)
    typed = frame.with_columns(
        pl.col("timestamp").str.to_datetime(time_zone="UTC").dt.cast_time_unit("ns"),
        pl.col("amount").cast(pl.Float64),
        pl.col("birth_date").str.to_date(),
        pl.col("city_population").cast(pl.Float64),
        pl.col("card").rank("dense").cast(pl.Int64),
        pl.col("category").cast(pl.Categorical),
    )
    for content, headers in [(as_csv(sent), CSV), (as_parquet(frame), PARQUET), (as_parquet(typed), PARQUET)]:
        rows, last = records(api.post("/v1/score/file", content=content, headers=headers))
        assert not [row for row in rows if "errors" in row]
        assert [row["probability"] for row in rows] == batch
        assert [row["row"] for row in rows] == list(range(1, 301))
        assert (last["rows"], last["refused"], last["complete"]) == (300, 0, True)


def test_wrong_rows_are_refused_by_themselves_with_field_and_reason(api: Any) -> None:
    content = (
        b"timestamp,amount,home_latitude\n2020-01-01T00:00:00Z,1.50,\n2020-01-01T00:00:00,1,\n2020-01-01T00:00:00Z,,99\n1,2\n"
    )
    rows, last = records(api.post("/v1/score/file", content=content, headers=CSV))
    assert "probability" in rows[0]
    assert [[error["field"] for error in row["errors"]] for row in rows[1:]] == [
        ["timestamp"],
        ["amount", "home_latitude"],
        ["(row)"],
    ]
    assert (last["rows"], last["refused"], last["complete"]) == (4, 3, True)


def test_naive_parquet_times_are_refused(api: Any) -> None:
    frame = pl.DataFrame({"timestamp": [datetime(2020, 1, 1)], "amount": [1.5]})  # noqa: DTZ001
    rows, _ = records(api.post("/v1/score/file", content=as_parquet(frame), headers=PARQUET))
    assert rows[0]["errors"] == [{"field": "timestamp", "reason": "has no offset from UTC; append Z or, say, +02:00"}]


WRONG_COLUMNS = [
    (b"timestamp,amount,colour\n", "csv", "colour"),
    (b"timestamp\n", "csv", "amount"),
    (b"timestamp,amount,amount\n", "csv", "amount"),
    (b"", "csv", "timestamp"),
    (b"4111111111111111,timestamp,amount\n", "csv", "(a name that is not repeated here)"),
    (as_parquet(pl.DataFrame({"amount": [1.0]})), "parquet", "timestamp"),
]


@pytest.mark.parametrize(("content", "file", "field"), WRONG_COLUMNS)
def test_a_wrong_column_is_named(content: bytes, file: FileFormat, field: str) -> None:
    (piece,) = pieces(io.BytesIO(content), file)
    assert piece.state == "failed"
    assert field in {problem.field for problem in piece.errors}
    assert "4111111111111111" not in str(piece)


def test_a_wrong_column_is_answered_before_anything_is_scored(api: Any) -> None:
    content, _, field = WRONG_COLUMNS[4]
    answer = api.post("/v1/score/file", content=content, headers=CSV)
    assert answer.status_code == 422
    assert field in {error["field"] for error in answer.json()["errors"]}
    assert "4111111111111111" not in answer.text


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all" * 100])
def test_what_is_no_parquet_is_known_as_such(content: bytes) -> None:
    (piece,) = pieces(io.BytesIO(content), "parquet")
    assert (piece.state, "not a Parquet file" in piece.detail) == ("failed", True)


def test_what_is_no_parquet_is_refused(api: Any) -> None:
    answer = api.post("/v1/score/file", content=b"no parquet at all" * 100, headers=PARQUET)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:fraud:problem:unreadable-file")


def test_a_damaged_page_ends_the_answer_with_a_record_that_says_so(api: Any) -> None:
    table = pa.table({"timestamp": ["2020-01-01T00:00:00Z"] * 20_000, "amount": [at / 100 for at in range(20_000)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=10_000, write_page_checksum=True)
    content = bytearray(buffer.getvalue())
    content[len(content) * 3 // 4] ^= 0xFF
    rows, last = records(api.post("/v1/score/file", content=bytes(content), headers=PARQUET))
    assert last["complete"] is False
    assert last["rows"] == len(rows) < 20_000
    assert "problem" in last


def test_bytes_that_are_not_utf8_end_the_answer_after_the_rows_before(api: Any) -> None:
    content = b"timestamp,amount,category\n" + b"2020-01-01T00:00:00Z,1,misc_net\n" * 20_000 + b"2020-01-01T00:00:00Z,1,\xff\n"
    rows, last = records(api.post("/v1/score/file", content=content, headers=CSV))
    assert (len(rows), last["complete"]) == (last["rows"], False)
    assert "UTF-8" in last["problem"]


def test_an_endless_line_is_not_taken_into_memory(api: Any) -> None:
    answer = api.post("/v1/score/file", content=b"timestamp,amount\n" + b"x" * 3_000_000, headers=CSV)
    assert answer.status_code == 422
    assert "Line 2: the line has more than 1000000 characters" in answer.json()["detail"]


def test_a_small_file_that_expands_to_much_is_refused(api: Any) -> None:
    rows = 2_000_000
    table = pa.table({"timestamp": ["2020-01-01T00:00:00Z"] * rows, "amount": pa.array([1.0] * rows)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False, data_page_size=1 << 20)
    assert len(buffer.getvalue()) < 1_000_000
    answer = api.post("/v1/score/file", content=buffer.getvalue(), headers=PARQUET)
    assert answer.status_code == 422
    assert "expand" in answer.json()["detail"]


def test_a_dictionary_that_would_fill_the_memory_ends_the_scoring_and_not_the_scorer(call: Any, installation: Any) -> None:
    """A megabyte of text, written once and referred to by every row: the file's own figures do not give it away."""
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"file_memory": 400_000_000}))
    rows = 4_000
    merchant = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 1_000_000]))
    table = pa.table({"timestamp": ["2020-01-01T00:00:00Z"] * rows, "amount": [1.0] * rows, "merchant": merchant})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, store_schema=False)
    assert len(buffer.getvalue()) < 2_000_000
    answer = api.post("/v1/score/file", content=buffer.getvalue(), headers=PARQUET)
    rows, _ = records(answer)
    assert not [row for row in rows if "probability" in row]
    assert api.get("/readyz").status_code == 200


def test_too_many_row_groups_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud_core.scoring.file_parsing.MOST_ROW_GROUPS", 3)
    frame = pl.DataFrame({"timestamp": ["2020-01-01T00:00:00Z"] * 8, "amount": [1.0] * 8})
    frame.write_parquet(tmp_path / "many.parquet", row_group_size=2)
    with (tmp_path / "many.parquet").open("rb") as file:
        (piece,) = pieces(file, "parquet")
    assert (piece.state, "4 row groups" in piece.detail) == ("failed", True)


def test_the_answer_comes_as_csv_where_that_is_asked_and_no_cell_is_a_formula(api: Any) -> None:
    content = b"transaction_id,timestamp,amount\n" + b"".join(
        b"%s,2020-01-01T00:00:00Z,1\n" % identity for identity in (b"=1+1", b"+1", b"-1", b"@x", b"plain")
    )
    answer = api.post("/v1/score/file", content=content, headers=CSV | {"accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    header, *rows, last = csv.reader(io.StringIO(answer.text))
    assert header == ["row", "transaction_id", "probability", "decision", "problems"]
    assert [row[1] for row in rows] == ["'=1+1", "'+1", "'-1", "'@x", "plain"]
    assert last[0] == "complete"
    assert last[-1].startswith("5 rows, 0 refused")
    assert (escaped("\tx"), escaped(1.5), escaped("")) == ("'\tx", 1.5, "")


def test_a_form_nobody_writes_and_a_file_nobody_reads_are_refused(api: Any) -> None:
    content = b"timestamp,amount\n"
    assert api.post("/v1/score/file", content=content, headers=CSV | {"accept": "image/png"}).status_code == 406
    assert api.post("/v1/score/file", content=content, headers={"content-type": "application/zip"}).status_code == 415


def spooled(installation: Any) -> list[Path]:
    folder = installation.settings.home / "run" / "spool"
    return list(folder.iterdir()) if folder.exists() else []


def settled(api: Any, installation: Any) -> bool:
    """Whether, within seconds, no file is left in the spool."""
    deadline = time.monotonic() + 10
    while spooled(installation) and time.monotonic() < deadline:
        api.runner.run(asyncio.sleep(0.02))
    return not spooled(installation)


def test_a_file_above_the_quota_is_refused_and_leaves_nothing(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"spool_quota": 1_000}))
    answer = api.post("/v1/score/file", content=b"timestamp,amount\n" + b"2020-01-01T00:00:00Z,1\n" * 100, headers=CSV)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert settled(api, installation)


def test_a_file_above_the_upload_limit_is_refused_and_leaves_nothing(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"max_upload": 1_000}))

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"2020-01-01T00:00:00Z,1\n"

    assert api.post("/v1/score/file", content=endless(), headers=CSV).status_code == 413
    assert settled(api, installation)


def test_no_more_files_at_a_time_than_allowed_and_the_place_is_free_again(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"files_at_once": 1}))
    content = b"timestamp,amount\n2020-01-01T00:00:00Z,1\n"

    async def both() -> list[int]:
        answers = await asyncio.gather(*[api.http.post("/v1/score/file", content=content, headers=CSV) for _ in range(2)])
        return sorted(answer.status_code for answer in answers)

    assert api.runner.run(both()) == [200, 429]
    assert settled(api, installation)
    assert api.post("/v1/score/file", content=content, headers=CSV).status_code == 200


OPENED = r'{"state":"opened"}\n{"state":"rows","rows":1,"lines":2,"idle":1,"size":2}\n{}'


def hanging(told: str = "") -> tuple[str, ...]:
    """A process in the place of the one that scores: it reads nothing, or its order, says this, and no more."""
    reads = "sys.stdin.buffer.read()" if told else "pass"
    return (sys.executable, "-c", f"import sys, time; {reads}; sys.stdout.write('{told}'); sys.stdout.flush(); time.sleep(20)")


def test_a_process_that_does_not_begin_is_ended_and_its_place_is_free_again(
    call: Any, installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"files_at_once": 1, "file_step_seconds": 0.1, "file_stall_seconds": 0.1}))
    monkeypatch.setattr("fraud_api.uploads.COMMAND", hanging())
    for _ in range(2):
        answer = api.post("/v1/score/file", content=b"timestamp,amount\n", headers=CSV)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:fraud:problem:file-scoring")
        assert settled(api, installation)


def test_a_process_that_gets_no_further_is_not_called_a_reader_who_takes_nothing(
    call: Any, installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"file_stall_seconds": 0.3}))
    monkeypatch.setattr("fraud_api.uploads.COMMAND", hanging(OPENED))
    _, last = api.post("/v1/score/file", content=b"timestamp,amount\n", headers=CSV).text.split("{}")
    assert json.loads(last)["problem"] == "The scoring got no further for 0.3 s; send the rest again."
    assert (json.loads(last)["rows"], json.loads(last)["complete"]) == (1, False)
    assert settled(api, installation)


def test_files_of_killed_processes_are_removed_and_those_of_living_ones_stay(installation: Any) -> None:
    uploads = Uploads(installation.settings)
    folder = installation.settings.home / "run" / "spool"
    folder.mkdir(parents=True)
    old = time.time() - 3600
    for name in ("orphan", "fresh", "held"):
        (folder / name).write_bytes(b"x")
    os.utime(folder / "orphan", (old, old))
    os.utime(folder / "held", (old, old))
    import fcntl

    with (folder / "held").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        uploads._remove_orphans()
        assert {path.name for path in folder.iterdir()} == {"fresh", "held"}


def test_the_process_that_scores_knows_none_of_our_secrets(call: Any, installation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.promote(1)
    api = call(installation.settings)
    monkeypatch.setenv("FRAUD_SIGNING_KEY", "0" * 64)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    given: dict[str, str] = {}
    start = asyncio.create_subprocess_exec

    async def spy(*arguments: Any, env: dict[str, str], **options: Any) -> Any:
        given.update(env)
        return await start(*arguments, env=env, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spy)
    records(api.post("/v1/score/file", content=b"timestamp,amount\n2020-01-01T00:00:00Z,1\n", headers=CSV))
    assert given
    assert not [name for name in given if name.startswith(("FRAUD_", "AWS_"))]


def test_a_promotion_in_mid_file_does_not_mix_models(api: Any, installation: Any) -> None:
    content = b"timestamp,amount\n" + b"2020-01-01T00:00:00Z,900\n" * 30_000

    async def promoted_meanwhile() -> httpx.Response:
        sending = asyncio.create_task(api.http.post("/v1/score/file", content=content, headers=CSV))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(installation.promote, 2)
        return await sending

    rows, last = records(api.runner.run(promoted_meanwhile()))
    assert len({row["probability"] for row in rows}) == 1
    assert last["model_version"] == installation.bundle(1).version
