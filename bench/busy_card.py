"""What one payment's past costs by how much its card did: the look into the history store and the counting; writes
docs/proofs/busy_card.json.

Rounds of all sizes take turns, and medians are told. `--quick` measures up to 10,000 payments, and writes nothing.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
from tqdm import tqdm

from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.features.online import Query, state_asof
from fraud_core.features.windows import NEWEST_EVENTS, Reach
from fraud_core.history.sqlite import SqliteHistory

ROOT = Path(__file__).parents[1]
SIZES = (1_000, 10_000, 100_000, 1_000_000)
ROUNDS = 15
REACH = Reach.of_days(30, 7)
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
ASKED = Query(int(NOW.timestamp()) * 1_000_000, {"card": "card", "merchant": "m1", "category": "gas"})


def busy(store: SqliteHistory, payments: int) -> None:
    """Let the card make so many payments, evenly spread over all that counts."""
    apart = REACH.history_us // (payments + 2)
    at = ASKED.timestamp - pl.arange(1, payments + 1, eager=True, dtype=pl.Int64) * apart
    frame = pl.DataFrame({"timestamp": at.cast(pl.Datetime("us", "UTC"))}).with_columns(
        transaction_id="t" + pl.int_range(pl.len()).cast(pl.String),
        amount_cents=pl.int_range(pl.len()) % 9_999,
        card=pl.lit("card"),
        merchant="m" + (pl.int_range(pl.len()) % 50).cast(pl.String),
        category=pl.lit("gas"),
    )
    store.load(frame)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    sizes = SIZES[:2] if parser.parse_args().quick else SIZES
    zone = ZoneInfo("America/New_York")
    taken: dict[int, list[float]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as folder:
        stores = {size: SqliteHistory(Path(folder) / f"{size}.sqlite", REACH, 1_000) for size in sizes}
        for size, store in tqdm(stores.items(), desc="payments are loaded"):
            busy(store, size)
        for _ in range(ROUNDS):
            for size, store in stores.items():
                begun = time.perf_counter()
                state_asof(ASKED, store.look([ASKED], STANDARD_PLAN)[0], STANDARD_PLAN, REACH, zone)
                taken[size].append(1e3 * (time.perf_counter() - begun))
        for store in stores.values():
            store.close()
    found = {f"{size}": round(statistics.median(times), 2) for size, times in taken.items()}
    git = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603
    told = {"commit": commit, "newest_events": NEWEST_EVENTS, "rounds": ROUNDS, "median_ms_by_payments_of_the_card": found}
    print(json.dumps(told, indent=1))
    if sizes == SIZES:
        (ROOT / "docs" / "proofs" / "busy_card.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
