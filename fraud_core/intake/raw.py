"""Raw partitions: what landed for a partition, in time order, without duplicates."""

from dataclasses import dataclass

import polars as pl

from fraud_core.errors import IntegrityError
from fraud_core.fields import schema
from fraud_core.intake.files import LINE
from fraud_core.intake.landing import Landing, Segment
from fraud_core.intake.parsing import PARTITION, parse
from fraud_core.signing.keys import Key
from fraud_core.simulator.simulate import simulate
from fraud_core.sources import partitions
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Pointer, Table, fingerprint
from fraud_core.storage.objects import ObjectStore

CAME = "came"  # when a row's file had landed
# What a later copy of a payment says of its label, since when.
RELABELS = {
    "transaction_id": pl.String(),
    "timestamp": schema.UTC_MICROSECONDS,
    "label": pl.Boolean(),
    "known_at": schema.UTC_MICROSECONDS,
}
VERSION = "raw 1"  # raised whenever the rules below change


@dataclass(frozen=True)
class RawPartition:
    """A partition's rows, its refused rows, and the labels that became known by copies of its rows (see `RELABELS`)."""

    rows: Table
    quarantine: Table
    relabels: pl.DataFrame


def raw_inputs(landing: Landing, key: str) -> str:
    """Hash of everything the partition is made from, without looking at a row."""
    segments = [segment.key for segment in [*landing.segments(key), *landing.refused(key)]]
    repeated = landing.repeated(key)
    return fingerprint(VERSION, landing.parse, key, *segments, *([] if repeated is None else [repeated.key]))


def refused_rows(pointer: Pointer) -> int:
    """How many of a raw partition's rows were refused; copies of rows that stand are left out, for nothing is lost by them."""
    return int(pointer.facts["quarantined"]) - int(pointer.facts.get("copies", 0))


def refused_share(pointer: Pointer) -> float:
    """Share of a raw partition's rows that were refused, 0 to 1."""
    refused = refused_rows(pointer)
    return refused / max(int(pointer.facts["rows"]) + refused, 1)


def build_raw(source: Source, landing: Landing, key: str, store: ObjectStore, card_key: Key) -> RawPartition:
    """Make a raw partition.

    Rows are sorted by time; rows of equal time keep the order in which their files came, and of their lines. Of rows with one
    transaction id the first stands and the others are refused, with a reason that tells a copy from a contradiction. A copy with
    another label is no contradiction: the label that raw has stays, and the other is news since its file came.
    """
    if source.simulator is not None:
        rows, refused, content = _simulated(source, key, card_key)
    else:
        rows, refused, content = _landed(source, landing, key, store)
    rows = rows.sort("timestamp", maintain_order=True)
    first = rows["transaction_id"].is_first_distinct()
    repeated, relabels = _compared(rows, rows.filter(~first))
    quarantine = pl.concat([refused, repeated])
    kept = rows.filter(first).drop(CAME)
    if len(rows) + len(refused) != len(kept) + len(quarantine):
        raise IntegrityError(
            f"Of {len(rows) + len(refused):,} rows of {key}, {len(kept):,} stand and {len(quarantine):,} were refused; that "
            "does not tally. This is a fault of the intake: please report it."
        )
    facts: dict[str, int | float | str] = {
        "landed": len(rows) + len(refused),
        "rows": len(kept),
        "quarantined": len(quarantine),
        "duplicates": len(rows) - len(kept),
        "copies": int(repeated["reason"].str.starts_with(_COPY).sum()),
        "frauds": int(kept["label"].sum()) if "label" in kept.columns else 0,
    }
    inputs = raw_inputs(landing, key)
    return RawPartition(
        Table(frame=kept, content=content, inputs=inputs, facts=facts),
        Table(frame=quarantine, content=fingerprint(content, "quarantine"), inputs=inputs, facts={"rows": len(quarantine)}),
        relabels,
    )


