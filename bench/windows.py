"""What windows of the past cost in training: payments of `sources/simulated_online.toml` with 40 windows over five entities.

Each size is counted in a process of its own, as Dagster runs a partition: from a frame of raw to the frame of features. Time is
also told as processor time, since other work on the machine stretches the first. `--rows` takes other sizes. Prints JSON.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from fraud_core.features import catalogue
from fraud_core.features.batch import columns_for, states
from fraud_core.fields.declared import Declared
from fraud_core.fields.derive import derive_columns
from fraud_core.simulator.simulate import simulate
from fraud_core.sources.source import Source, load_source

SOURCE = Path(__file__).resolve().parents[1] / "sources" / "simulated_online.toml"
ROWS = (350_000, 700_000, 1_400_000)
ROWS_OF_A_CARD = 118  # a year's
# Beside the twenty features that the source declares: every other measure, long spans, a pair, frauds.
MORE: tuple[dict[str, Any], ...] = (
    {"of": "card", "measure": ["sum", "mean", "std", "max", "min"], "over": "amount", "spans": ["1d", "30d"]},
    {"of": "device", "measure": ["sum", "std"], "over": "amount", "spans": ["7d"]},
    {"of": "network", "measure": ["max", "min"], "over": "account_age", "spans": ["7d"]},
    {"of": "email", "measure": "distinct", "over": "device", "spans": ["1d", "30d"]},
    {"of": "bin", "measure": "fraud_rate", "spans": ["1d", "7d"]},
    {"of": ["device", "card"], "measure": "seconds_since_last", "spans": ["30d"]},
    {"of": "card", "measure": "share", "over": "cvv", "spans": ["30d"]},
)


def declared(source: Source) -> Declared:
    """The source's fields with 40 windows."""
    return Declared.model_validate(
        {**source.declared.model_dump(), "windows": [*source.declared.model_dump()["windows"], *MORE], "standard_windows": False}
    )


def drawn(rows: int) -> pl.DataFrame:
    """Raw payments of a year, as many as there are."""
    source = load_source(SOURCE)
    assert source.simulator is not None
    config = source.simulator.model_copy(update={"cardholders": -(-rows // ROWS_OF_A_CARD) + 100})
    begin, end = (datetime(year, 1, 1, tzinfo=source.zone) for year in (2024, 2025))
    frame = simulate(config, begin, end, source.zone).filter(pl.col("amount_cents") > 0).head(rows)
    texts = source.declared.field("cvv").flag_texts
    told = pl.col("cvv").str.to_lowercase().replace_strict(texts, default=None, return_dtype=pl.Boolean)
    return derive_columns(source.declared, frame.with_columns(told))


def _measure(path: Path, told: Any) -> None:
    source = load_source(SOURCE)
    chosen = [one for one in catalogue.catalogue_of(declared(source)).features if one.is_history]
    plan = catalogue.plan_of(chosen)
    payments = pl.read_parquet(path, columns=list({*columns_for(plan)} & {*pl.read_parquet_schema(path)}))
    before, begun, used = _peak_mb(), time.perf_counter(), time.process_time()
    rows = payments.hstack(states(payments, pl.repeat(True, len(payments), eager=True), plan, source.reach, source.zone))
    frame = catalogue.feature_frame(rows, chosen, source.zone)
    told.put(
        {
            "rows": len(frame),
            "windows": len(chosen),
            "tallies": len(plan.tallies),
            "entities": len(plan.entities),
            "seconds": round(time.perf_counter() - begun, 1),
            "processor_seconds": round(time.process_time() - used, 1),
            "peak_mb": round(_peak_mb()),
            "before_mb": round(before),
            "content": hex(int(frame.hash_rows(seed=16).sum()))[-12:],
        }
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(what: Any) -> Any:
    """What a function puts into the queue that it is given, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=partial(what, told))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"bench: a process ended with {process.exitcode}")
    return told.get()


def _draw(rows: int, path: Path, told: Any) -> None:
    drawn(rows).write_parquet(path)
    told.put(None)


def main() -> None:
    """Measure each size, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--keep", type=Path, default=None, help="a folder in which the payments are kept, for the next time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for rows in given.rows:
            path = (given.keep or Path(folder)) / f"payments-{rows}.parquet"
            if not path.exists():
                in_a_process(partial(_draw, rows, path))
            figures = in_a_process(partial(_measure, path))
            print(json.dumps({**figures, "load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    main()
