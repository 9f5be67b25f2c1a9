"""What declared fields and windows tell of fraud in `sources/simulated_online.toml`: each alone, and models that learn from them.

`python bench/signals.py` simulates the source by several seeds, makes raw and features of it as the pipeline does, trains the
pipeline's boosting with and without the declared windows, and writes its tables into docs/simulator.md after each seed.
`--quick` takes one seed and fewer cards, and writes nothing.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from fraud_assets.training.candidates import fixed_threads
from fraud_assets.training.columns import unlearnable
from fraud_assets.training.preprocessing import fit_encoder, training_matrix
from fraud_assets.training.rows import Data, Rows, read_rows, read_training_rows
from fraud_assets.training.split import split_of
from fraud_core.evaluation.metrics import average_precision, sorted_by_score
from fraud_core.features.catalogue import catalogue_of
from fraud_core.features.feature import Feature
from fraud_core.fields.declared import NOTHING
from fraud_core.gate import PartitionRef
from fraud_core.intake.landing import Landing
from fraud_core.intake.raw import build_raw
from fraud_core.models.kinds.catalogue import KINDS
from fraud_core.models.kinds.kind import Examples
from fraud_core.settings import Settings
from fraud_core.signing.keys import Key
from fraud_core.simulator.config import ONLINE_KINDS, FraudKind
from fraud_core.simulator.simulate import simulate
from fraud_core.sources import partitions
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.artifacts import Artifacts
from fraud_core.storage.directory import DirectoryStore
from fraud_core.training_data.transform import build_transformed, source_features
from fraud_core.units.arrays import Array, Flags, Floats

ROOT = Path(__file__).parents[1]
SOURCE, PAGE = ROOT / "sources" / "simulated_online.toml", ROOT / "docs" / "simulator.md"
BEGIN, END = "<!-- signals: made by `python bench/signals.py` -->", "<!-- end of signals -->"
SEEDS = (21, 22, 23)  # the first is the TOML's own
DRAWS = 1_000
TRAINING_ROWS = 40_000  # at most, as FRAUD_MAX_TRAINING_ROWS has it: all frauds, legitimate rows thinned and weighted up
KEY = Key(b"\x16" * 32)
HOLDER = ("birth_date", "home_latitude", "home_longitude")
SETS = ("with fields", "and windows")
BUDGETS = ("as many as frauds", "50 a day")


@dataclass(frozen=True)
class Portfolio:
    """A simulated source, with raw and features in a store as the pipeline makes them.

    Attributes:
        source: as its TOML declares it, by whatever seed.
        artifacts: with `raw` and `transformed` of every partition.
        told: transaction_id, `kind` of fraud (null: none), and `cluster`: payments of one are not independent.
    """

    source: Source
    artifacts: Artifacts
    told: pl.DataFrame

    @classmethod
    def simulated(cls, source: Source, folder: Path) -> "Portfolio":
        """Simulate every partition from `first` to `last`."""
        artifacts = Artifacts(DirectoryStore(folder), KEY)
        nothing_landed = Landing(parse="", files={})
        for key in source.keys:
            artifacts.write("raw", key, build_raw(source, nothing_landed, key, artifacts.store, KEY).rows)
            artifacts.write("transformed", key, build_transformed(source, artifacts, key))
        assert source.simulator is not None
        start, end = (
            partitions.window(key, source.cadence, source.zone)[at] for at, key in enumerate((source.first, source.last))
        )
        return cls(source, artifacts, clusters(simulate(source.simulator, start, end, source.zone)))

    @cached_property
    def features(self) -> dict[str, tuple[Feature, ...]]:
        """By name (see `SETS`): what the source has without its own windows, standard ones included, and all that it has."""
        every = source_features(self.source)
        without = catalogue_of(self.source.declared.model_copy(update={"windows": ()})).by_name
        return dict(zip(SETS, (tuple(one for one in every if one.name in without), every), strict=True))

    @property
    def own(self) -> tuple[Feature, ...]:
        """The features of declared fields and windows."""
        standard = catalogue_of(NOTHING).by_name
        return tuple(one for one in source_features(self.source) if one.name not in standard)

    def transformed(self) -> pl.DataFrame:
        """What models learn from, with `kind` and `cluster`."""
        return self.with_told(pl.concat(pl.collect_all([self.artifacts.scan("transformed", key) for key in self.source.keys])))

    def with_told(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows of transformed with `kind` and `cluster`."""
        return rows.join(self.told, on="transaction_id", how="left", maintain_order="left", validate="1:1")


