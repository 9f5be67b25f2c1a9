"""A file: scored elsewhere, shown in short, taken away whole, and removed."""

import csv
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from fraud_core.models.follower import LoadedModel, ModelFollower
from fraud_core.scoring import file as filescoring
from fraud_core.scoring.file import ARROW_SCHEMA
from fraud_core.scoring.score import score_together
from fraud_core.transactions.declared_type import example_of
from fraud_core.transactions.transaction import Transaction
from fraud_ui.views import files
from fraud_ui.views.files import FileJob, FileJobs, UnfitFileError
from tests.conftest import Installation
from tests.declared import ONLINE

UTC_ZONE = ZoneInfo("UTC")
Make = Callable[[int], list[dict[str, Any]]]


def uploaded(tmp_path: Path, name: str, content: bytes) -> Path:
    """A file as Gradio keeps it: in a folder of its own."""
    path = tmp_path / "upload" / name
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def ended(job: FileJob) -> FileJob:
    job.wait(60)
    assert job.ended
    return job


@pytest.fixture
def score(kept: Installation, served: LoadedModel) -> Callable[[Path], FileJob]:
    return lambda path: ended(FileJob(path, served, kept.settings, threading.Semaphore(1)))


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    return pl.DataFrame(rows, infer_schema_length=None).write_csv().encode()


def test_a_file_has_the_scores_of_its_payments_and_is_removed(
    score: Callable[[Path], FileJob], tmp_path: Path, served: LoadedModel, made_transactions: Make
) -> None:
    sent = made_transactions(300)
    path = uploaded(tmp_path, "sent.csv", csv_of(sent))
    job = score(path)
    assert job.progress == files.Progress("done", 300, 300, 0)
    expected = score_together(served.scorer, [Transaction.model_validate(row) for row in sent], None).probabilities
    rows = job.rows()
    assert rows["probability"].to_list() == expected.tolist()
    assert rows["line"].to_list() == list(range(2, 302))
    assert rows["transaction_id"].to_list() == [row["transaction_id"] for row in sent]
    assert dict(rows.schema) == ARROW_SCHEMA
    assert not path.parent.exists()


