"""File page: scored by a process of their own while the page shows how far it is; then a summary, and all rows to take away."""

import io
import logging
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from fraud_core.errors import FraudError
from fraud_core.evaluation.calibration import LEAST, MOST
from fraud_core.models.follower import LoadedModel
from fraud_core.models.scorer import Scorer
from fraud_core.scoring.file import ARROW_SCHEMA, COMMAND, Frame, arrow_schema, child_environment, order_bytes
from fraud_core.scoring.file_parsing import FileFormat
from fraud_core.settings import Settings
from fraud_core.transactions.refusals import FieldProblem
from fraud_ui import uploads
from fraud_ui.kit import charts
from fraud_ui.kit.charts import Bar
from fraud_ui.kit.wording import DECISIONS, alert, counted, escaped, moment, money, note, percent, table, without_values

logger = logging.getLogger(__name__)

MOST_ROWS = 500_000
SHOWN = 100  # rows of a table in the page; the download has all
SHOWN_OWN = 4  # own fields in it
REPEATED = ("timestamp", "amount_cents", "merchant", "category")
FORMATS: Mapping[str, FileFormat] = {".csv": "csv", ".parquet": "parquet"}
State = Literal["waiting", "running", "done", "failed", "cancelled"]


class UnfitFileError(FraudError):
    """The file cannot be scored at all."""


@dataclass(frozen=True)
class Progress:
    """How far a file is. `expected` is about how many rows it has, 0 while that is not known."""

    state: State = "waiting"
    expected: int = 0
    rows: int = 0
    refused: int = 0


class FileJob:
    """The scoring of one file, in a thread that reads what a child process answers.

    The file is removed as soon as it was read, whatever came of it. Whoever started the job may go away: it ends by itself.

    Args:
        path: the file; its ending tells the format.
        served: the model, for all of its rows.
        settings: memory and time that it may take.
        turn: how many files are scored at a time.

    Raises:
        UnfitFileError: it is neither CSV nor Parquet by its name.
    """

    def __init__(self, path: Path, served: LoadedModel, settings: Settings, turn: threading.Semaphore) -> None:
        if path.suffix.lower() not in FORMATS:
            uploads.remove(path)
            raise UnfitFileError("This is neither a .csv nor a .parquet file; save it as one of the two and choose it again.")
        self.id = secrets.token_hex(8)
        self.served = served
        self.progress = Progress()
        self.detail = ""
        self.errors: list[FieldProblem] = []
        self._path = path
        self._settings = settings
        self._turn = turn
        self._frames: list[pl.DataFrame] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"file-{self.id}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to come."""
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Wait until it ends, or so long."""
        self._thread.join(seconds)

    def cancel(self) -> None:
        """End it now; what was scored so far is dropped."""
        self._cancelled.set()
        if self._child is not None:
            self._child.kill()

    def rows(self) -> pl.DataFrame:
        """All rows so far, as `arrow_schema` has them, in the file's order."""
        empty = arrow_schema(self._repeated, self.served.accepts)
        return pl.concat(self._frames) if self._frames else pl.DataFrame(schema=empty)

    @property
    def _repeated(self) -> tuple[str, ...]:
        """The fields of a payment that its row repeats, what it brought before what follows; none is personal."""
        declared = self.served.accepts
        return (*REPEATED, *(name for name in (*declared.given, *declared.derived) if not declared.own[name].personal))

    def _run(self) -> None:
        try:
            while not self._turn.acquire(timeout=0.2):
                if self._cancelled.is_set():
                    self._end("cancelled")
                    return
            try:
                self._score()
            finally:
                self._turn.release()
        except Exception as error:  # the thread's end is what the page waits for, and the reason must reach it
            logger.error("the scoring of a file ended early, file job %s: %s", self.id, without_values(error))
            self._end(
                "failed", f"The scoring of this file ended early; the log of the desk has it as file job {self.id}. Try again."
            )
        finally:
            uploads.remove(self._path)

    def _score(self) -> None:
        file, bundle = FORMATS[self._path.suffix.lower()], self.served.scorer.bundle
        order = order_bytes(self._path, file, "arrow", bundle, self._settings, self._repeated, self.served.accepts)
        with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()) as child:  # noqa: S603
            self._child = child
            deadline = threading.Timer(self._settings.file_seconds, child.kill)
            deadline.start()
            try:
                assert child.stdin is not None
                assert child.stdout is not None
                with suppress(BrokenPipeError):  # it ended early; what it wrote, or did not, tells
                    child.stdin.write(order)
                    child.stdin.close()
                self._read(child.stdout)
            finally:
                deadline.cancel()
                child.kill()

    def _read(self, answers: IO[bytes]) -> None:
        while True:
            line = answers.readline()
            if self._cancelled.is_set():
                self._end("cancelled")
                return
            frame = Frame.model_validate_json(line) if line.endswith(b"\n") else Frame(state="failed")
            match frame.state:
                case "opened":
                    self.progress = Progress("running", frame.expected)
                case "rows":
                    self._frames.append(pl.read_ipc_stream(io.BytesIO(answers.read(frame.size))))
                    self.progress = Progress("running", max(self.progress.expected, frame.rows), frame.rows, frame.refused)
                    if frame.rows > MOST_ROWS:
                        self._end("failed", f"The file has more than {MOST_ROWS:,} rows; split it.")
                        return
                case "done":
                    self._end("done")
                    return
                case "failed":
                    self.errors = frame.errors
                    self._end("failed", frame.detail or "The scoring of this file ended early; try again, or try half of it.")
                    return

    def _end(self, state: State, detail: str = "") -> None:
        self.detail = detail
        if state in ("cancelled", "failed") and self._cancelled.is_set():
            state, self._frames = "cancelled", []
        self.progress = Progress(state, self.progress.expected, self.progress.rows, self.progress.refused)


