"""Labels of training rows: what the log of labels changes in them, and in merchants' fraud rates.

A payment's own label, in raw, is the first word of its data source: whatever the log says comes after it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from fraud_core.features.batch import CORRECTIONS
from fraud_core.labels.log import LabelLog
from fraud_core.labels.resolve import Label
from fraud_core.labels.resolve_table import SCHEMA, effective, table_of
from fraud_core.storage.artifacts import Artifacts
from fraud_core.units.time import HOUR_US

ASSET = "labels"
AT_ONCE = 10_000  # labels of one question to the database


def log_since(log: LabelLog, sequence: int) -> pl.DataFrame:
    """The labels with a greater number, in order (see `SCHEMA`). The notes stay behind: free text may name a person.

    Raises:
        StoreError: the database cannot be used.
    """
    found: list[Label] = []
    while page := log.since(found[-1].sequence if found else sequence, AT_ONCE):
        found += page
    return table_of(found)


def read_labels(artifacts: Artifacts) -> pl.DataFrame:
    """The exported labels (see `SCHEMA`) that were known when they were exported; no rows where none were."""
    pointer = artifacts.pointer(ASSET)
    if pointer is None:
        return pl.DataFrame(schema=SCHEMA)
    return artifacts.scan(ASSET).filter(pl.col("known_at").dt.epoch("us") <= int(pointer.facts["as_of_us"])).collect()


def corrections(labels: pl.DataFrame, payments: pl.DataFrame, entities: Iterable[str]) -> pl.DataFrame:
    """What labels changed in the hours of entities, since when (see `features.batch.states`).

    Args:
        labels: see `SCHEMA`.
        payments: transaction_id, timestamp, label (null: legitimate so far), and the entities that the source has.
        entities: whose hours.

    Returns:
        See `features.batch.CORRECTIONS`; hours in which nothing changed have no row.
    """
    parts = [_corrections_of(labels, payments, entity) for entity in entities if entity in payments.columns]
    return pl.concat([pl.DataFrame(schema=CORRECTIONS), *parts])


def _corrections_of(labels: pl.DataFrame, payments: pl.DataFrame, entity: str) -> pl.DataFrame:
    own = pl.when(pl.col("label")).then(pl.lit("fraud")).otherwise(pl.lit("legitimate"))
    named = payments.filter(pl.col(entity).is_not_null()).select(
        "transaction_id", "timestamp", pl.col(entity).alias("name"), own.alias("before")
    )
    believed = effective(labels).join(named, on="transaction_id", how="inner", maintain_order="left")
    before = pl.col("outcome").shift(1).over("transaction_id").fill_null(pl.col("before"))

    def change(outcome: str) -> pl.Expr:
        return (pl.col("outcome") == outcome).cast(pl.Int64) - (before == outcome).cast(pl.Int64)

    changed = believed.select(
        pl.lit(entity).alias("entity"),
        "name",
        (pl.col("timestamp").dt.epoch("us") // HOUR_US).alias("hour"),
        (pl.col("known_at").dt.epoch("us") // HOUR_US).alias("known"),
        change("fraud").alias("frauds"),
        change("unsure").alias("dropped"),
    )
    where = ("entity", "name", "hour", "known")
    summed = changed.group_by(where).agg(pl.col("frauds", "dropped").sum()).sort(where)
    return summed.filter((pl.col("frauds") != 0) | (pl.col("dropped") != 0)).cast(CORRECTIONS)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Outcomes:
    """What decides about payments beside their own label.

    Attributes:
        standing: see `fraud_core.labels.resolve_table.standing`.
        mature_before: a payment before this, of which nobody has said anything, counts as legitimate; a later one counts nowhere.
    """

    standing: pl.DataFrame
    mature_before: datetime

    def settled(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """The rows whose outcome is known, with it as their label; payments of unknown outcome ('unsure') are left out.

        Args:
            rows: with transaction_id, timestamp, and label (null: the source says nothing).
        """
        said = pl.col("outcome")
        if self.standing.is_empty():
            rows = rows.with_columns(pl.lit(None, pl.String).alias("outcome"))
        else:
            rows = rows.join(self.standing.lazy(), on="transaction_id", how="left", maintain_order="left")
        matured = pl.when(pl.col("timestamp") < self.mature_before).then(pl.lit(False))
        label = pl.when(said.is_null()).then(pl.coalesce("label", matured)).when(said != "unsure").then(said == "fraud")
        return rows.with_columns(label.alias("label")).drop("outcome").filter(pl.col("label").is_not_null())

    def changes(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """The rows that are settled otherwise than without anybody's word: transaction_id and label (null: left out)."""
        about = rows.select("transaction_id", "timestamp", "label").join(
            self.standing.lazy().select("transaction_id"), on="transaction_id", how="semi"
        )
        found = about.collect().lazy()
        without = Outcomes(self.standing.clear(), self.mature_before).settled(found)
        both = found.select("transaction_id")
        for name, settled in (("before", without), ("label", self.settled(found))):
            known = settled.select("transaction_id", pl.col("label").alias(name))
            both = both.join(known, on="transaction_id", how="left", maintain_order="left")
        return both.filter(pl.col("before").ne_missing(pl.col("label"))).select("transaction_id", "label").collect()
