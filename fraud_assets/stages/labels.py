"""`labels`: what became of payments, as an append-only table: the log of labels, copied to where trainings read it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl

from fraud_assets.installation import Installation
from fraud_core.labels.log import LabelLog, NewLabel
from fraud_core.labels.resolve_table import SCHEMA
from fraud_core.storage.artifacts import Table, fingerprint
from fraud_core.storage.database import open_database
from fraud_core.training_data.labels import ASSET, log_since
from fraud_core.units.time import from_microseconds, to_microseconds


def build(installation: Installation) -> list[dg.AssetsDefinition]:
    """The asset."""

    @dg.asset(io_manager_key="artifacts", group_name="data", output_required=False, kinds={"polars", "parquet"})
    def labels(context: dg.AssetExecutionContext) -> Iterator[dg.Output[Any]]:
        """Chargebacks and analysts' words about payments, with who said so and since when it is known. Rows are only ever added.

        Trainings and the fraud rates of merchants are joined with it as of a time; raw and transformed are never rewritten by it.
        """
        table = export(installation, datetime.now(UTC))
        if table is None:
            context.log.info("No label has come in since the last export.")
        else:
            yield dg.Output(table)

    return [labels]


def export(installation: Installation, now: datetime) -> Table | None:
    """The exported labels and those that came in since; None where nothing has become known.

    Raises:
        StoreError: the database cannot be used.
    """
    pointer = installation.artifacts.pointer(ASSET)
    before = pl.DataFrame(schema=SCHEMA) if pointer is None else installation.artifacts.scan(ASSET).collect()
    added = log_since(_log(installation), _last(before))
    if added.is_empty() and (pointer is None or not _has_become_known(before, int(pointer.facts["as_of_us"]), now)):
        return None
    frame = pl.concat([before, added])
    facts = {"labels": len(frame), "added": len(added), "last_sequence": _last(frame), "as_of_us": to_microseconds(now)}
    content = fingerprint(frame.write_csv())
    return Table(frame=frame, content=content, inputs=content, facts=facts)


def hear(installation: Installation, relabels: pl.DataFrame) -> int:
    """Write down what the data source says of payments by now; what was heard before is not written again.

    Args:
        installation: the installation.
        relabels: see `intake.raw.RELABELS`.

    Returns:
        How many labels were new.

    Raises:
        StoreError: the database cannot be used.
    """
    log = _log(installation)
    rows = relabels.rows(named=True)
    before = log.of([row["transaction_id"] for row in rows])
    words = [
        NewLabel(
            transaction_id=row["transaction_id"],
            outcome="fraud" if row["label"] else "legitimate",
            source="source",
            author=installation.source.name,
            event_time=row["timestamp"],
            known_at=row["known_at"],
        )
        for row in rows
    ]
    heard = {(one.transaction_id, one.source, one.outcome, one.known_at) for known in before.values() for one in known}
    new = [word for word in words if (word.transaction_id, word.source, word.outcome, word.known_at) not in heard]
    if new:
        log.append_all(new)
    return len(new)


def has_news(installation: Installation) -> bool:
    """Whether labels came in since the last export.

    Raises:
        StoreError: the database cannot be used.
    """
    pointer = installation.artifacts.pointer(ASSET)
    return bool(_log(installation).since(0 if pointer is None else int(pointer.facts["last_sequence"]), 1))


def are_waiting(installation: Installation, now: datetime) -> bool:
    """Whether labels came in since the last export, and that was before today (in UTC): each export may cause a training.

    Raises:
        StoreError: the database cannot be used.
    """
    pointer = installation.artifacts.pointer(ASSET)
    if pointer is not None and from_microseconds(int(pointer.facts["as_of_us"])).date() >= now.date():
        return False
    return has_news(installation)


def _log(installation: Installation) -> LabelLog:
    return LabelLog(open_database(installation.settings))


def _last(labels: pl.DataFrame) -> int:
    return 0 if labels.is_empty() else int(labels["sequence"][-1])


def _has_become_known(labels: pl.DataFrame, since_us: int, now: datetime) -> bool:
    known = labels["known_at"].dt.epoch("us")
    return bool(((known > since_us) & (known <= to_microseconds(now))).any())
