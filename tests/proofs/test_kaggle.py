"""The two public files, from source to champion, through the command a user runs."""

from pathlib import Path
from typing import Any

import pytest

from tests.proofs.conftest import Record
from tests.proofs.conftest import pipeline as run_pipeline
from tests.shared_data import shared_file


def pipeline(source: str, file: Path, home: Path, store: str = "") -> dict[str, Any]:
    """The same for one of the public files."""
    return run_pipeline(Path("sources") / f"{source}.toml", home, "--file", str(file), store=store)


def test_both_public_files_reach_a_champion_that_finds_fraud(full: bool, record: Record, tmp_path: Path) -> None:
    west = pipeline("kaggle_west_us", shared_file("fraud_data.csv"), tmp_path / "west_us")
    assert (west["rows"], west["quarantined"], west["repaired"], west["rejected"]) == (14_383, 63, 2, 0)
    assert west["average_precision"] >= 0.95
    if not full:
        return
    sparkov = pipeline("kaggle_sparkov", shared_file("sparkov_2019_2020.parquet"), tmp_path / "sparkov")
    assert (sparkov["rows"], sparkov["quarantined"], sparkov["partitions"], sparkov["rejected"]) == (1_396_649, 0, 24, 0)
    record("kaggle", {"fraud_data.csv": west, "sparkov_2019_2020.parquet": sparkov})  # whatever they are
    assert sparkov["average_precision"] >= 0.955
    assert sparkov["average_precision_ci"][0] >= 0.94
    assert sparkov["average_precision_without_history"] >= 0.80


def test_the_version_does_not_depend_on_the_card_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = set()
    for place, key in enumerate(("11" * 32, "22" * 32)):
        monkeypatch.setenv("FRAUD_CARD_KEY", key)
        versions.add(pipeline("kaggle_west_us", shared_file("fraud_data.csv"), tmp_path / str(place))["version"])
    assert len(versions) == 1
