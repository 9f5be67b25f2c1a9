"""Transformed partitions: one row a transaction, with its features, its label and what evaluation needs. No personal column."""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from fraud_core.errors import PartitionError
from fraud_core.features import catalogue
from fraud_core.features.batch import CORRECTIONS, columns_for, states
from fraud_core.features.feature import Feature
from fraud_core.features.windows import NEWEST_EVENTS, Plan
from fraud_core.fields.declared import REFUND
from fraud_core.sources import partitions
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Artifacts, Pointer, Table, fingerprint
from fraud_core.training_data.labels import corrections, read_labels
from fraud_core.units.time import to_microseconds

VERSION = f"transformed 2, features {catalogue.VERSION}"

# What a transformed row carries beside its features. The card is a keyed hash.
CARRIED = ("transaction_id", "timestamp", "amount_cents", "label", "card", "split_bucket")


def source_features(source: Source) -> tuple[Feature, ...]:
    """The features of this source: those whose columns it has, less those its TOML excludes."""
    history = source.history_days if source.history.enabled else None
    present = {*source.columns.canonical, *source.declared.column_names}
    return catalogue.catalogue_of(source.declared).available(present, source.excluded_features, history)


def dropped_features(source: Source) -> tuple[str, ...]:
    """The features that this source does without."""
    kept = {feature.name for feature in source_features(source)}
    return tuple(feature.name for feature in catalogue.catalogue_of(source.declared).features if feature.name not in kept)


def transformed_inputs(source: Source, raws: Sequence[Pointer]) -> str:
    """Hash of everything a transformed partition is made from: its raw partition and those it looks back into, oldest first."""
    names = [feature.name for feature in source_features(source)]
    return fingerprint(
        VERSION,
        source.timezone,
        str(source.lookback_days),
        *_beyond(source),
        *names,
        *(raw.sha256 for raw in raws),
    )


def _beyond(source: Source) -> tuple[str, ...]:
    """What the source declares beyond what could be declared before; else a partition is what it was."""
    capped = () if source.history_events == NEWEST_EVENTS else (f"events {source.history_events}",)
    return capped if source.declared.is_standard else (*capped, f"declared {source.declared.model_dump_json()}")


def required_raws(source: Source, artifacts: Artifacts, key: str) -> list[Pointer]:
    """The raw partitions behind a transformed one: those it looks back into, oldest first, and its own.

    Raises:
        PartitionError: one of them was not materialized. Windows over past behaviour would silently be too short.
    """
    found = []
    for needed in [*source.preceding(key), key]:
        pointer = artifacts.pointer("raw", needed)
        if pointer is None:
            raise PartitionError(
                f"transformed {key} looks back {source.lookback_days} days and needs raw {needed}, which was not materialized; "
                f"materialize raw {needed} first, or set `first` in the source's TOML if the data begins later."
            )
        found.append(pointer)
    return found


def build_transformed(source: Source, artifacts: Artifacts, key: str) -> Table:
    """Make a transformed partition from raw.

    Raises:
        PartitionError: a raw partition that it needs is missing.
    """
    raws = required_raws(source, artifacts, key)
    chosen = source_features(source)
    needed = set().union(*(feature.needs for feature in chosen), CARRIED)
    lazy = artifacts.scan("raw", key)
    present = lazy.collect_schema().names()
    whole = lazy.select([name for name in present if name in {*needed, REFUND}]).collect()
    is_payment = _is_payment(whole)  # money that came back is none to learn from, or to judge
    rows = whole.filter(is_payment)
    if "label" not in present:
        rows = rows.with_columns(label=pl.lit(None, pl.Boolean))
    carried = rows.select([name for name in CARRIED if name in rows.columns])
    known = pl.DataFrame(schema=CORRECTIONS)
    if any(feature.is_history for feature in chosen):
        plan = catalogue.plan_of(chosen)
        history = lazy.select([name for name in columns_for(plan) if name in present]).collect()
        payments = _payments(source, artifacts, key, history)
        if "label" not in present:  # what became of payments is in the log of labels alone
            payments = payments.with_columns(label=pl.lit(None, pl.Boolean))
        known = _known(source, artifacts, key, payments, plan)
        asked = pl.concat([pl.repeat(False, len(payments) - len(whole), eager=True), is_payment])
        rows = rows.hstack(states(payments, asked, plan, source.reach, source.zone, known))
    frame = pl.concat([carried, catalogue.feature_frame(rows, chosen, source.zone)], how="horizontal")
    parts = [
        VERSION,
        source.timezone,
        *_beyond(source),
        *(feature.name for feature in chosen),
        *(raw.content for raw in raws),
    ]
    content = fingerprint(*parts, *([] if known.is_empty() else [known.write_csv()]))
    stamps = frame["timestamp"].dt.epoch("us")
    start, _ = partitions.window(key, source.cadence, source.zone)
    start_us = to_microseconds(start)
    facts: dict[str, int | float | str] = {
        "rows": len(frame),
        "frauds": int(frame["label"].sum()),
        "first_us": int(stamps.min()) if len(frame) else start_us,  # type: ignore[arg-type]
        "last_us": int(stamps.max()) if len(frame) else start_us,  # type: ignore[arg-type]
    }
    return Table(frame=frame, content=content, inputs=transformed_inputs(source, raws), facts=facts)


def _is_payment(rows: pl.DataFrame) -> pl.Series:
    """Which rows are payments, and no refunds."""
    if REFUND not in rows.columns:
        return pl.repeat(True, len(rows), eager=True)
    return ~rows[REFUND].fill_null(value=False)


def _payments(source: Source, artifacts: Artifacts, key: str, rows: pl.DataFrame) -> pl.DataFrame:
    """What history takes of the rows that the partition looks back into, and then of its own."""
    start, _ = partitions.window(key, source.cadence, source.zone)
    oldest = start - timedelta(days=source.lookback_days)
    before = [artifacts.scan("raw", other).filter(pl.col("timestamp") >= oldest) for other in source.preceding(key)]
    return pl.concat([*pl.collect_all(other.select(rows.columns) for other in before), rows])


def _known(source: Source, artifacts: Artifacts, key: str, payments: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """What labels had changed of entities before the partition's end; a label that becomes known later changes nothing in it."""
    if not plan.hours:
        return pl.DataFrame(schema=CORRECTIONS)
    _, end = partitions.window(key, source.cadence, source.zone)
    labels = read_labels(artifacts).filter(pl.col("known_at") < end)
    return corrections(labels, payments, plan.hours)
