"""Raw partitions: what landed for a partition, in time order, without duplicates."""

from dataclasses import dataclass

import polars as pl

from fraud_core import partitions, schema
from fraud_core.artifacts import Table, fingerprint
from fraud_core.intake.files import LINE
from fraud_core.intake.landing import Landing
from fraud_core.intake.parsing import PARTITION, parse
from fraud_core.keys import Key
from fraud_core.simulator import simulate
from fraud_core.sources import Source
from fraud_core.stores.objects import ObjectStore

VERSION = "raw 1"  # raised whenever the rules below change


@dataclass(frozen=True)
class RawPartition:
    """A partition's rows, and its refused rows."""

    rows: Table
    quarantine: Table


def raw_inputs(landing: Landing, key: str) -> str:
    """Hash of everything the partition is made from, without looking at a row."""
    segments = [segment.key for segment in [*landing.segments(key), *landing.refused(key)]]
    return fingerprint(VERSION, landing.parse, key, *segments)


def build_raw(source: Source, landing: Landing, key: str, store: ObjectStore, card_key: Key) -> RawPartition:
    """Make a raw partition.

    Rows are sorted by time; rows of equal time keep the order of their files and lines. Of rows with one transaction id the
    first stands and the others are refused, with a reason that tells a copy from a contradiction.
    """
    if source.simulator is not None:
        rows, refused, content = _simulated(source, key, card_key)
    else:
        rows, refused, content = _landed(source, landing, key, store)
    rows = rows.sort("timestamp", maintain_order=True)
    first = rows["transaction_id"].is_first_distinct()
    quarantine = pl.concat([refused, _duplicates(rows, rows.filter(~first))])
    kept = rows.filter(first)
    facts: dict[str, int | float | str] = {
        "rows": len(kept),
        "quarantined": len(quarantine),
        "duplicates": len(rows) - len(kept),
        "frauds": int(kept["label"].sum()) if "label" in kept.columns else 0,
    }
    inputs = raw_inputs(landing, key)
    return RawPartition(
        Table(frame=kept, content=content, inputs=inputs, facts=facts),
        Table(frame=quarantine, content=fingerprint(content, "quarantine"), inputs=inputs, facts={"rows": len(quarantine)}),
    )


def _landed(source: Source, landing: Landing, key: str, store: ObjectStore) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    segments = landing.segments(key)
    empty = pl.DataFrame(schema=schema.raw_schema(source.columns.canonical))
    rows = pl.concat([empty, *(segment.read(store) for segment in segments)])
    nothing = pl.DataFrame(schema=schema.QUARANTINE_SCHEMA)
    refused = pl.concat([nothing, *(segment.read(store) for segment in landing.refused(key))])
    return rows, refused, fingerprint(VERSION, key, *(segment.digest for segment in segments))


def _simulated(source: Source, key: str, card_key: Key) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    assert source.simulator is not None
    start, end = partitions.window(key, source.cadence, source.zone)
    frame = simulate(source.simulator, start, end, source.zone)
    chunk = frame.with_columns((pl.col("amount_cents") / 100).alias("amount")).select(source.columns.wanted)
    chunk = chunk.with_row_index(LINE, offset=1).with_columns(pl.col(LINE).cast(pl.UInt32))
    parsed = parse(chunk, f"simulated {key}", source, card_key)
    content = fingerprint(VERSION, key, parsed.digest(key))
    return parsed.rows.drop(PARTITION), parsed.refused.drop(PARTITION), content


def _duplicates(rows: pl.DataFrame, repeated: pl.DataFrame) -> pl.DataFrame:
    """Quarantine records of repeated ids: each names the line that stands."""
    if repeated.is_empty():
        return pl.DataFrame(schema=schema.QUARANTINE_SCHEMA)
    canonical = [name for name in rows.columns if name not in schema.PROVENANCE]
    standing = rows.join(repeated.select("transaction_id").unique(), on="transaction_id", how="semi", maintain_order="left")
    standing = standing.unique("transaction_id", keep="first", maintain_order=True)
    pairs = repeated.join(standing, on="transaction_id", how="left", suffix="_first", maintain_order="left")
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name}_first")) for name in canonical if name != "transaction_id")
    stands = pl.format("{} line {}", pl.col("source_file_first"), pl.col("source_line_first"))
    return pairs.select(
        "source_file",
        "source_line",
        pl.lit("transaction_id").alias("column"),
        pl.when(same)
        .then(pl.format("is a copy of {}", stands))
        .otherwise(pl.format("contradicts {}: the same transaction id with other content", stands))
        .alias("reason"),
        pl.lit("(see the other line)").alias("value"),
    )