def test_refused_rows_bear_their_line_in_the_file(score: Callable[[Path], FileJob], tmp_path: Path) -> None:
    text = b'timestamp,amount,merchant\n2020-01-01T00:00:00Z,1,"a\tb"\n\n2020-01-01T00:00:00,1,\n2020-01-01T00:00:00Z,1\n'
    refused = score(uploaded(tmp_path, "sent.csv", text)).rows().filter(pl.col("problems").is_not_null())
    assert refused["line"].to_list() == [2, 4, 5]
    assert [told.split(";")[0] for told in refused["problems"]] == [
        "merchant holds control characters",
        "timestamp has no offset from UTC",
        "(row) has 2 cells where the header has 3",
    ]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("wrong.csv", b"when,amount\n1,2\n", "timestamp is missing"),
        ("broken.parquet", b"no parquet", "not a Parquet file"),
        ("latin.csv", "timestamp,amount,merchant\n,,\xfc".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_a_sentence_and_removed(
    score: Callable[[Path], FileJob], tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    path = uploaded(tmp_path, name, content)
    job = score(path)
    assert job.progress.state == "failed"
    assert told in files.failed(job)
    assert not path.exists()


def test_a_file_of_another_kind_is_refused_and_removed(kept: Installation, served: LoadedModel, tmp_path: Path) -> None:
    path = uploaded(tmp_path, "book.xlsx", b"x")
    with pytest.raises(UnfitFileError, match="neither a"):
        FileJob(path, served, kept.settings, threading.Semaphore(1))
    assert not path.exists()


def test_more_rows_than_are_scored_here_end_it(
    score: Callable[[Path], FileJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_transactions: Make
) -> None:
    monkeypatch.setattr(files, "MOST_ROWS", 100)
    job = score(uploaded(tmp_path, "sent.csv", csv_of(made_transactions(101))))
    assert "more than 100 rows" in files.failed(job)


def test_only_its_owner_cancels_a_job_and_nothing_is_kept(
    kept: Installation, served: LoadedModel, tmp_path: Path, made_transactions: Make
) -> None:
    jobs = FileJobs(kept.settings)
    taken = [jobs._turn.acquire(blocking=False) for _ in range(kept.settings.files_at_once)]
    assert all(taken)
    path = uploaded(tmp_path, "sent.csv", csv_of(made_transactions(50)))
    job = jobs.start("anna", path, served)
    jobs.cancel("ben", job.id)
    job.wait(0.5)
    assert not job.ended
    assert job.progress.state == "waiting"
    jobs.cancel("anna", job.id)
    assert ended(job).progress.state == "cancelled"
    assert len(job.rows()) == 0
    assert "Cancelled" in files.failed(job)
    assert not path.exists()


def rows(count: int = 3) -> pl.DataFrame:
    probabilities = [0.01, 0.5, 0.95][:count]
    return pl.DataFrame(
        {
            "line": list(range(2, 2 + count)),
            "transaction_id": ["=1+1", "b", "c"][:count],
            "timestamp": [None] * count,
            "amount_cents": [5_797, 20_000, 100_005][:count],
            "merchant": ["@x", "<b>", None][:count],
            "category": ["travel"] * count,
            "probability": probabilities,
            "decision": ["approve", "review", "decline"][:count],
            "problems": [None] * count,
        },
        schema=ARROW_SCHEMA,
    ).with_columns(timestamp=pl.lit("2024-06-21T12:00:00Z").str.to_datetime(time_zone="UTC"))


def test_expected_cost_is_the_policys(kept: Installation) -> None:
    costs = {row["decision"]: row for row in files.expected_costs(rows(), kept.settings).iter_rows(named=True)}
    assert costs["approve"]["cost"] == pytest.approx(0.01 * 57.97)
    assert costs["review"]["cost"] == kept.settings.review_cost
    assert costs["decline"]["cost"] == pytest.approx(0.05 * kept.settings.false_decline_cost)
    assert sum(row["unwatched"] for row in costs.values()) == pytest.approx(0.01 * 57.97 + 0.5 * 200 + 0.95 * 1000.05)


def test_the_summary_counts_decides_and_shows_the_riskiest_first(kept: Installation, served: LoadedModel) -> None:
    refused = rows(1).with_columns(
        pl.lit("amount is missing").alias("problems"),
        pl.lit(None, pl.Float64).alias("probability"),
        pl.lit(None, pl.String).alias("decision"),
    )
    shown = files.summary(pl.concat([rows(), refused]), served.scorer, kept.settings, ZoneInfo("Europe/Zurich"), "v1")
    assert "4 rows: 3 scored, 1 refused." in shown
    riskiest = shown[shown.index("The riskiest first") :]
    assert riskiest.index("1,000.05") < riskiest.index("200.00") < riskiest.index("57.97")
    assert "2024-06-21 14:00 CEST" in shown
    assert "amount is missing" in shown
    assert "<b><" not in shown
    nothing = files.summary(refused, served.scorer, kept.settings, UTC_ZONE, "v1")
    assert "1 row: 0 scored, 1 refused." in nothing
    assert "No row could be scored." in nothing
    assert "<li>1 row: amount is missing.</li>" in nothing
    assert "a header and no rows" in files.summary(refused.clear(), served.scorer, kept.settings, UTC_ZONE, "v1")


def test_what_is_taken_away_is_exact_and_holds_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "scored.csv"
    files.write_csv(rows(), path)
    taken = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["transaction_id"] for row in taken] == ["c", "b", "'=1+1"]
    assert [row["amount"] for row in taken] == ["1000.05", "200.00", "57.97"]
    assert [float(row["probability"]) for row in taken] == [0.95, 0.5, 0.01]
    assert taken[2]["merchant"] == "'@x"


@pytest.mark.parametrize("text", ["=a", "+a", "-a", "@a", "\ta", "\ra", "a=b", "", "ä"])
def test_cells_are_escaped_as_the_api_escapes_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scored.csv"
    files.write_csv(rows(1).with_columns(merchant=pl.lit(text)), path)
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["merchant"] == filescoring.escaped(text)


def test_the_bar_tells_how_far_it_is() -> None:
    assert "Waiting for its turn" in files.progress_bar(files.Progress(), 0.0)
    shown = files.progress_bar(files.Progress("running", 1_000, 250, 0), time.monotonic() - 10)
    assert 'value="0.250"' in shown
    assert "250 rows of about 1,000, about 30 s left" in shown


def test_own_fields_that_may_be_seen_are_in_the_table_and_in_the_download(installation: Installation, tmp_path: Path) -> None:
    installation.promote(1, declared=ONLINE)
    served = ModelFollower(installation.store, installation.key).poll().served
    assert served is not None
    sent = [example_of(ONLINE) | {"cvv": "Y", "channel": channel} for channel in ("web", "app", "fax")]
    job = ended(FileJob(uploaded(tmp_path, "sent.csv", csv_of(sent)), served, installation.settings, threading.Semaphore(1)))
    rows = job.rows()
    assert rows["channel"].to_list() == ["web", "app", None]
    assert rows["problems"][2] == "channel is none of the declared values (web, app)"
    assert not {"ip", "email", "income"} & set(rows.columns)
    assert '<th scope="col" class="text">device</th>' in files.summary(rows, served.scorer, installation.settings, UTC_ZONE, "v")
    files.write_csv(rows, tmp_path / "taken.csv")
    first = pl.read_csv(tmp_path / "taken.csv", infer_schema=False).row(0, named=True)
    assert (first["basket"], first["cvv"], first["email_domain"]) == ("500.0", "true", "example.com")