def _landed(source: Source, landing: Landing, key: str, store: ObjectStore) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    columns = source.raw_schema
    empty = pl.DataFrame(schema=columns | {CAME: schema.UTC_MICROSECONDS})
    parts = [
        _read(segment, store).with_columns(pl.lit(file.landed_at, schema.UTC_MICROSECONDS).alias(CAME))
        for file in landing.in_order()
        for segment in file.segments
        if segment.partition == key
    ]
    rows = pl.concat([empty, *parts])
    nothing = pl.DataFrame(schema=schema.QUARANTINE_SCHEMA)
    refused = pl.concat([nothing, *(_read(segment, store) for segment in landing.refused(key))])
    digests = [segment.digest for segment in landing.segments(key)]
    elsewhere = landing.repeated(key)
    if elsewhere is not None:
        repeats = _read(elsewhere, store)
        rows = rows.join(repeats, on="transaction_id", how="anti", maintain_order="left")
        refused = pl.concat([refused, _standing_elsewhere(repeats)])
        digests.append(elsewhere.digest)
    return rows, refused, fingerprint(VERSION, key, *digests)


def _standing_elsewhere(repeats: pl.DataFrame) -> pl.DataFrame:
    """Quarantine records of rows whose id stands in another partition: each names the line that stands."""
    stands = pl.format("{} line {} of {}", "standing_file", "standing_line", "standing_partition")
    return repeats.select(
        "source_file",
        "source_line",
        pl.lit("transaction_id").alias("column"),
        pl.format("contradicts {}: the same transaction id at another time", stands).alias("reason"),
        pl.lit("(see the other line)").alias("value"),
    )


def _read(segment: Segment, store: ObjectStore) -> pl.DataFrame:
    """A segment's rows, all of them."""
    frame = segment.read(store)
    if len(frame) != segment.rows:
        raise IntegrityError(
            f"{store.uri(segment.key)} has {len(frame)} rows, and {segment.rows} had landed; land the source anew."
        )
    return frame


def _simulated(source: Source, key: str, card_key: Key) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    assert source.simulator is not None
    start, end = partitions.window(key, source.cadence, source.zone)
    frame = simulate(source.simulator, start, end, source.zone)
    chunk = frame.with_columns((pl.col("amount_cents") / 100).alias("amount")).select(source.wanted)
    chunk = chunk.with_row_index(LINE, offset=1).with_columns(pl.col(LINE).cast(pl.UInt32))
    parsed = parse(chunk, f"simulated {key}", source, card_key)
    content = fingerprint(VERSION, key, parsed.digest(key))
    rows = parsed.rows.drop(PARTITION).with_columns(pl.lit(None, schema.UTC_MICROSECONDS).alias(CAME))
    return rows, parsed.refused.drop(PARTITION), content


_COPY = "is a copy of "


def _compared(rows: pl.DataFrame, repeated: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Quarantine records of repeated ids, each with the line that stands, and the labels that copies bring (see `RELABELS`)."""
    if repeated.is_empty():
        return pl.DataFrame(schema=schema.QUARANTINE_SCHEMA), pl.DataFrame(schema=RELABELS)
    if "label" not in rows.columns:
        rows, repeated = (frame.with_columns(label=pl.lit(None, pl.Boolean)) for frame in (rows, repeated))
    said = [name for name in rows.columns if name not in {*schema.PROVENANCE, CAME, "label", "transaction_id"}]
    standing = rows.join(repeated.select("transaction_id").unique(), on="transaction_id", how="semi", maintain_order="left")
    standing = standing.unique("transaction_id", keep="first", maintain_order=True)
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name}_first")) for name in said)
    pairs = repeated.join(standing, on="transaction_id", how="left", suffix="_first", maintain_order="left")
    pairs = pairs.with_columns(same=same)
    # Of each payment in the order in which its copies came: what its label was said to be until then.
    pairs = pairs.sort(CAME, maintain_order=True)
    until_then = pl.when("same").then("label").forward_fill().shift(1).over("transaction_id").fill_null(pl.col("label_first"))
    is_news = pl.col("same") & pl.col("label").is_not_null() & pl.col("label").ne_missing(until_then)
    pairs = pairs.with_columns(is_news=is_news)
    stands = pl.format("{} line {}", pl.col("source_file_first"), pl.col("source_line_first"))
    told = pairs.select(
        "source_file",
        "source_line",
        pl.lit("transaction_id").alias("column"),
        pl.when("is_news")
        .then(pl.format(f"{_COPY}{{}} with another label, which goes into the log of labels", stands))
        .when("same")
        .then(pl.format(f"{_COPY}{{}}", stands))
        .otherwise(pl.format("contradicts {}: the same transaction id with other content", stands))
        .alias("reason"),
        pl.lit("(see the other line)").alias("value"),
    )
    return told, pairs.filter("is_news").rename({CAME: "known_at"}).select(list(RELABELS))
