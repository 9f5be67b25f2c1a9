"""One id in two partitions: the payment that came first stands, and the others are refused, as the history store does."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import polars as pl

# Refused rows, each with the place of the one that stands.
SCHEMA = {
    "transaction_id": pl.String(),
    "source_file": pl.String(),
    "source_line": pl.UInt32(),
    "standing_partition": pl.String(),
    "standing_file": pl.String(),
    "standing_line": pl.UInt32(),
}


class Landed(NamedTuple):
    """Where rows lie that have landed, of which partition, and the number of their file in the order in which files came."""

    partition: str
    came: int
    path: Path


def find_repeats(landed: Iterable[Landed]) -> dict[str, pl.DataFrame]:
    """By partition, the rows whose id stands in another one (see `SCHEMA`); partitions without any are left out.

    Ids are read twice, and of those that are there once nothing is kept in memory.
    """
    parts = [
        pl.scan_parquet(one.path, glob=False)
        .select("transaction_id", "source_file", "source_line")
        .with_columns(partition=pl.lit(one.partition), came=pl.lit(one.came))
        for one in landed
    ]
    if not parts:
        return {}
    rows = pl.concat(parts)
    spread = rows.group_by("transaction_id").agg(pl.col("partition").n_unique().alias("partitions"))
    several = spread.filter(pl.col("partitions") > 1).select("transaction_id").collect(engine="streaming")
    if several.is_empty():
        return {}
    repeated = rows.join(several.lazy(), on="transaction_id", how="semi").collect().sort("came", "source_file", "source_line")
    standing = repeated.unique("transaction_id", keep="first", maintain_order=True).select(
        "transaction_id",
        pl.col("partition").alias("standing_partition"),
        pl.col("source_file").alias("standing_file"),
        pl.col("source_line").alias("standing_line"),
    )
    refused = repeated.join(standing, on="transaction_id", maintain_order="left")
    refused = refused.filter(pl.col("partition") != pl.col("standing_partition"))
    by_partition = refused.partition_by("partition", as_dict=True, maintain_order=True)
    return {str(partition): frame.select(list(SCHEMA)) for (partition,), frame in by_partition.items()}
