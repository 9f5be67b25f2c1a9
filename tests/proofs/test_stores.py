"""What S3 costs the pipeline, against a local folder on the same machine: the same file, in turns, to the same champion."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.proofs.conftest import Record
from tests.proofs.test_kaggle import pipeline
from tests.servers.s3_server import BUCKET, WEED, S3Server
from tests.shared_data import shared_file

ROUNDS = 3


@pytest.mark.skipif(WEED is None, reason="SeaweedFS (weed) is not installed")
def test_the_same_champion_comes_out_of_a_bucket_at_hardly_more_cost(
    full: bool, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, file = ("kaggle_sparkov", "sparkov_2019_2020.parquet") if full else ("kaggle_west_us", "fraud_data.csv")
    (tmp_path / "s3").mkdir()
    server = S3Server(tmp_path / "s3")
    keys = {"FRAUD_CARD_KEY": "c4" * 32, "FRAUD_SIGNING_KEY": "51" * 32}
    for name, value in (server.environment | keys | {"FRAUD_DRIFT_DETECTOR": "scipy"}).items():
        monkeypatch.setenv(name, value)
    made: dict[str, list[dict[str, Any]]] = {"folder": [], "s3": []}
    try:
        for number in range(ROUNDS if full else 1):
            for kind, results in made.items():
                store = f"s3://{BUCKET}/{number}" if kind == "s3" else str(tmp_path / f"store{number}")
                results.append(pipeline(source, shared_file(file), tmp_path / f"{kind}{number}", store))
    finally:
        server.stop()
    assert len({result["version"] for results in made.values() for result in results}) == 1
    seconds = {kind: [result["seconds"] for result in results] for kind, results in made.items()}
    ratios = [s3 / folder for folder, s3 in zip(seconds["folder"], seconds["s3"], strict=True)]
    record("stores", {"rows": made["s3"][0]["rows"], "seconds": seconds, "ratios": ratios, "median_ratio": median(ratios)})
