"""What landing promises: each file is read once, a changed one replaces itself, and a run that fails leaves all as it was."""

import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from fraud_core.errors import IntegrityError, SourceError
from fraud_core.intake import files, landing
from fraud_core.intake.landing import UNDATED, Landing, partition_keys
from fraud_core.signing.keys import Key
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Artifacts, Document
from fraud_core.storage.directory import DirectoryStore
from tests.unit.fraud_core.intake.shop import CARD, CARD_KEY, COLUMNS, Intake, csv_text

JANUARY, MARCH = {"when": "2024-01-10 00:00:00"}, {"when": "2024-03-10 00:00:00"}


def rows(intake: Intake, landed: Landing, partition: str) -> list[str]:
    """Ids of a partition's rows, in their order."""
    frames = [pl.read_parquet(intake.store.local_path(segment.key)) for segment in landed.segments(partition)]
    return [identity for frame in frames for identity in frame["transaction_id"]]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose rows are read, as they are read."""
    names: list[str] = []
    real = files.chunks

    def chunks(file: files.SourceFile, source: Source, tally: files.Tally, _: object) -> Iterator[tuple[str, pl.DataFrame]]:
        names.append(Path(file.name).name)
        return real(file, source, tally)

    monkeypatch.setattr(landing, "chunks", chunks)
    return names


# ---- routing


def test_rows_are_routed_to_their_partitions_in_their_order(intake: Intake) -> None:
    intake.rows(MARCH, JANUARY, MARCH, name="b.csv")
    intake.rows({**JANUARY, "id": "x"}, name="a.csv")
    landed = intake.land(intake.source())
    assert landed.partitions() == ["2024-01", "2024-03"]
    assert rows(intake, landed, "2024-01") == ["x", "t2"]
    assert rows(intake, landed, "2024-03") == ["t1", "t3"]
    assert sum(file.rows for file in landed.files.values()) == 4


def test_refused_rows_go_to_their_partition_and_undated_ones_to_their_own(intake: Intake) -> None:
    intake.rows({"when": "?"}, JANUARY | {"sum": "?"}, {"when": "2025-01-01 00:00:00"}, MARCH)
    landed = intake.land(intake.source())
    refused = {
        key: pl.concat([pl.read_parquet(intake.store.local_path(segment.key)) for segment in landed.refused(key)])
        for key in ("2024-01", UNDATED)
    }
    assert refused["2024-01"]["source_line"].to_list() == [3]
    assert refused[UNDATED]["source_line"].to_list() == [2, 4]
    assert landed.partitions() == ["2024-03"]


def test_landed_rows_that_were_damaged_are_not_read_and_landing_their_files_again_puts_them_right(
    intake: Intake, opened: list[str]
) -> None:
    intake.rows(JANUARY, MARCH, name="a.csv")
    intake.rows({**JANUARY, "id": "x"}, name="b.csv")
    landed = intake.land(intake.source())
    damaged = landed.segments("2024-01")[0]
    whole = intake.store.get(damaged.key)
    intake.store.put(damaged.key, whole[:-1] + b"?")
    with pytest.raises(IntegrityError, match="is not the file that was written"):
        damaged.read(intake.store)
    assert landed.without_damaged("2024-03", intake.store) == landed
    opened.clear()
    again = intake.land(intake.source(), landed.without_damaged("2024-01", intake.store))
    assert set(again.segments("2024-01")) == set(landed.segments("2024-01"))
    assert opened == ["a.csv"]
    assert intake.store.get(damaged.key) == whole


def test_ids_are_not_compared_with_rows_that_were_damaged_and_landing_puts_these_right(intake: Intake, opened: list[str]) -> None:
    intake.rows({**JANUARY, "id": "one"}, {**MARCH, "id": "two"}, name="a.csv")
    landed = intake.land(intake.source())
    damaged = [landed.segments(month)[0] for month in ("2024-01", "2024-03")]
    whole = [intake.store.get(one.key) for one in damaged]
    for one, data in zip(damaged, whole, strict=True):
        other = pl.read_parquet(data).with_columns(transaction_id=pl.lit("other"))
        other.write_parquet(intake.store.local_path(one.key))
    intake.rows({**MARCH, "id": "one"}, name="b.csv")
    opened.clear()
    again = intake.land(intake.source(), landed)
    assert sorted(opened) == ["a.csv", "b.csv"]
    assert [intake.store.get(one.key) for one in damaged] == whole
    repeats = again.repeated("2024-03")
    assert repeats is not None
    assert repeats.read(intake.store)["transaction_id"].to_list() == ["one"]

    intake.store.put(damaged[0].key, whole[1])
    (intake.folder / "a.csv").unlink()
    intake.rows({**MARCH, "id": "new"}, name="c.csv")
    with pytest.raises(IntegrityError, match="is not the file that was written"):
        intake.land(intake.source(), again)


def test_a_file_of_any_length_lands_the_same_rows(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    months = [{"when": f"2024-{1 + n % 3:02d}-10 00:00:00"} for n in range(50)]
    intake.rows(*months)
    whole = {key: rows(intake, intake.land(intake.source()), key) for key in ("2024-01", "2024-02", "2024-03")}
    monkeypatch.setattr(files, "CHUNK_ROWS", 7)
    monkeypatch.setattr(landing, "FLUSH_ROWS", 20)
    landed = intake.land(intake.source())
    assert len(landed.segments("2024-01")) > 1
    assert {key: rows(intake, landed, key) for key in whole} == whole


def test_progress_is_told_with_the_rows_read_so_far(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    path = intake.rows(*[{}] * 5)
    told: list[tuple[str, int]] = []
    landing.land(intake.source(), intake.store, CARD_KEY, None, lambda file, count: told.append((file, count)))
    assert told == [(str(path), 2), (str(path), 4), (str(path), 5)]


def test_the_partitions_of_an_open_source_reach_from_the_first_with_rows_to_the_last(intake: Intake) -> None:
    intake.rows(JANUARY, MARCH)
    declared = intake.source(last="open", first="2023-01")
    assert partition_keys(declared, None) == []
    assert partition_keys(declared, intake.land(declared)) == ["2024-01", "2024-02", "2024-03"]
    assert partition_keys(intake.source(last="2024-02"), None) == ["2024-01", "2024-02"]


# ---- each file once


def test_a_file_is_read_once(intake: Intake, opened: list[str]) -> None:
    intake.rows(MARCH)
    first = intake.land(intake.source())
    assert intake.land(intake.source(), first) == first
    assert opened == ["a.csv"]


def test_only_new_files_are_read(intake: Intake, opened: list[str]) -> None:
    intake.rows(JANUARY)
    first = intake.land(intake.source())
    intake.rows(MARCH, name="b.csv")
    second = intake.land(intake.source(), first)
    assert opened == ["a.csv", "b.csv"]
    assert second.partitions() == ["2024-01", "2024-03"]


def test_the_same_content_under_another_name_is_not_read_again_and_counts_once(intake: Intake, opened: list[str]) -> None:
    path = intake.rows(MARCH)
    intake.write("copy.csv", path.read_bytes())
    first = intake.land(intake.source())
    path.rename(intake.folder / "renamed.csv")
    second = intake.land(intake.source(), first)
    assert opened == ["a.csv"]
    assert rows(intake, first, "2024-03") == rows(intake, second, "2024-03") == ["t1"]


def test_a_changed_file_takes_the_place_of_its_former_rows(intake: Intake) -> None:
    intake.rows(JANUARY, MARCH)
    first = intake.land(intake.source())
    intake.rows(MARCH | {"id": "new"})
    second = intake.land(intake.source(), first)
    assert (second.partitions(), rows(intake, second, "2024-03")) == (["2024-03"], ["new"])


def test_rotated_files_keep_their_rows_and_only_the_new_one_is_read(intake: Intake, opened: list[str]) -> None:
    path = intake.rows({"id": "old"})
    first = intake.land(intake.source())
    path.rename(intake.folder / "a.1.csv")
    intake.rows({"id": "new"})
    second = intake.land(intake.source(), first)
    assert sorted(rows(intake, second, "2024-03")) == ["new", "old"]
    assert opened == ["a.csv", "a.csv"]


def test_a_file_that_went_away_keeps_its_rows(intake: Intake) -> None:
    intake.rows({"id": "gone"}).rename(intake.folder / "b.csv")
    first = intake.land(intake.source())
    (intake.folder / "b.csv").unlink()
    intake.rows({"id": "new"})
    assert rows(intake, intake.land(intake.source(), first), "2024-03") == ["gone", "new"]


@pytest.mark.parametrize(
    "change",
    [
        {"timezone": "UTC"},
        {"cadence": "daily", "first": "2024-01-01", "last": "2024-12-31"},
        {"last": "2025-12"},
        {"columns": {name: value for name, value in COLUMNS.items() if name != "merchant"}},
    ],
)
def test_another_declaration_reads_all_files_anew(intake: Intake, opened: list[str], change: dict[str, object]) -> None:
    intake.rows(MARCH)
    first = intake.land(intake.source())
    second = intake.land(intake.source(**change), first)
    assert opened == ["a.csv", "a.csv"]
    assert second.parse != first.parse


def test_another_card_key_and_other_rules_of_parsing_read_all_files_anew(
    intake: Intake, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.rows(MARCH)
    first = intake.land(intake.source())
    second = intake.land(intake.source(), first, Key(b"o" * 32))
    monkeypatch.setattr(landing, "VERSION", "parse next")
    intake.land(intake.source(), second, Key(b"o" * 32))
    assert len(opened) == 3


def test_what_does_not_concern_parsing_reads_nothing_anew(intake: Intake, opened: list[str]) -> None:
    intake.rows(MARCH)
    first = intake.land(intake.source())
    intake.land(intake.source(label_delay_days=30, description="other", excluded_features=["weekday"]), first)
    assert opened == ["a.csv"]


# ---- failures


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("z.csv", csv_text({}, {"kind": "é"}).encode("latin-1")),
        ("z.csv", csv_text({}, {})[:-20].encode()),
        ("z.csv", csv_text({}).replace("kind", "mcc", 1).encode()),
        ("z.zip", b"PK\x03\x04 half a zip"),
        ("z.parquet", b"PAR1 half a file"),
    ],
)
def test_a_run_that_fails_leaves_what_had_landed_as_it_was(
    intake: Intake, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", 1)  # so that rows before the fault were handed on
    monkeypatch.setattr(landing, "FLUSH_ROWS", 1)
    artifacts, source = Artifacts(intake.store, Key(b"s" * 32)), intake.source("a.csv", "z.*")
    intake.rows(MARCH)
    first = intake.land(intake.source("a.csv"))
    artifacts.write("landing", None, Document(body=first.model_dump(mode="json"), content=first.content()))
    before = {key: intake.store.get(key) for key in intake.store.list("assets")}
    intake.write(name, content)
    intake.rows(JANUARY)
    with pytest.raises(SourceError, match=name):
        intake.land(source, first)
    after = {key: intake.store.get(key) for key in intake.store.list("assets")}
    assert {key: after[key] for key in before} == before
    assert [key for key in after if key.endswith("latest.json")] == ["assets/landing/latest.json"]
    assert Landing.model_validate(artifacts.document("landing")) == first


def test_after_the_fault_is_mended_everything_lands(intake: Intake) -> None:
    good = csv_text(MARCH, MARCH)
    intake.write("a.csv", good[:-20])
    with pytest.raises(SourceError):
        intake.land(intake.source())
    intake.write("a.csv", good)
    assert rows(intake, intake.land(intake.source()), "2024-03") == ["t1", "t2"]


# ---- determinism and privacy


def test_two_stores_with_other_keys_hold_the_same_content(intake: Intake, tmp_path: Path) -> None:
    intake.rows(*[{"when": f"2024-{1 + n % 4:02d}-10 00:00:00", "pan": str(4 * 10**15 + n)} for n in range(200)])
    source, now = intake.source(), datetime(2024, 6, 1, tzinfo=UTC)
    mine, again = (landing.land(source, DirectoryStore(tmp_path / name), CARD_KEY, None, now=now) for name in ("mine", "again"))
    other = landing.land(source, DirectoryStore(tmp_path / "other"), Key(b"o" * 32), None)
    assert mine.content() == other.content() == again.content()
    assert mine == again
    assert mine.parse != other.parse


def test_any_other_value_is_another_content(intake: Intake) -> None:
    intake.rows(MARCH)
    before = intake.land(intake.source()).content()
    intake.rows(MARCH | {"sum": "12.35"})
    assert intake.land(intake.source()).content() != before


def test_a_zip_lands_like_the_files_in_it(intake: Intake) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("in/b.csv", csv_text(JANUARY))
        archive.writestr("in/a.csv", csv_text(MARCH))
    intake.write("all.zip", buffer.getvalue())
    landed = intake.land(intake.source("all.zip"))
    frame = pl.read_parquet(intake.store.local_path(landed.segments("2024-01")[0].key))
    assert frame["source_file"].to_list() == ["b.csv"]
    assert landed.partitions() == ["2024-01", "2024-03"]


def test_no_card_number_is_in_any_byte_or_column_of_the_store(intake: Intake) -> None:
    intake.rows(
        *[{"id": str(n), "pan": CARD, "sum": "x" if n % 2 else "1"} for n in range(20)],
        {"when": CARD},
        {"kind": "x", "lat": CARD},
    )
    intake.land(intake.source())
    for path in Path(intake.store.url).rglob("*"):
        if path.is_file():
            assert CARD.encode() not in path.read_bytes()
            assert CARD not in pl.read_parquet(path).write_csv()


# ---- counts


def test_what_a_file_has_is_what_was_kept_and_what_was_refused(intake: Intake) -> None:
    intake.rows({"when": "?"}, JANUARY | {"sum": "?"}, {"when": "2025-01-01 00:00:00"}, MARCH)
    intake.write("empty.csv", "")
    landed = intake.land(intake.source("a.csv", "empty.csv"))
    assert [(file.lines, file.rows) for file in landed.files.values()] == [(4, 4), (0, 0)]
    assert (landed.kept, landed.quarantined) == (1, 3)


def test_a_file_whose_rows_do_not_tally_is_refused(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.chunks

    def chunks(file: files.SourceFile, source: Source, tally: files.Tally, _: object) -> Iterator[tuple[str, pl.DataFrame]]:
        yield from ((name, chunk.head(2)) for name, chunk in real(file, source, tally))

    monkeypatch.setattr(landing, "chunks", chunks)
    intake.rows(JANUARY, JANUARY, MARCH)
    with pytest.raises(SourceError, match=r"a\.csv has 3 rows, of which 2 were read, 2 taken and 0 refused; that does not tally"):
        intake.land(intake.source())