class FileJobs:
    """The files that are being scored, by id. A job belongs to who started it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = threading.Semaphore(settings.files_at_once)
        self._jobs: dict[str, tuple[str, FileJob]] = {}

    def start(self, owner: str, path: Path, served: LoadedModel) -> FileJob:
        """Score a file for somebody.

        Raises:
            UnfitFileError: it cannot be scored at all.
        """
        job = FileJob(path, served, self._settings, self._turn)
        self._jobs = {key: (whose, old) for key, (whose, old) in self._jobs.items() if not old.ended}
        self._jobs[job.id] = (owner, job)
        return job

    def cancel(self, owner: str, identity: str) -> None:
        """End a job of one's own; nothing happens where it ended already."""
        whose, job = self._jobs.get(identity, ("", None))
        if job is not None and whose == owner:
            job.cancel()


# --- what is shown --------------------------------------------------------------------------------------------------------------


def progress_bar(progress: Progress, began: float) -> str:
    """How far a file is, and how long it will take."""
    if progress.state == "waiting":
        waiting = '<progress aria-label="Scoring"></progress><span>Waiting for its turn.</span>'
        return f'<div class="progress" role="status">{waiting}</div>'
    share = progress.rows / progress.expected if progress.expected else 0.0
    left = (time.monotonic() - began) * (1 - share) / share if share > 0 else None
    told = f"{counted(progress.rows, 'row')} of about {progress.expected:,}"
    if left is not None:
        told += f", about {left:.0f} s left"
    return (
        f'<div class="progress" role="status"><progress aria-label="Scoring" max="1" value="{share:.3f}"></progress>'
        f"<span>{told}</span></div>"
    )


def failed(job: FileJob) -> str:
    """Why a file was not scored."""
    if job.progress.state == "cancelled":
        return note("Cancelled. Nothing of this file is kept.")
    return alert(job.detail, [f"{problem.field} {problem.reason}." for problem in job.errors])


def summary(rows: pl.DataFrame, scorer: Scorer, settings: Settings, zone: ZoneInfo, version: str) -> str:
    """A scored file in short: decisions, expected cost, where the scores lie, the riskiest, and what was refused."""
    if rows.is_empty():
        return alert("This file has a header and no rows, so there is nothing to score.")
    scored, refused = rows.filter(pl.col("problems").is_null()), rows.filter(pl.col("problems").is_not_null())
    parts = [
        f"<p><strong>{counted(len(rows), 'row')}: {len(scored):,} scored, {len(refused):,} refused.</strong> "
        f'<span class="quiet">By version <code>{escaped(version)}</code>.</span></p>'
    ]
    if len(scored):
        parts += [_decisions(scored, settings), _histogram(scored, scorer), _riskiest(scored, zone)]
    if len(refused):
        commonest = refused["problems"].value_counts(sort=True).head(3)
        reasons = [f"{counted(number, 'row')}: {why}." for why, number in commonest.iter_rows()]
        parts.append(alert("No row could be scored." if scored.is_empty() else "Not every row could be scored.", reasons))
        lines = [(f"{line:,}", escaped(why)) for line, why in refused.select("line", "problems").head(SHOWN).iter_rows()]
        more = note(f"The first {SHOWN} of {len(refused):,}; the download has all.") if len(refused) > SHOWN else ""
        parts.append(table("Refused rows", ("Line", "Why"), lines, (0,)) + more)
    return "".join(parts)


