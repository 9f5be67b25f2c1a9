"""The log of labels, copied to where trainings read it: only ever added to, and heard by the next training."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest

from fraud_assets.stages import labels
from fraud_assets.training.rows import read_rows
from fraud_assets.training.split import Block
from fraud_core.intake.raw import RELABELS
from fraud_core.labels.log import LabelLog
from fraud_core.labels.resolve_table import standing
from fraud_core.storage.database import open_database
from fraud_core.training_data.labels import read_labels

DAY = timedelta(days=1)
NOW = datetime(2024, 8, 1, 9, tzinfo=UTC)
Say = Callable[..., None]


@pytest.fixture
def say(bench: Any) -> Say:
    """Add a label: `say("2024-02-7", "fraud")`."""
    log = LabelLog(open_database(bench.installation.settings))

    def add(payment: str, outcome: Any, known_at: datetime = NOW - DAY, **changes: Any) -> None:
        given = {"source": "analyst", "author": "ann", "note": "her name is Eve"} | changes
        log.append(transaction_id=payment, outcome=outcome, event_time=NOW - 90 * DAY, known_at=known_at, **given)

    return add


def export(bench: Any, now: datetime = NOW) -> bool:
    table = labels.export(bench.installation, now)
    if table is not None:
        bench.installation.artifacts.write("labels", None, table)
    return table is not None


def legitimate(bench: Any, key: str = "2024-02") -> str:
    return str(bench.rows()[key].filter(~pl.col("label"))["transaction_id"][0])


def test_exports_add_rows_and_change_none(bench: Any, say: Say) -> None:
    say("a", "fraud")
    say("b", "unsure")
    assert export(bench)
    first = read_labels(bench.installation.artifacts)
    say("a", "legitimate")
    assert export(bench, NOW + DAY)
    second = read_labels(bench.installation.artifacts)
    assert second.head(2).equals(first)
    assert second["outcome"].to_list() == ["fraud", "unsure", "legitimate"]
    assert not export(bench, NOW + 2 * DAY)


def test_what_the_source_says_later_is_heard_once_as_of_its_arrival_and_trained_on(bench: Any, say: Say) -> None:
    payment, known = legitimate(bench), NOW - 2 * DAY
    rows = [(payment, NOW - 90 * DAY, True, known), ("other", NOW - 90 * DAY, False, known)]
    relabels = pl.DataFrame(rows, schema=RELABELS, orient="row")
    assert [labels.hear(bench.installation, relabels) for _ in range(2)] == [2, 0]
    assert labels.has_news(bench.installation)
    export(bench)
    assert not labels.has_news(bench.installation)
    told = read_labels(bench.installation.artifacts)
    assert told.select("outcome", "source", "author").rows() == [("fraud", "source", "bench"), ("legitimate", "source", "bench")]
    assert set(told["known_at"]) == {known}
    assert standing(told)["outcome"].to_list() == ["fraud", "legitimate"]
    say(payment, "legitimate")
    export(bench, NOW + DAY)
    assert standing(read_labels(bench.installation.artifacts)).sort("outcome")["outcome"].to_list() == [
        "legitimate",
        "legitimate",
    ]


def test_notes_stay_in_the_database(bench: Any, say: Say) -> None:
    say("a", "fraud")
    export(bench)
    assert "Eve" not in read_labels(bench.installation.artifacts).write_csv()


def test_a_label_is_heard_from_when_it_is_known(bench: Any, say: Say) -> None:
    say("a", "fraud", known_at=NOW + DAY)
    assert export(bench)
    assert read_labels(bench.installation.artifacts).is_empty()
    assert export(bench, NOW + 2 * DAY)
    assert len(read_labels(bench.installation.artifacts)) == 1


def test_labels_are_exported_once_a_day_and_only_when_some_came_in(bench: Any, say: Say) -> None:
    assert not labels.are_waiting(bench.installation, NOW)
    say("a", "fraud")
    assert labels.are_waiting(bench.installation, NOW)
    export(bench)
    say("b", "fraud")
    assert not labels.are_waiting(bench.installation, NOW)
    assert labels.are_waiting(bench.installation, NOW + DAY)


def test_the_asset_writes_nothing_where_nothing_was_said(bench: Any, say: Say) -> None:
    def written() -> int:
        asset = labels.build(bench.installation)[0]
        context = dg.build_asset_context()
        return len(list(asset(context)))  # type: ignore[arg-type]

    assert written() == 0
    say("a", "fraud")
    assert written() == 1


def test_a_training_joins_what_is_known_and_nothing_is_rewritten(bench: Any, say: Say) -> None:
    def frauds() -> int:
        return int(read_rows(bench.installation.training_data(), bench.refs(), Block()).labels.sum())

    def inputs() -> str:
        return bench.installation.training_task(bench.installation.training_set()).inputs

    before, asked, stored = frauds(), inputs(), bench.installation.transformed()
    say(legitimate(bench), "fraud")
    assert (frauds(), inputs()) == (before, asked)
    export(bench)
    assert frauds() == before + 1
    heard = inputs()
    assert heard != asked
    say(legitimate(bench), "legitimate", known_at=NOW - 2 * DAY)  # known earlier: the later word stands
    say("of no payment here", "fraud")
    export(bench, NOW + DAY)
    assert (frauds(), inputs()) == (before + 1, heard)
    say(legitimate(bench), "legitimate", source="chargeback")
    export(bench, NOW + 2 * DAY)
    assert (frauds(), inputs()) == (before, asked)
    assert bench.installation.transformed() == stored


def test_an_unsure_payment_trains_nobody(bench: Any, say: Say) -> None:
    rows = len(read_rows(bench.installation.training_data(), bench.refs(), Block()).labels)
    say(legitimate(bench), "unsure")
    export(bench)
    read = read_rows(bench.installation.training_data(), bench.refs(), Block())
    assert len(read.labels) == rows - 1
    assert legitimate(bench) not in read.frame["transaction_id"]
