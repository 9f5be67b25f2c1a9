"""Looking at a source's files without reading them."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fraud_core.errors import SourceError
from fraud_core.intake import watch
from fraud_core.intake.watch import look
from fraud_core.sources.source import Source


def of(*paths: str) -> Source:
    return Source.model_validate(
        {
            "name": "some",
            "paths": paths,
            "cadence": "monthly",
            "first": "2024-01",
            "label_delay_days": 7,
            "columns": {"timestamp": "at", "amount": "amount", "label": "fraud"},
        }
    )


def test_files_are_seen_by_name_and_size_each_once(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "notes.txt"):
        (tmp_path / name).write_text("12345")
    seen = look(of(f"{tmp_path}/*.csv", f"{tmp_path}/a.csv"))
    assert [(Path(file.name).name, file.size) for file in seen] == [("a.csv", 5), ("b.csv", 5)]


def test_a_pattern_without_files_is_no_error(tmp_path: Path) -> None:
    assert look(of(f"{tmp_path}/*.csv")) == []


def test_a_rewritten_file_of_the_same_size_is_another(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("12345")
    before = look(of(str(file)))
    assert look(of(str(file))) == before
    file.write_text("54321")
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert look(of(str(file))) != before


def test_a_file_that_goes_between_being_listed_and_looked_at_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("1")
    monkeypatch.setattr(watch, "local_files", lambda _: [f"{tmp_path}/a.csv", f"{tmp_path}/gone.csv"])
    assert [Path(file.name).name for file in look(of(f"{tmp_path}/*.csv"))] == ["a.csv"]


def test_a_web_server_is_asked_for_the_head_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"content-length": "17", "etag": "one"}
    monkeypatch.setattr(watch, "head", lambda url, limits: headers)
    (first,) = look(of("https://data.test/a.csv"))
    headers["etag"] = "two"
    (second,) = look(of("https://data.test/a.csv"))
    assert (first.name, first.size) == ("https://data.test/a.csv", 17)
    assert first.stamp != second.stamp


def test_an_s3_object_is_known_by_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    def head_object(**which: str) -> dict[str, object]:
        assert which == {"Bucket": "bucket", "Key": "in/a.parquet"}
        return {"ContentLength": 9, "ETag": '"tag"'}

    monkeypatch.setattr("fraud_core.storage.s3.s3_client", lambda: SimpleNamespace(head_object=head_object))
    (seen,) = look(of("s3://bucket/in/a.parquet"))
    assert (seen.name, seen.size, seen.stamp) == ("s3://bucket/in/a.parquet", 9, '"tag"')


def test_other_schemes_are_refused() -> None:
    with pytest.raises(SourceError, match="only local paths"):
        look(of("ftp://data.test/a.csv"))