def clusters(simulated: pl.DataFrame) -> pl.DataFrame:
    """Of each simulated payment its kind of fraud, and the cluster that it belongs to.

    Attacks are independent of each other, and their payments are not: a ring is its device, a farm its network, an enumeration
    what is tried under a BIN without an hour's pause. Two that share these are taken for one. All other payments belong to
    their cardholder.
    """
    kind, network, bin_ = pl.col("kind"), pl.col("ip").str.extract(r"^(\d+\.\d+\.\d+)\."), pl.col("card").str.head(6)
    tried = (kind == FraudKind.BIN_ENUMERATION.value).fill_null(value=False)
    pause = pl.col("timestamp").diff().over("tried", "bin", order_by="timestamp") > pl.duration(hours=1)
    numbered = simulated.with_columns(tried=tried, bin=bin_).with_columns(attack=pause.fill_null(value=False).cast(pl.Int64))
    numbered = numbered.with_columns(pl.col("attack").cum_sum().over("tried", "bin", order_by="timestamp"))
    attacks = {
        FraudKind.DEVICE_RING: pl.col("device"),
        FraudKind.BIN_ENUMERATION: pl.format("{} {}", "bin", "attack"),
        FraudKind.ACCOUNT_FARM: network,
    }
    whose = pl.concat_str(*(pl.col(name).cast(pl.String) for name in HOLDER), separator=" ")
    for one, name in attacks.items():
        whose = pl.when(kind == one.value).then(pl.format(f"{one.value} {{}}", name)).otherwise(whose)
    return numbered.select("transaction_id", "kind", cluster=whose)


# ---- each alone


@dataclass(frozen=True)
class Told:
    """How well one feature orders payments, most suspicious first, in whichever direction tells more.

    Attributes:
        feature: its name.
        precision: average precision against all fraud.
        of_kind: against one kind of fraud and legitimate payments alone.
    """

    feature: str
    precision: float
    of_kind: dict[str, float]


def told_by(rows: pl.DataFrame, features: Sequence[Feature]) -> list[Told]:
    """Each feature's average precision, the best first; a category is ranked by the fraud that it has in these very rows."""
    label, kind = rows["label"].to_numpy(), rows["kind"].fill_null("")
    parts = {one.value: kind.is_in(["", one.value]) for one in ONLINE_KINDS}
    found = []
    for feature in features:
        column = rows[feature.name]
        if feature.is_category:
            column = rows.select(pl.col("label").mean().over(feature.name)).to_series()
        values = column.cast(pl.Float64).fill_null(float("nan"))
        of_kind = {name: _best(label[part.to_numpy()], values.filter(part).to_numpy()) for name, part in parts.items()}
        found.append(Told(feature.name, _best(label, values.to_numpy()), of_kind))
    return sorted(found, key=lambda one: -one.precision)


def _best(label: Flags, values: Floats) -> float:
    """Where there is no value, there is the least of suspicion in either direction."""
    if np.isnan(values).all():
        return float(label.mean())
    least, most = np.nanmin(values) - 1, np.nanmax(values) + 1
    ways = (np.nan_to_num(values, nan=least), -np.nan_to_num(values, nan=most))
    return max(average_precision(label, way) for way in ways)


# ---- together


