"""How often the judgement of labels holds honest ones and wrong ones: on the simulator and the public file.

One partition alone is given other labels: inverted, all taken away, or as many set at random; with `all`, every partition is.
`by a champion` are the later half of the partitions, judged by scores of a model that the first half taught; the others are
judged as at the first training, when there is no champion. The seeds set no threshold.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from fraud_assets.training.simple_score import cross_fitted
from fraud_core.evaluation.metrics import roc_auc
from fraud_core.features.batch import columns_for, states
from fraud_core.features.catalogue import STANDARD, STANDARD_PLAN, feature_frame
from fraud_core.features.feature import Feature
from fraud_core.features.windows import Reach
from fraud_core.gate import PartitionRef
from fraud_core.gate.calibration import Rate
from fraud_core.gate.labels import FEW_FRAUDS, Labelled, LabelVerdict, is_impossible, judge_labels
from fraud_core.simulator.config import SimulatorConfig
from fraud_core.simulator.simulate import simulate
from tests.proofs.conftest import Record
from tests.shared_data import shared_file

NOW = datetime(2000, 1, 1, tzinfo=UTC)
MONDAY = datetime(2023, 1, 2, tzinfo=UTC)
SEEDS = range(4_000, 4_006)
HISTORY_DAYS = 30
PLACES = {"lat": "home_latitude", "long": "home_longitude", "merch_lat": "merchant_latitude", "merch_long": "merchant_longitude"}
Labels = np.ndarray[Any, np.dtype[np.bool_]]
Change = Callable[[Labels, np.random.Generator], Labels]
WRONG: dict[str, Change] = {
    "inverted": lambda labels, _: ~labels,
    "taken away": lambda labels, _: labels & False,
    "set at random": lambda labels, rng: rng.permutation(labels),
}


def simulated(seed: int) -> tuple[dict[str, pl.DataFrame], tuple[Feature, ...]]:
    """Weeks or months of a portfolio of 2,000 to 30,000 payments each, frauds in 0.3 to 3 % of them, of kinds drawn at random."""
    rng = np.random.default_rng([seed, 83])
    count, days = (12, 7) if seed % 2 else (8, 30)
    rows, rate = np.exp(rng.uniform(np.log([2_000, 0.003]), np.log([30_000, 0.03])))
    config = SimulatorConfig(seed=seed, cardholders=max(100, round(rows / days / 0.8)), fraud_rate=float(rate))
    frame = simulate(config, MONDAY, MONDAY + timedelta(days=days * count), ZoneInfo("UTC"))
    place = (pl.col("timestamp") - MONDAY).dt.total_days() // days
    return _parts(frame, place.cast(pl.String).str.zfill(2), ZoneInfo("UTC"))


def public() -> tuple[dict[str, pl.DataFrame], tuple[Feature, ...]]:
    """The first 12 months of the public file."""
    raw = pl.scan_parquet(shared_file("sparkov_2019_2020.parquet"))
    when = pl.col("trans_date_trans_time").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", time_zone="UTC")
    frame = raw.select(
        when.alias("timestamp"),
        pl.col("trans_num").alias("transaction_id"),
        pl.col("cc_num").cast(pl.String).alias("card"),
        (pl.col("amt") * 100).round().cast(pl.Int64).alias("amount_cents"),
        pl.col("dob").str.to_date().alias("birth_date"),
        pl.col("lat", "long", "merch_lat", "merch_long").name.map(PLACES.__getitem__),
        pl.col("city_pop").alias("city_population"),
        pl.col("is_fraud").cast(pl.Boolean).alias("label"),
        "merchant",
        "category",
    )
    year = frame.filter(pl.col("timestamp").dt.year() == 2019).sort("timestamp", "transaction_id").collect()
    return _parts(year, pl.col("timestamp").dt.strftime("%m"), ZoneInfo("UTC"))


def _parts(frame: pl.DataFrame, place: pl.Expr, zone: ZoneInfo) -> tuple[dict[str, pl.DataFrame], tuple[Feature, ...]]:
    features = tuple(
        f for f in STANDARD.available(frame.columns, history_days=HISTORY_DAYS) if not f.name.startswith("merchant_fraud_rate")
    )
    payments = frame.select([name for name in columns_for(STANDARD_PLAN) if name in frame.columns])
    past = states(payments, pl.Series(np.ones(len(frame), dtype=bool)), STANDARD_PLAN, Reach.of_days(HISTORY_DAYS, 0), zone)
    made = feature_frame(frame.hstack(past), features, zone)
    whole = pl.concat([frame.select("transaction_id", "timestamp", "card", "label", place.alias("part")), made], how="horizontal")
    parts = whole.partition_by("part", as_dict=True, include_key=False)
    return {str(name): part for (name,), part in sorted(parts.items())}, features


def judged(parts: Mapping[str, pl.DataFrame], features: tuple[Feature, ...]) -> dict[str, LabelVerdict]:
    """The verdicts of the first training: nothing was judged before, and there is no champion."""
    labelled = {name: _labelled(name, part) for name, part in parts.items()}
    rates = {name: [other.rate for key, other in labelled.items() if key != name] for name in labelled}
    wrong = [name for name, each in labelled.items() if is_impossible(each, rates[name])]
    scores = cross_fitted(list(parts), parts.__getitem__, features, wrong)
    return {name: judge_labels(each, scores.get(name), "", rates[name], [], None, NOW) for name, each in labelled.items()}


def _labelled(name: str, part: pl.DataFrame) -> Labelled:
    return Labelled(
        ref=PartitionRef(partition=name, content="c"),
        snapshot="s",
        ids=part["transaction_id"].to_list(),
        labels=part["label"].to_numpy(),
        times=part["timestamp"].dt.epoch("us").to_numpy(),
        cards=part["card"].rank("dense").to_numpy().astype(np.int64),
        mature_before=NOW,
    )


def measured(parts: Mapping[str, pl.DataFrame], features: tuple[Feature, ...], every: int) -> dict[str, Rate]:
    """What is held: of honest partitions, of each `every`th with other labels, of those beside it, and where all have them."""
    rng, names = np.random.default_rng(1), list(parts)
    verdicts = judged(parts, features)
    rates = {"honest": _rate(verdicts.values())}
    for change, apply in WRONG.items():
        wrong = {name: part.with_columns(label=pl.Series(apply(part["label"].to_numpy(), rng))) for name, part in parts.items()}
        alone, others = Rate(0, 0), Rate(0, 0)
        for name in names[1::every]:
            verdicts = judged({**parts, name: wrong[name]}, features)
            alone += _rate([verdicts.pop(name)])
            others += _rate(verdicts.values())
        rates |= {f"one {change}": alone, f"those beside one {change}": others}
        if change != "taken away":  # where no fraud is left, nothing is trained
            rates[f"all {change}"] = _rate(judged(wrong, features).values())
        rates[f"one {change}, by a champion"] = _by_champion(parts, wrong, features)
    return rates | {"honest, by a champion": _by_champion(parts, parts, features)}


def _by_champion(parts: Mapping[str, pl.DataFrame], given: Mapping[str, pl.DataFrame], features: tuple[Feature, ...]) -> Rate:
    """What is held of the later half, each alone as it is given and the others as they are."""
    later = list(parts)[len(parts) // 2 :]
    scores = cross_fitted(list(parts), parts.__getitem__, features, later)
    labelled = {name: _labelled(name, parts[name]) for name in parts}
    aucs = {name: roc_auc(labelled[name].labels, scores[name]) for name in later if labelled[name].labels.sum() >= FEW_FRAUDS}
    verdicts = []
    for name in later:
        rates = [each.rate for key, each in labelled.items() if key != name]
        usual = [auc for key, auc in aucs.items() if key != name]
        verdicts.append(judge_labels(_labelled(name, given[name]), scores[name], "champion", rates, usual, None, NOW))
    return _rate(verdicts)


def _rate(verdicts: Iterable[LabelVerdict]) -> Rate:
    every = list(verdicts)
    return Rate(sum(verdict.is_held for verdict in every), len(every))


def test_honest_labels_are_taken_without_a_champion_and_wrong_ones_held(full: bool, record: Record) -> None:
    found: dict[str, dict[str, Rate]] = {"simulated": {}}
    for seed in SEEDS if full else SEEDS[:1]:
        for name, rate in measured(*simulated(seed), every=6).items():
            found["simulated"][name] = found["simulated"].get(name, Rate(0, 0)) + rate
    if full:
        found["public"] = measured(*public(), every=6)
    record(
        "labels", {data: {name: {"held": r.hits, "of": r.trials} for name, r in rates.items()} for data, rates in found.items()}
    )
    for rates in found.values():
        assert rates["honest"].hits <= 0.01 * rates["honest"].trials
        for change in ("one inverted", "one inverted, by a champion", "all inverted"):
            assert rates[change] == Rate(rates[change].trials, rates[change].trials)
