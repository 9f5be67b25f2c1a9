"""The API scores what the pipeline trained on: every feature to the bit, on rows of every source that comes with the project."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fraud_core.features import catalogue
from fraud_core.intake.files import CHUNK_ROWS, LINE, SourceFile, chunks
from fraud_core.intake.parsing import parse
from fraud_core.models.scorer import Scorer
from fraud_core.scoring.score import from_values, inputs_of, score_rows
from fraud_core.signing.keys import Key
from fraud_core.simulator.simulate import simulate
from fraud_core.sources import partitions
from fraud_core.sources.source import Source, load_source
from fraud_core.training_data.transform import source_features
from fraud_core.transactions.transaction import Transaction
from tests.shared_data import shared_file

pytestmark = pytest.mark.integration

SOURCES = Path(__file__).resolve().parents[2] / "sources"
FILES = {"kaggle_sparkov": "sparkov_2019_2020.parquet", "kaggle_west_us": "fraud_data.csv"}
Record = Callable[[str, dict[str, Any]], None]
KEY = Key(bytes(32))


def raw_rows(source: Source, count: int) -> pl.DataFrame:
    """Canonical rows as the pipeline keeps them."""
    parsed = []
    for chunk in _chunks(source):
        parsed.append(parse(chunk, "file", source, KEY).rows)
        if sum(map(len, parsed)) >= count:
            break
    return pl.concat(parsed).head(count)


def _chunks(source: Source) -> Iterator[pl.DataFrame]:
    if source.simulator is None:
        path = shared_file(FILES[source.name])
        yield from (chunk for _, chunk in chunks(SourceFile(path.name, path, "", 0), source))
        return
    key = source.first
    while True:
        start, end = partitions.window(key, source.cadence, source.zone)
        frame = simulate(source.simulator, start, end, source.zone).with_columns((pl.col("amount_cents") / 100).alias("amount"))
        lines = pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).alias(LINE)
        yield from frame.select(source.wanted).with_columns(lines).iter_slices(CHUNK_ROWS)
        key = partitions.next_key(key, source.cadence)


def as_sent(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows as a caller of the API sends them."""
    shown = rows.select(name for name in rows.columns if name in Transaction.model_fields).with_columns(
        pl.format("{}.{}", pl.col("amount_cents") // 100, (pl.col("amount_cents") % 100).cast(pl.String).str.zfill(2)).alias(
            "amount"
        ),
        pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
        *([pl.col("birth_date").dt.to_string("%Y-%m-%d")] if "birth_date" in rows.columns else []),
    )
    for row in shown.drop("amount_cents").iter_rows(named=True):
        yield {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize("name", ["kaggle_sparkov", "kaggle_west_us", "simulated"])
def test_features_are_bit_equal_and_scores_equal_for_rows_of_every_source(
    name: str, installation: Any, full: bool, record: Record
) -> None:
    source = load_source(SOURCES / f"{name}.toml")
    rows = raw_rows(source, 100_000 if full else 10_000)
    assert len(rows) >= 10_000
    sent = list(as_sent(rows))
    transactions = [from_values(row) for row in sent]
    plain = [feature for feature in source_features(source) if not feature.is_history]  # test_replay has the others
    online = catalogue.compute(plain, inputs_of(transactions), source.zone)
    stored = catalogue.feature_frame(rows, plain, source.zone)
    for feature in plain:
        if feature.is_category:
            assert online[feature.name].tolist() == stored[feature.name].to_list()
        else:
            offline = stored[feature.name].cast(pl.Float64).fill_null(np.nan).to_numpy()
            assert online[feature.name].tobytes() == offline.tobytes(), feature.name

    scorer = Scorer(installation.bundle(1))
    served = [record["probability"] for record in score_rows(scorer, sent, first=0)]
    if tuple(plain) == catalogue.PLAIN:
        zoned = catalogue.feature_frame(rows, plain, scorer.zone)
        offline = scorer.score_features(zoned)
    else:  # what the source leaves out, the model gets from the transaction alone
        offline = scorer.score_inputs(inputs_of(transactions))
    assert np.abs(np.array(served) - offline).max() <= 1e-9
    record(f"api_parity_{name}", {"rows": len(rows), "features": len(plain), "differing_features": 0})