@dataclass(frozen=True)
class Judged:
    """What models of one seed's portfolio do on its hold-out.

    Attributes:
        seed: of the simulator.
        rows: of the hold-out: label, kind and cluster.
        days: of the hold-out.
        trained: rows and frauds that were learned from.
        chosen: by set of features, the model's name with the number of trees that was best on validation A.
        scores: by set of features, float64[n], higher: more suspicious.
    """

    seed: int
    rows: pl.DataFrame
    days: int
    trained: tuple[int, int]
    chosen: dict[str, str]
    scores: dict[str, Floats]

    @property
    def alerts(self) -> tuple[float, ...]:
        """How many payments are alerted, by budget."""
        return float(self.rows["label"].sum()), 50.0 * self.days

    def average_precision(self, name: str) -> float:
        """Of the model with this set of features."""
        return average_precision(self.rows["label"].to_numpy(), self.scores[name])

    @cached_property
    def recalls(self) -> Floats:
        """Recall of each kind at equal alerts, of shape (1 + DRAWS, budgets, sets, kinds); NaN where a draw has none of a kind.

        The first is that of the rows as they are; each draw takes as many clusters as there are with replacement, the same for
        all sets of features. The number of alerts is the same for all of them, as many as the draw has frauds, or so many a day.
        """
        codes = self.rows["cluster"].rank("dense").to_numpy() - 1
        count, generator = int(codes.max()) + 1, np.random.default_rng(self.seed)
        kinds = [(self.rows["kind"] == one.value).fill_null(value=False).to_numpy() for one in FraudKind]
        label = self.rows["label"].to_numpy()
        ranked = [sorted_by_score(self.scores[name]) for name in SETS]
        found = np.empty((1 + DRAWS, len(BUDGETS), len(SETS), len(kinds)))
        for draw in range(1 + DRAWS):
            times = np.ones(count) if draw == 0 else np.bincount(generator.integers(0, count, count), minlength=count)
            weights = times[codes].astype(np.float64)
            most = (weights[label].sum(), 50.0 * self.days)
            for at, (order, starts) in enumerate(ranked):
                for budget, alerts in enumerate(most):
                    share = alerted(weights[order], starts, alerts)
                    found[draw, budget, at] = [_share(weights[order], share, one[order]) for one in kinds]
        return found


def alerted(weights: Floats, starts: Array, alerts: float) -> Floats:
    """Which share of each row is alerted, float64[n]: the first `alerts` of the ranking; of a tie at the border all alike.

    Args:
        weights: of the rows, in the order of the ranking.
        starts: where in it each distinct score begins.
        alerts: how many rows may be alerted.
    """
    sizes = np.add.reduceat(weights, starts)
    before = np.cumsum(sizes) - sizes
    share = np.clip(np.divide(alerts - before, sizes, out=np.zeros(len(sizes)), where=sizes > 0), 0, 1)
    repeated: Floats = np.repeat(share, np.diff(starts, append=len(weights)))
    return repeated


def _share(weights: Floats, share: Floats, of: Flags) -> float:
    whole = weights[of].sum()
    return float((weights[of] * share[of]).sum() / whole) if whole else float("nan")


def judged(portfolio: Portfolio, settings: Settings) -> Judged:
    """Fit the pipeline's boosting on each set of features, with as many trees as are best on validation A; score the hold-out."""
    artifacts, source = portfolio.artifacts, portfolio.source
    pointers = artifacts.pointers("transformed")
    refs = [PartitionRef(partition=key, content=pointer.content) for key, pointer in pointers.items()]
    split, data = split_of(source, pointers), Data.of(artifacts, source)
    training = read_training_rows(data, refs, split.training, settings.max_training_rows, settings.seed)
    validation, holdout = (read_rows(data, refs, block) for block in (split.validation_a, split.holdout))
    chosen, scores = {}, {}
    for name, features in portfolio.features.items():
        chosen[name], scores[name] = _fitted(features, training, validation, holdout, settings)
        print(f"    {name}: {chosen[name]}", flush=True)
    assert split.holdout.start is not None
    assert split.holdout.end is not None
    rows = portfolio.with_told(holdout.frame.select("transaction_id", "label")).drop("transaction_id")
    days = round((split.holdout.end - split.holdout.start).total_seconds() / 86_400)
    assert source.simulator is not None
    trained = len(training.frame), int(training.labels.sum())
    return Judged(source.simulator.seed, rows, days, trained, chosen, scores)


