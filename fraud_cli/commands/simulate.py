"""`fraud simulate`: the simulator's transactions as a file, for trying things out elsewhere."""

import sys
from pathlib import Path

import polars as pl
from tqdm import tqdm

from fraud_core.errors import SourceError
from fraud_core.settings import Settings
from fraud_core.simulator.simulate import simulate
from fraud_core.sources import partitions
from fraud_core.sources.source import load_source


def write_simulated(settings: Settings, out: Path, until: str | None) -> int:
    """Write all partitions of a simulated source, up to `until`, to one CSV or Parquet file."""
    source = load_source(settings.source)
    if source.simulator is None:
        raise SourceError(f"{settings.source} has no [simulator]; name one that has with --source-config.")
    if out.suffix not in {".csv", ".parquet"}:
        raise SourceError(f"{out}: give a name that ends in .csv or .parquet.")
    keys = source.keys or ([until] if until else [])
    keys = [key for key in keys if until is None or key <= until]
    frames = []
    for key in tqdm(keys, desc="simulating", unit="partition", file=sys.stderr):
        start, end = partitions.window(key, source.cadence, source.zone)
        frame = simulate(source.simulator, start, end, source.zone).with_columns((pl.col("amount_cents") / 100).alias("amount"))
        frames.append(frame.select(source.columns.wanted))
    everything = pl.concat(frames)
    draft = out.with_name(f".{out.name}.draft")
    if out.suffix == ".csv":
        everything.write_csv(draft, float_precision=6)
    else:
        everything.write_parquet(draft)
    draft.replace(out)
    print(f"{len(everything):,} transactions in {out}")
    return 0
