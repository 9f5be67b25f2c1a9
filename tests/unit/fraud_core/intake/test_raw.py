"""What raw promises: time order, no duplicates, every refused row told, and the same content under every card key."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from fraud_core.fields import schema
from fraud_core.intake.landing import Landing, land
from fraud_core.intake.raw import RawPartition, build_raw, raw_inputs
from fraud_core.signing.keys import Key
from fraud_core.sources import partitions
from fraud_core.sources.source import load_source
from fraud_core.storage.directory import DirectoryStore
from tests.unit.fraud_core.intake.shop import CARD_KEY, Intake

SOURCES = Path(__file__).parents[4] / "sources"


def raw(intake: Intake, key: str = "2024-03", previous: Landing | None = None) -> RawPartition:
    """The partition of what lies in the folder."""
    source = intake.source()
    return build_raw(source, intake.land(source, previous), key, intake.store, CARD_KEY)


def at(hour: int, **change: str) -> dict[str, str]:
    return {"when": f"2024-03-05 {hour:02d}:00:00", **change}


def test_rows_are_in_time_order_and_those_of_equal_time_in_the_order_of_files_and_lines(intake: Intake) -> None:
    intake.rows(at(9, id="b9"), at(8, id="b8"), name="b.csv")
    intake.rows(at(9, id="a9"), at(9, id="a10"), at(7, id="a7"), name="a.csv")
    assert raw(intake).rows.frame["transaction_id"].to_list() == ["a7", "b8", "a9", "a10", "b9"]


def test_of_rows_with_one_id_the_first_stands_and_the_others_are_refused_as_copy_or_contradiction(intake: Intake) -> None:
    intake.rows(at(8, id="x"), at(9, id="y"), at(8, id="x"), at(10, id="x"), at(9, id="y", sum="1"))
    made = raw(intake)
    assert made.rows.frame["source_line"].to_list() == [2, 3]
    told = made.quarantine.frame.sort("source_line").select("source_line", "column", "reason").rows()
    contradiction = "contradicts a.csv line {}: the same transaction id with other content"
    assert told == [
        (4, "transaction_id", "is a copy of a.csv line 2"),
        (5, "transaction_id", contradiction.format(2)),
        (6, "transaction_id", contradiction.format(3)),
    ]
    assert made.rows.facts == {"landed": 5, "rows": 2, "quarantined": 3, "duplicates": 3, "copies": 1, "frauds": 0}


def test_a_missing_value_is_no_contradiction_of_itself(intake: Intake) -> None:
    intake.rows(at(8, id="x", kind=""), at(8, id="x", kind=""), at(8, id="x", kind="grocery"))
    reasons = raw(intake).quarantine.frame["reason"].to_list()
    assert [reason.split()[0] for reason in reasons] == ["is", "contradicts"]


def test_copies_over_files_are_duplicates_too(intake: Intake) -> None:
    intake.rows(at(8, id="x"))
    intake.rows(at(8, id="x"), at(9, id="z"), name="b.csv")
    made = raw(intake)
    assert made.rows.frame["transaction_id"].to_list() == ["x", "z"]
    assert made.quarantine.frame["reason"].to_list() == ["is a copy of a.csv line 2"]


def test_a_copy_with_another_label_is_news_since_it_came(intake: Intake) -> None:
    first, later = datetime(2024, 4, 1, tzinfo=UTC), datetime(2024, 4, 9, tzinfo=UTC)
    intake.rows(at(8, id="x"), at(9, id="y", outcome=""), at(10, id="z", outcome="F"), name="b.csv")
    source = intake.source()
    landed = land(source, intake.store, CARD_KEY, None, now=first)
    # It comes later under an earlier name, and says what became of them; of z, that it is not known.
    intake.rows(at(8, id="x", outcome="F"), at(9, id="y", outcome="L"), at(10, id="z", outcome=""), at(8, id="x", outcome="F"))
    landed = land(source, intake.store, CARD_KEY, landed, now=later)
    made = build_raw(source, landed, "2024-03", intake.store, CARD_KEY)
    assert made.rows.frame.select("transaction_id", "label").rows() == [("x", False), ("y", None), ("z", True)]
    assert made.relabels.sort("transaction_id").drop("timestamp").rows() == [("x", True, later), ("y", False, later)]
    assert made.rows.facts["copies"] == made.rows.facts["quarantined"] == 4
    news = "is a copy of b.csv line {} with another label, which goes into the log of labels"
    told = made.quarantine.frame.sort("source_line")["reason"].to_list()
    assert told == [news.format(2), news.format(3), "is a copy of b.csv line 4", "is a copy of b.csv line 2"]


def test_of_one_id_in_two_partitions_the_one_that_came_first_stands(intake: Intake) -> None:
    april = {"when": "2024-04-05 08:00:00"}
    intake.rows(at(8, id="x"), april | {"id": "x"}, april | {"id": "y"}, name="b.csv")
    source = intake.source()
    before = land(source, intake.store, CARD_KEY, None)
    assert raw_inputs(before, "2024-03") == raw_inputs(before.model_copy(update={"repeats": ()}), "2024-03")
    intake.rows(at(9, id="y"), name="a.csv")
    landed = land(source, intake.store, CARD_KEY, before)
    march, april_ = (build_raw(source, landed, key, intake.store, CARD_KEY) for key in ("2024-03", "2024-04"))
    assert (march.rows.frame["transaction_id"].to_list(), april_.rows.frame["transaction_id"].to_list()) == (["x"], ["y"])
    told = "contradicts b.csv line {} of {}: the same transaction id at another time"
    assert march.quarantine.frame["reason"].to_list() == [told.format(4, "2024-04")]
    assert april_.quarantine.frame["reason"].to_list() == [told.format(2, "2024-03")]
    assert raw_inputs(landed, "2024-03") != raw_inputs(before, "2024-03")


def test_every_row_is_kept_or_quarantined(intake: Intake) -> None:
    intake.rows(at(8), at(9, sum="x"), at(10, born="x"), at(11, id="t1"), at(12))
    made = raw(intake)
    assert sorted(made.rows.frame["source_line"].to_list() + made.quarantine.frame["source_line"].to_list()) == [2, 3, 4, 5, 6]
    assert made.rows.facts["quarantined"] == made.quarantine.facts["rows"] == 3


def test_the_quarantine_of_duplicates_shows_no_value(intake: Intake) -> None:
    intake.rows(at(8, id="secret-id"), at(8, id="secret-id"))
    assert "secret" not in raw(intake).quarantine.frame.write_csv()


def test_a_partition_without_rows_is_empty_with_the_same_schema(intake: Intake) -> None:
    intake.rows(at(8))
    empty, full = raw(intake, "2024-05"), raw(intake)
    assert (len(empty.rows.frame), empty.rows.facts["rows"]) == (0, 0)
    assert empty.rows.frame.schema == full.rows.frame.schema == pl.Schema(schema.raw_schema(intake.source().columns.canonical))
    assert empty.quarantine.frame.schema == full.quarantine.frame.schema == pl.Schema(schema.QUARANTINE_SCHEMA)


def test_a_row_of_another_partition_leaves_inputs_and_content_as_they_were(intake: Intake) -> None:
    intake.rows(at(8))
    before = raw(intake).rows
    intake.rows({"when": "2024-04-05 08:00:00", "id": "april"}, name="b.csv")
    after = raw(intake).rows
    assert (after.inputs, after.content) == (before.inputs, before.content)
    intake.rows(at(9, id="late"), name="c.csv")
    late = raw(intake).rows
    assert late.inputs != before.inputs
    assert late.content != before.content


def test_a_newly_refused_row_changes_the_inputs_so_that_the_partition_is_made_anew(intake: Intake) -> None:
    source = intake.source()
    intake.rows(at(8))
    before = raw_inputs(intake.land(source), "2024-03")
    intake.rows(at(9, sum="x"), name="b.csv")
    assert raw_inputs(intake.land(source), "2024-03") != before


def test_content_is_the_same_under_two_card_keys_while_cards_differ(intake: Intake, tmp_path: Path) -> None:
    intake.rows(*[at(n, id=str(n), pan=f"4{n:015d}") for n in range(24)])
    source, other_key = intake.source(), Key(b"o" * 32)
    store = DirectoryStore(tmp_path / "other")
    other = build_raw(source, land(source, store, other_key, None), "2024-03", store, other_key).rows
    mine = raw(intake).rows
    assert mine.content == other.content
    assert mine.inputs != other.inputs
    assert mine.frame.drop("card").equals(other.frame.drop("card"))
    assert set(mine.frame["card"]).isdisjoint(other.frame["card"])


@pytest.mark.parametrize("key", ["2024-01", "2024-12"])
def test_a_simulated_partition_needs_no_file_and_stays_within_its_window(tmp_path: Path, key: str) -> None:
    source = load_source(SOURCES / "simulated.toml")
    store = DirectoryStore(tmp_path)
    landed = land(source, store, CARD_KEY, None)
    made, other = (build_raw(source, landed, key, store, card_key).rows for card_key in (CARD_KEY, Key(b"o" * 32)))
    start, end = partitions.window(key, source.cadence, source.zone)
    times = made.frame["timestamp"]
    assert made.facts["quarantined"] == 0
    assert len(made.frame) > 10_000
    assert start <= times.min() <= times.max() < end  # type: ignore[operator]
    assert times.is_sorted()
    assert made.content == other.content
    assert start.tzinfo is UTC
    assert isinstance(times[0], datetime)