def _fitted(
    features: Sequence[Feature], training: Rows, validation: Rows, holdout: Rows, settings: Settings
) -> tuple[str, Floats]:
    dropped = unlearnable(training.frame, features)
    encoder = fit_encoder(training, [one for one in features if one.name not in dropped])
    X = training_matrix(training, np.ones(len(training.frame), dtype=bool), encoder, settings.seed)
    examples = Examples(X, training.labels, training.weights)
    validated = Examples(encoder.frame_matrix(validation.frame), validation.labels, validation.weights)
    kind = KINDS["boosting"]
    with fixed_threads(settings.threads):  # the first of its candidates, that of small trees
        chosen, estimator = next(iter(kind.fit(examples, validated, seed=settings.seed, threads=settings.threads)))
    model = kind.load(kind.export(estimator), settings.threads)
    return chosen, model.margins(encoder.frame_matrix(holdout.frame))


def pooled(of_seeds: Sequence[Floats]) -> Floats:
    """Recalls of each seed as the mean over seeds; each draw takes as many seeds as there are, with replacement.

    So the interval holds both what differs between attacks of one portfolio and what differs between portfolios and trainings.
    """
    stacked = np.stack(of_seeds)
    seeds, draws = len(stacked), stacked.shape[1]
    picked = np.random.default_rng(seeds).integers(0, seeds, (draws, seeds))
    picked[0] = np.arange(seeds)
    drawn = stacked[picked.T, np.arange(draws)]
    known = (~np.isnan(drawn)).sum(axis=0)
    return np.divide(np.nansum(drawn, axis=0), known, out=np.full(known.shape, np.nan), where=known > 0)


# ---- tables


def alone_table(told: Sequence[Told], rows: pl.DataFrame) -> list[str]:
    """Average precision of each feature alone, as Markdown."""
    legitimate = rows.filter(~pl.col("label")).height
    base = {one.value: rows.filter(pl.col("kind") == one.value).height for one in ONLINE_KINDS}
    shares = " | ".join(f"{count / (count + legitimate):.4f}" for count in base.values())
    return [
        f"| feature | all fraud | {' | '.join(base)} |",
        f"|---|---:|{'---:|' * len(base)}",
        f"| (base rate, of {rows.height:,} payments) | {rows['label'].mean():.4f} | {shares} |",
        *(f"| `{one.feature}` | {one.precision:.3f} | {' | '.join(f'{v:.3f}' for v in one.of_kind.values())} |" for one in told),
    ]


