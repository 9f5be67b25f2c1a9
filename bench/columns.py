"""How long a table of many columns takes to become a champion, and how much memory: 400 columns times 600,000 rows; writes
docs/proofs/columns.json.

The table is a seeded draw of features as `transformed` holds them: numbers, flags, categories of few and of 100,000 names,
windows of the past, and some that are constant, missing or copies of others; a few tell of fraud. Each stage is the product's
own code in a process of its own, as Dagster runs it. `--quick` takes a tenth of the rows, and writes nothing.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from fraud_assets.installation import Installation
from fraud_assets.operations.judging import judge_partition
from fraud_assets.operations.judging_labels import judge_training_labels, require_judged_labels
from fraud_assets.operations.judging_models import promotion_of
from fraud_assets.training.card import model_card
from fraud_assets.training.rows import read_rows
from fraud_assets.training.training import fit_preprocessor, train
from fraud_core import gate
from fraud_core.features.feature import Feature
from fraud_core.gate.baseline import make_reference, write_reference
from fraud_core.models.bundle import read_bundle, write_bundle
from fraud_core.models.explain import Explainer
from fraud_core.models.registry import point_at, read_latest
from fraud_core.models.scorer import Scorer
from fraud_core.settings import Settings
from fraud_core.sources import partitions
from fraud_core.sources.partitions import Cadence
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Estimator, Table
from fraud_core.training_data.transform import source_features
from fraud_core.units.arrays import Flags

ROOT = Path(__file__).parents[1]
COLUMNS, ROWS, SEED = 400, 600_000, 16
MONTHS = tuple(f"2024-{month:02d}" for month in range(1, 13))
FRAUDS = 0.006
CARDS = 20_000
MANY_NAMES, SOME_NAMES = 100_000, 300
GOALS = {"seconds": 720, "peak_mb": 6 * 1024}
# Of 400 columns: how many are of which kind; the rest are plain numbers.
KINDS = {"tells": 12, "flag": 60, "category": 40, "some": 4, "many": 2, "window": 40, "constant": 10, "missing": 6, "copy": 10}


def declared(columns: int) -> dict[str, Any]:
    """The fields and windows of the table, as a source declares them; what stands before the number in a name is its kind."""
    scale = columns / COLUMNS
    counts = {kind: max(1, round(count * scale)) for kind, count in KINDS.items()}
    counts["number"] = columns - sum(counts.values())
    windows = counts.pop("window")
    return {
        "fields": {f"{kind}_{place}": _field(kind) for kind, count in counts.items() for place in range(count)},
        "windows": [
            {"of": "card", "measure": "count", "spans": [f"{place + 1}h"], "name": f"window_{place}"} for place in range(windows)
        ],
        "standard_windows": False,
        "excluded_features": ["log_amount", "hour", "weekday", "night"],
    }


def _field(kind: str) -> dict[str, str]:
    is_name = kind in {"category", "some", "many"}
    return {
        "kind": "category" if is_name else "flag" if kind == "flag" else "number",
        "drift": "reported" if kind in {"missing", "many"} else "blocks",
    }


def source(columns: int = COLUMNS) -> Source:
    """A year of monthly partitions, split by time."""
    names = ("timestamp", "amount", "label", "card")
    return Source.model_validate(
        {
            "name": "columns",
            "paths": ["nowhere.csv"],
            "timezone": "UTC",
            "cadence": "monthly",
            "first": MONTHS[0],
            "label_delay_days": 5,
            "history_days": 30,
            "columns": {name: {"column": name} if name in {"timestamp", "label"} else name for name in names},
            "split": {"protocol": "time", "holdout_days": 45, "validation_days": 45, "training_days": 90},
            **declared(columns),
        }
    )


def drawn(key: str, rows: int, features: dict[str, Feature]) -> pl.DataFrame:
    """A transformed partition of so many rows."""
    rng = np.random.default_rng([SEED, int(key.replace("-", ""))])
    start, end = (int(at.timestamp() * 1e6) for at in partitions.window(key, Cadence.MONTHLY, ZoneInfo("UTC")))
    label, card = rng.random(rows) < FRAUDS, rng.integers(0, CARDS, rows)
    columns: dict[str, Any] = {
        "transaction_id": [f"{key}-{number}" for number in range(rows)],
        "timestamp": pl.Series(np.sort(rng.integers(start, end, rows))).cast(pl.Datetime("us", "UTC")),
        "amount_cents": rng.integers(100, 100_000, rows),
        "label": label,
        "card": [f"{number:032x}" for number in card],
        "split_bucket": pl.Series(card % 1_000, dtype=pl.Int16),
    }
    for place, name in enumerate(features):
        columns[name] = _values(name, place, label, rng, columns)
    return pl.DataFrame(columns).with_columns(pl.col(name).cast(each.dtype) for name, each in features.items())


def _values(name: str, place: int, label: Flags, rng: np.random.Generator, before: dict[str, Any]) -> Any:
    rows, kind = len(label), name.partition("_")[0]
    made: Any
    match kind:
        case "tells" | "window":  # every window tells a little, of the others a dozen tell more
            made = rng.normal(label * (0.8 if kind == "tells" else 0.1), 1.0)
        case "flag":
            made = (rng.random(rows) < 0.02 + 0.9 * (place % 7) / 7).astype(np.int64)
        case "category" | "some":
            made = pl.Series(rng.integers(0, 3 + place % 25 if kind == "category" else SOME_NAMES, rows)).cast(pl.String)
        case "many":  # one name of 50 is a bad one
            names = np.minimum(rng.pareto(0.9, rows) * 50, MANY_NAMES - 1).astype(np.int64)
            bad = rng.integers(0, 200, rows) * 50 + 7
            made = pl.Series(np.where(label & (rng.random(rows) < 0.3), bad, names)).cast(pl.String) + "@mail.example"
        case "constant":
            made = np.full(rows, float(place))
        case "missing":
            made = pl.Series([None], dtype=pl.Float64).new_from_index(0, rows)
        case "copy":
            made = before["tells_0"]
        case _:
            values = rng.normal(size=rows) if place % 2 else np.round(rng.lognormal(3, 1.5, rows), 2)
            made = pl.Series(values).set(pl.Series(rng.random(rows) < 0.1 * (place % 3)), None)
    return made


# ---- stages


def _transformed(installation: Installation, features: dict[str, Feature], rows: int) -> None:
    for key in MONTHS:
        frame = drawn(key, rows // len(MONTHS), features)
        stamps = frame["timestamp"].dt.epoch("us")
        facts = {"rows": len(frame), "frauds": int(frame["label"].sum()), "first_us": stamps.min(), "last_us": stamps.max()}
        content = hashlib.sha256(f"{key} {rows}".encode()).hexdigest()
        installation.artifacts.write("transformed", key, Table(frame=frame, content=content, inputs="", facts=facts))


def _gate(installation: Installation, *_: Any) -> str:
    for key in MONTHS:
        verdict = judge_partition(installation, key)
        gate.record(installation.artifacts.store, installation.artifacts.signing_key, verdict, installation.heads)
        if not verdict.verdict.accepted:
            print(verdict.verdict.findings)
    return f"{len(installation.training_set().accepted)} of {len(MONTHS)} partitions accepted"


def _preprocessor(installation: Installation, *_: Any) -> str:
    judge_training_labels(installation, installation.accepted_set())
    fitted = fit_preprocessor(installation.training_task(installation.training_set()))
    pointer = installation.artifacts.write("preprocessor", None, Estimator(fitted=fitted, inputs=""))
    return f"{fitted.rows} training rows, {len(fitted.dropped)} columns dropped, {pointer.size / 1e6:.1f} MB"


def _model(installation: Installation, *_: Any) -> str:
    begun = time.monotonic()
    allowed = installation.training_set()
    require_judged_labels(installation, allowed)

    def told(sentence: str) -> None:
        print(f"    {time.monotonic() - begun:6.1f} s {_peak_mb():,.0f} MB: {sentence}", flush=True)

    trained = train(installation.training_task(allowed), installation.artifacts.estimator("preprocessor"), told)
    installation.artifacts.write("model", None, Estimator(fitted=trained, inputs=""))
    return f"average precision {trained.holdout.average_precision:.4f}, fraud rate {trained.holdout.fraud_rate:.4f}"


def _champion(installation: Installation, *_: Any) -> str:
    artifacts, model, now = installation.artifacts, installation.artifacts.estimator("model"), datetime.now(UTC)
    allowed, promotion = installation.training_set(), promotion_of(installation, model, now)
    if not promotion.promoted:
        raise SystemExit(f"bench: not promoted: {promotion.reasons}")
    write_bundle(artifacts.store, model.bundle, artifacts.signing_key)
    model_card(model, allowed, promotion, now)
    rows = read_rows(installation.training_data(), allowed.accepted, model.split.validation_b)
    reference = make_reference(model.bundle, model.bundle.encoder.frame_matrix(rows.frame), now)
    write_reference(artifacts.store, artifacts.signing_key, "bench", reference)
    point_at(artifacts.store, model.bundle.version, artifacts.signing_key, how="promotion", who="bench", at=now)
    return str(model.bundle.version)


def _served(installation: Installation, *_: Any) -> str:
    store, key = installation.artifacts.store, installation.artifacts.signing_key
    latest = read_latest(store, key)
    assert latest is not None
    begun = time.perf_counter()
    scorer = Scorer(read_bundle(store, latest.version, key))
    frame = installation.artifacts.scan("transformed", MONTHS[-1]).head(200).collect()
    X = scorer.bundle.encoder.frame_matrix(frame)
    scorer.score_matrix(X[:1])
    loaded = time.perf_counter() - begun
    begun = time.perf_counter()
    for row in X:
        scorer.score_matrix(row[None])
    scored = (time.perf_counter() - begun) / len(X)
    begun = time.perf_counter()
    explainer = Explainer(scorer.bundle)
    explainer.contributions(X[:1])
    parsed, begun = time.perf_counter() - begun, time.perf_counter()
    explainer.contributions(X[:20])
    each = (time.perf_counter() - begun) / 20
    size = len(scorer.bundle.encoder.model_dump_json())
    return (
        f"{scorer.bundle.kind}: first score after {loaded:.2f} s, then {scored * 1e6:.0f} us a row; "
        f"first reasons after {parsed:.2f} s, then {each * 1e3:.1f} ms a row; encoder {size / 1e6:.2f} MB"
    )


STAGES: dict[str, Callable[..., str | None]] = {
    "transformed": _transformed,
    "gate": _gate,
    "preprocessor": _preprocessor,
    "model": _model,
    "champion": _champion,
    "served": _served,
}
MEASURED = ("gate", "preprocessor", "model", "champion")  # from transformed to champion


def _run(stage: str, home: Path, columns: int, rows: int, told: Any) -> None:
    """A stage, in a process of its own."""
    declared_source = source(columns)
    features = {feature.name: feature for feature in source_features(declared_source)}
    settings = Settings(_env_file=None, home=home, dvc_remote="off", mlflow_url="off", drift_detector="scipy")
    begun = time.monotonic()
    said = STAGES[stage](Installation(settings, declared_source), features, rows)
    used = resource.getrusage(resource.RUSAGE_SELF)
    told.put(
        {
            "seconds": round(time.monotonic() - begun, 1),
            "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_mb": round(_peak_mb()),
            "said": said,
        }
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(columns: int, rows: int, home: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every stage with its figures."""
    context = multiprocessing.get_context("spawn")
    for stage in STAGES:
        told = context.Queue()
        process = context.Process(target=partial(_run, stage, home, columns, rows, told))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"bench: {stage} ended with {process.exitcode}")
        yield stage, told.get()


def main() -> None:
    """Measure, tell, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--columns", type=int, default=COLUMNS)
    given = parser.parse_args()
    rows = given.rows or (ROWS // 10 if given.quick else ROWS)
    stages: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage, figures in measured(given.columns, rows, Path(folder)):
            stages[stage] = figures
            print(f"{stage:14} {json.dumps(figures)}  load {os.getloadavg()[0]:.1f}", flush=True)
    summary = {
        "seconds": round(sum(stages[stage]["seconds"] for stage in MEASURED), 1),
        "processor_seconds": round(sum(stages[stage]["processor_seconds"] for stage in MEASURED), 1),
        "peak_mb": max(stages[stage]["peak_mb"] for stage in MEASURED),
    }
    git = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603
    told = {"commit": commit, "columns": given.columns, "rows": rows, "load": os.getloadavg(), "goals": GOALS, **summary}
    told["stages"] = stages
    print(json.dumps(told, indent=1))
    if (given.columns, rows) == (COLUMNS, ROWS):
        (ROOT / "docs" / "proofs" / "columns.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
