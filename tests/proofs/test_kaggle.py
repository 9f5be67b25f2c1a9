"""The two public files, from source to champion, through the command a user runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.proofs.conftest import ROOT, Record
from tests.shared_data import shared_file


def pipeline(source: str, file: Path, home: Path, store: str = "") -> dict[str, Any]:
    """Run `fraud pipeline` from scratch; the JSON object of its last line."""
    command = [sys.executable, "-m", "fraud_cli.main", "pipeline", "--source-config", f"sources/{source}.toml"]
    environment = os.environ | {"FRAUD_STORE": store, "FRAUD_HOME": str(home)}
    done = subprocess.run(
        [*command, "--file", str(file), "--home", str(home)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_both_public_files_reach_a_champion_that_finds_fraud(full: bool, record: Record, tmp_path: Path) -> None:
    west = pipeline("kaggle_west_us", shared_file("fraud_data.csv"), tmp_path / "west_us")
    assert (west["rows"], west["quarantined"], west["repaired"], west["rejected"]) == (14_383, 63, 2, 0)
    assert west["average_precision"] >= 0.95
    if not full:
        return
    sparkov = pipeline("kaggle_sparkov", shared_file("sparkov_2019_2020.parquet"), tmp_path / "sparkov")
    assert (sparkov["rows"], sparkov["quarantined"], sparkov["partitions"], sparkov["rejected"]) == (1_396_649, 0, 24, 0)
    assert sparkov["average_precision"] >= 0.80
    record("kaggle", {"fraud_data.csv": west, "sparkov_2019_2020.parquet": sparkov})


def test_the_version_does_not_depend_on_the_card_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = set()
    for place, key in enumerate(("11" * 32, "22" * 32)):
        monkeypatch.setenv("FRAUD_CARD_KEY", key)
        versions.add(pipeline("kaggle_west_us", shared_file("fraud_data.csv"), tmp_path / str(place))["version"])
    assert len(versions) == 1