def expected_costs(scored: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Per decision: rows, amount in cents, and what it is expected to cost, in currency units.

    An approved payment costs its amount with the probability of fraud; a reviewed one the review; a declined one the cost of a
    false decline with the probability that it was legitimate.
    """
    amount, probability = pl.col("amount_cents") / 100, pl.col("probability")
    cost = (
        pl.when(pl.col("decision") == "approve")
        .then(probability * amount)
        .when(pl.col("decision") == "review")
        .then(settings.review_cost)
        .otherwise((1 - probability) * settings.false_decline_cost)
    )
    return scored.group_by("decision").agg(
        rows=pl.len(), amount_cents=pl.col("amount_cents").sum(), cost=cost.sum(), unwatched=(probability * amount).sum()
    )


def _decisions(scored: pl.DataFrame, settings: Settings) -> str:
    costs = {row["decision"]: row for row in expected_costs(scored, settings).iter_rows(named=True)}
    rows = []
    for decision, word in DECISIONS.items():
        found = costs.get(decision, {"rows": 0, "amount_cents": 0, "cost": 0.0})
        share = percent(found["rows"] / len(scored))
        chip, amount = f'<span class="chip {decision}">{word}</span>', money(found["amount_cents"])
        rows.append((chip, f"{found['rows']:,}", share, amount, f"{found['cost']:,.2f}"))
    total = sum(row["cost"] for row in costs.values())
    unwatched = sum(row["unwatched"] for row in costs.values())
    rows.append(("All", f"{len(scored):,}", "100 %", money(int(scored["amount_cents"].sum())), f"<b>{total:,.2f}</b>"))
    header = ("Decision", "Payments", "Share", "Amount (currency units)", "Expected cost (currency units)")
    told = (
        f"Approving everything would be expected to cost {unwatched:,.2f}. A review is taken to cost {settings.review_cost:g}, "
        f"a false decline {settings.false_decline_cost:g}."
    )
    return table("How they are decided", header, rows, (1, 2, 3, 4)) + note(told)


def _histogram(scored: pl.DataFrame, scorer: Scorer) -> str:
    """Bins of equal width in log-odds, cut at the thresholds so that every bar has one decision."""
    low, high = charts.log_odds(LEAST), charts.log_odds(MOST)
    ends = 1 / (1 + np.exp(-np.linspace(low, high, 41)))
    cuts = [t for t in (scorer.thresholds.review, scorer.thresholds.decline) if LEAST < t < MOST]
    edges = np.unique(np.concatenate([ends, cuts]))
    held = np.clip(scored["probability"].to_numpy(), LEAST, MOST)
    places = np.clip(np.searchsorted(edges, held, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(places, minlength=len(edges) - 1)
    bars = [
        Bar(float(a), float(b), int(n), scorer.decide(float(a))) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    return charts.histogram("Where the scores lie", bars, "probability of fraud (log-odds scale)")


def _riskiest(scored: pl.DataFrame, zone: ZoneInfo) -> str:
    own = [name for name in scored.columns if name not in ARROW_SCHEMA][:SHOWN_OWN]
    rows = [
        (
            f"{row['line']:,}",
            escaped(row["transaction_id"]),
            moment(row["timestamp"], zone),
            money(row["amount_cents"]),
            escaped(row["merchant"] or ""),
            escaped(row["category"] or ""),
            *(escaped("" if row[name] is None else row[name]) for name in own),
            percent(row["probability"]),
            f'<span class="chip {row["decision"]}">{DECISIONS[row["decision"]]}</span>',
        )
        for row in scored.sort("probability", descending=True, maintain_order=True).head(SHOWN).iter_rows(named=True)
    ]
    header = ("Line", "Transaction", f"When ({zone.key})", "Amount", "Merchant", "Category", *own, "Fraud", "Decision")
    return table(f"The riskiest first (up to {SHOWN}; the download has all)", header, rows, (0, 3, 6 + len(own)))


def write_csv(rows: pl.DataFrame, path: Path) -> None:
    """All rows as CSV, riskiest first and refused ones last.

    A cell that a spreadsheet would take for a formula gets an apostrophe before it (OWASP, "CSV Injection").
    """
    text = [
        pl.when(pl.col(name).str.contains(r"^[=+\-@\t\r]")).then("'" + pl.col(name)).otherwise(pl.col(name)).alias(name)
        for name, dtype in rows.schema.items()
        if dtype == pl.String
    ]
    cents = pl.col("amount_cents")
    amount = pl.format("{}.{}", cents // 100, (cents % 100).cast(pl.String).str.zfill(2)).alias("amount")
    ordered = rows.sort("probability", descending=True, nulls_last=True, maintain_order=True)
    shown = ordered.with_columns(amount, *text, pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ"))
    own = [name for name in rows.columns if name not in ARROW_SCHEMA]
    columns = ["line", "transaction_id", "timestamp", "amount", "merchant", "category", *own]
    shown.select([*columns, "probability", "decision", "problems"]).write_csv(path)


def clear_folder(folder: Path) -> None:
    """An empty folder for what is sent and taken away, readable by this user alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
