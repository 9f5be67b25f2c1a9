"""Recorded payments as a source of their own: what was scored online, in Parquet files for the intake (sources/served.toml).

Files are only ever added, each with the payments that came in since the one before, under the numbers that they have in the
history store: `served-<store>-<first>-<last>.parquet`. The store's number goes up where a store was lost and counts from 1 anew.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fraud_core.decisions.record import table_of
from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.features.online import Query
from fraud_core.fields import schema
from fraud_core.fields.declared import NOTHING, REFUND, Declared
from fraud_core.history.store import HistoryStore, Recorded

AT_ONCE = 50_000  # payments in one file
NO_QUERY = Query(0, {})
_NAME = re.compile(r"served-(\d{4})-(\d{15})-(\d{15})\.parquet")
# The card is the keyed hash that history knows it by; birth date and home are personal all the same, so the files are, too.
SCHEMA = {
    **{column.name: column.dtype for column in schema.CANONICAL if column.name not in {"amount_cents", "label"}},
    "amount": pl.String(),
    "sequence": pl.Int64(),
    "declined": pl.Boolean(),
}


@dataclass(frozen=True)
class Exported:
    """What an export added.

    Attributes:
        files: in their order.
        payments: how many are in them.
    """

    files: tuple[Path, ...]
    payments: int


def schema_of(declared: Declared) -> dict[str, pl.DataType]:
    """`SCHEMA` with a source's own columns, of which personal ids are keyed hashes as the card is."""
    return {**SCHEMA, **{column.name: column.dtype for column in declared.columns}}


def export(store: HistoryStore, folder: Path, declared: Declared = NOTHING) -> Exported:
    """Write the payments that were recorded since the last export. Cut short, it leaves whole files alone.

    Args:
        store: what recorded them.
        folder: where the files go.
        declared: says which own columns they have.

    Raises:
        StoreError: the history cannot be read.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generation, last = _last_of(folder)
    newest = store.look([NO_QUERY], STANDARD_PLAN)[0].sequence
    if newest < last:
        generation, last = generation + 1, 0
    files, payments = [], 0
    while page := store.recorded(last, AT_ONCE):
        first, last = page[0].sequence, page[-1].sequence
        path = folder / f"served-{generation:04d}-{first:015d}-{last:015d}.parquet"
        half_written = path.with_suffix(".part")
        half_written.touch(mode=0o600)
        frame_of(page, declared).write_parquet(half_written, compression="zstd")
        half_written.replace(path)
        files.append(path)
        payments += len(page)
    return Exported(tuple(files), payments)


def frame_of(page: Sequence[Recorded], declared: Declared = NOTHING) -> pl.DataFrame:
    """Recorded payments as a table (see `schema_of`)."""
    return table_of([_row(one) for one in page], schema_of(declared))


def _row(recorded: Recorded) -> dict[str, Any]:
    payment: dict[str, Any] = json.loads(recorded.payment)
    cents = payment.pop("amount_cents")
    size = abs(cents)
    is_negative = cents < 0 or payment.pop(REFUND, False)  # as files have refunds
    amount = f"{'-' if is_negative else ''}{size // 100}.{size % 100:02d}"
    return payment | {"amount": amount, "sequence": recorded.sequence, "declined": recorded.declined}


def _last_of(folder: Path) -> tuple[int, int]:
    """The store's number, and that of the last payment that was exported from it."""
    found = [tuple(map(int, name.groups())) for name in map(_NAME.fullmatch, (file.name for file in folder.iterdir())) if name]
    generation, _, last = max(found, default=(1, 0, 0))
    return generation, last