def together_table(found: Sequence[Judged]) -> list[str]:
    """Recall of each kind at equal alerts by set of features, and the difference that windows make, as Markdown."""
    of_seeds = [one.recalls for one in found]
    means = pooled(of_seeds)
    lines = []
    for budget, title in enumerate(BUDGETS):
        alerts = np.mean([one.alerts[budget] for one in found])
        share = np.mean([one.alerts[budget] / len(one.rows) for one in found])
        lines += [
            f"Alerts: {title}, {alerts:,.0f} of a hold-out ({share:.1%}).",
            "",
            f"| kind | frauds | attacks | {' | '.join(SETS)} | what windows add, in points | least and most of a seed |",
            "|---|---:|---:|---:|---:|---|---|",
        ]
        for at, kind in enumerate(FraudKind):
            of_kind = [one.rows.filter(pl.col("kind") == kind.value) for one in found]
            if not sum(map(len, of_kind)):
                continue
            attacks = sum(one["cluster"].n_unique() for one in of_kind) if kind in ONLINE_KINDS else None
            values = means[:, budget, :, at]
            added = 100 * (values[:, 1] - values[:, 0])
            low, high = np.nanquantile(added[1:], [0.025, 0.975])
            each = [100 * (one[0, budget, 1, at] - one[0, budget, 0, at]) for one in of_seeds]
            name = f"**{kind.value}**" if kind in ONLINE_KINDS else kind.value
            lines.append(
                f"| {name} | {sum(map(len, of_kind)):,} | {attacks or ''} | {' | '.join(f'{v:.2f}' for v in values[0])} | "
                f"{added[0]:+.0f} ({low:+.0f} to {high:+.0f}) | {min(each):+.0f}, {max(each):+.0f} |"
            )
        lines.append("")
    precision = {name: [one.average_precision(name) for one in found] for name in SETS}
    said = "; ".join(f"{name} {np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for name, v in precision.items())
    return [*lines, f"Average precision, mean (least to most of a seed): {said}."]


def page_text(commit: str, told: Mapping[int, list[Told]], shown: pl.DataFrame, found: Sequence[Judged]) -> str:
    """What stands between the page's marks; the table of each feature alone is that of the first seed, whose rows are shown."""
    first, *_ = found
    every = [one for ones in told.values() for one in ones]
    most = max(every, key=lambda one: one.precision)
    of_kind = [(kind.value, max(every, key=lambda one: one.of_kind[kind.value])) for kind in ONLINE_KINDS]
    own = "; ".join(f"{kind} {one.of_kind[kind]:.3f} (`{one.feature}`)" for kind, one in of_kind)
    lines = [
        f"Measured at {commit} with the seeds {', '.join(map(str, told))}; this table is that of seed {first.seed}.",
        "",
        *alone_table(told[first.seed], shown),
        "",
        f"The greatest of all seeds against all fraud is {most.precision:.3f} (`{most.feature}`).",
        f"Against its own kind and legitimate payments alone: {own}.",
        "",
        f"Models of seed {first.seed} learned from {first.trained[0]:,} rows with {first.trained[1]:,} frauds, and were judged",
        f"on {len(first.rows):,} payments with {int(first.rows['label'].sum()):,} frauds in {first.days} later days.",
        "",
        *together_table(found),
    ]
    return "\n".join(lines)


def write_page(page: Path, text: str) -> None:
    """Put a text between the page's two marks.

    Raises:
        ValueError: the page does not have them.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has lost the marks between which the tables go: {BEGIN} and {END}.")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def seeded(source: Source, seed: int, **more: object) -> Source:
    """The source by another seed."""
    assert source.simulator is not None
    return source.model_copy(update={"simulator": source.simulator.model_copy(update={"seed": seed, **more})})


def main() -> None:
    """Measure, tell, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    source, settings = load_source(SOURCE), Settings(_env_file=None, max_training_rows=TRAINING_ROWS)
    seeds, fewer = (SEEDS[:1], {"cardholders": 1_000}) if given.quick else (SEEDS, {})
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603
    told: dict[int, list[Told]] = {}
    found: list[Judged] = []
    shown = pl.DataFrame()
    for seed in seeds:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            portfolio = Portfolio.simulated(seeded(source, seed, **fewer), Path(folder))
            rows = portfolio.transformed()
            told[seed] = told_by(rows, portfolio.own)
            shown = shown if found else rows.select("label", "kind")
            print(f"seed {seed}: {len(rows):,} rows after {time.monotonic() - begun:.0f} s", flush=True)
            found.append(judged(portfolio, settings))
        text = page_text(commit, told, shown, found)
        if not given.quick:
            write_page(PAGE, text)
        print(f"{text}\n\nseed {seed}: {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
