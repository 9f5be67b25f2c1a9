"""Cost grows in proportion: the simulator through landing, raw and transformed at growing sizes, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.proofs.conftest import ROOT, Record
from tests.simulated import COLUMNS

SOURCE = (
    """
name = "scale"
timezone = "UTC"
cadence = "monthly"
first = "2024-01"
last = "{last}"
label_delay_days = 7

[simulator]
seed = 20
cardholders = {cardholders}
merchants = 2000
transactions_per_card_per_day = 1.0
fraud_rate = 0.008

"""
    + COLUMNS
)

# Runs in a process of its own, whose peak memory is then this work's alone. Prints one JSON object.
PROGRAM = """
import json, sys, time
from pathlib import Path
from fraud_assets.installation import Installation
from fraud_core.intake.landing import land
from fraud_core.intake.raw import build_raw
from fraud_core.settings import Settings
from fraud_core.training_data.transform import build_transformed

installation = Installation.load(Settings(home=Path(sys.argv[1]), source=Path(sys.argv[2])))
artifacts, begin, rows, stages = installation.artifacts, time.perf_counter(), 0, {"raw": 0.0, "transformed": 0.0}
landing = land(installation.source, artifacts.store, installation.card_key, None)
for key in installation.source.keys:
    started = time.perf_counter()
    made = build_raw(installation.source, landing, key, artifacts.store, installation.card_key)
    artifacts.write("raw", key, made.rows)
    artifacts.write("quarantine", key, made.quarantine)
    rows += len(made.rows.frame)
    del made
    between = time.perf_counter()
    artifacts.write("transformed", key, build_transformed(installation.source, artifacts, key))
    stages["raw"] += between - started
    stages["transformed"] += time.perf_counter() - between
# Of this program alone; getrusage would count what the process was that started it.
(peak,) = [int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM:")]
seconds = time.perf_counter() - begin
print(json.dumps({"rows": rows, "partitions": len(installation.source.keys), "seconds": seconds, **stages, "peak_rss_mb": peak}))
"""


def measure(folder: Path, *, rows: int, partitions: int) -> dict[str, Any]:
    """Take about so many rows in so many monthly partitions from the simulator to transformed."""
    folder.mkdir()
    toml = folder / "scale.toml"
    last = f"{2024 + (partitions - 1) // 12}-{(partitions - 1) % 12 + 1:02d}"
    toml.write_text(SOURCE.format(cardholders=max(round(rows / partitions / 30.4), 1), last=last), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "home"), str(toml)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: round(value, 2) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


def test_cost_grows_in_proportion_and_memory_with_the_partition_alone(full: bool, record: Record, tmp_path: Path) -> None:
    sizes = (100_000, 1_000_000, 10_000_000) if full else (20_000, 100_000)
    grown = [measure(tmp_path / f"rows-{size}", rows=size, partitions=12) for size in sizes]
    for size, figures in zip(sizes, grown, strict=True):
        assert abs(figures["rows"] / size - 1) < 0.1

    # Many times as many partitions of the same size: as much memory.
    few, many = (3, 24) if full else (2, 6)
    of_few = measure(tmp_path / "few", rows=100_000 * few, partitions=few)
    of_many = measure(tmp_path / "many", rows=100_000 * many, partitions=many)
    assert of_many["peak_rss_mb"] < 1.3 * of_few["peak_rss_mb"]
    record("scale", {"growing_rows": grown, "growing_partitions": [of_few, of_many]})
