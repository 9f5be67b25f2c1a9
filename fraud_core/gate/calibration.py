"""Calibration of the drift gate: false alarms on unshifted data, and power against shifts that are put in.

Everything runs the gate's own code over partitions in memory, walking forward, so that each is judged against what was accepted
before it. Partitions come from the simulator (or, for `walk`, from a source's own transformed partitions).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from tqdm import tqdm

from fraud_core import gate
from fraud_core.features.batch import states
from fraud_core.features.catalogue import STANDARD, STANDARD_PLAN, feature_frame
from fraud_core.features.feature import Feature
from fraud_core.features.windows import Reach
from fraud_core.gate import statistics
from fraud_core.simulator.config import SimulatorConfig
from fraud_core.simulator.simulate import simulate
from fraud_core.sources import partitions
from fraud_core.sources.partitions import Cadence
from fraud_core.sources.source import Drift
from fraud_core.units.time import DAY_US

BEGIN = date(2023, 1, 2)  # a Monday
CHUNK_ROWS = 300_000  # simulated at once
NOW = datetime(2000, 1, 1, tzinfo=UTC)  # a calibration's verdicts are not kept
FALSE_ALARM_SEEDS = range(1_000, 1_020)  # the margin, the floor and the ceiling of the bounds were chosen on other seeds
POWER_SEEDS = range(2_000, 2_004)
POWER_ROWS = (1_000, 10_000, 100_000)
SLOW_SEEDS = range(3_000, 3_020)
SLOW_ROWS = (2_000, 5_000, 10_000, 20_000)  # a week, in turn over the series
YEAR_WEEKS = 52
REACH = Reach.of_days(30, 0)
REMEMBERED = ("transaction_id", "timestamp", "amount_cents", "card")  # what the watched features take of earlier payments


@dataclass(frozen=True)
class Rate:
    """So many of so many."""

    hits: int
    trials: int

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the share (Clopper and Pearson 1934)."""
        from scipy.stats import binomtest  # noqa: PLC0415 - only a calibration needs it

        found = binomtest(self.hits, self.trials).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)

    def __add__(self, other: "Rate") -> "Rate":
        return Rate(self.hits + other.hits, self.trials + other.trials)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits / self.trials:.1%} ({low:.1%} to {high:.1%})"


class Part(NamedTuple):
    """A partition: its key, its canonical rows, and `REMEMBERED` of those within reach before it."""

    key: str
    rows: pl.DataFrame
    before: pl.DataFrame


@dataclass(frozen=True)
class Portfolio:
    """A simulated source: a simulator's portfolio cut into partitions."""

    config: SimulatorConfig
    cadence: Cadence
    zone: ZoneInfo

    def partitions(self, count: int) -> Iterator[Part]:
        """The first so many partitions."""
        keys = [partitions.key_of(BEGIN, self.cadence)]
        while len(keys) < count:
            keys.append(partitions.next_key(keys[-1], self.cadence))
        before: pl.DataFrame | None = None
        together = max(1, int(CHUNK_ROWS / (self.config.transactions_per_day * DAYS[self.cadence])))
        for first in range(0, count, together):
            chunk = keys[first : first + together]
            start, _ = partitions.window(chunk[0], self.cadence, self.zone)
            _, end = partitions.window(chunk[-1], self.cadence, self.zone)
            key = partitions.key_expression(pl.col("timestamp"), self.cadence, self.zone).alias("key")
            rows = simulate(self.config, start, end, self.zone).with_columns(key)
            parts = rows.partition_by("key", as_dict=True, include_key=False)
            for each in chunk:
                begin, _ = partitions.window(each, self.cadence, self.zone)
                remembered = parts[each,].select(REMEMBERED)
                before = remembered.clear() if before is None else before
                before = before.filter(pl.col("timestamp") >= begin - timedelta(microseconds=REACH.total_us))
                yield Part(each, parts[each,], before)
                before = pl.concat([before, remembered])

    def features(self, rows: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
        """What the gate looks at of canonical rows, given those before them: features, and cards."""
        payments = pl.concat([before, rows.select(REMEMBERED)])
        past = states(payments, pl.Series(np.arange(len(payments)) >= len(before)), STANDARD_PLAN, REACH, self.zone)
        return feature_frame(rows.hstack(past), watched(), self.zone).with_columns(rows["card"])

    def walked(self, count: int) -> Iterator[tuple[str, pl.DataFrame]]:
        """Keys and features of the first so many partitions."""
        return ((part.key, self.features(part.rows, part.before)) for part in self.partitions(count))


DAYS = {Cadence.DAILY: 1, Cadence.WEEKLY: 7, Cadence.MONTHLY: 30, Cadence.YEARLY: 365}


def watched() -> tuple[Feature, ...]:
    """The features that can reject a partition."""
    return tuple(feature for feature in STANDARD.features if feature.drift == "blocks")


def random_portfolio(seed: int) -> Portfolio:
    """A portfolio with parameters drawn at random: 1,000 to 50,000 rows a partition, of any cadence, zone and density."""
    rng = np.random.default_rng([seed, 71])

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    cadence = [Cadence.DAILY, Cadence.WEEKLY, Cadence.MONTHLY][rng.integers(3)]
    rows, per_card = between(1_000, 50_000), between(0.3, 3)
    config = SimulatorConfig(
        seed=seed,
        cardholders=max(10, round(rows / DAYS[cadence] / per_card)),
        merchants=round(between(200, 2_000)),
        transactions_per_card_per_day=per_card,
        fraud_rate=between(0.001, 0.02),
    )
    zone = ["Europe/Zurich", "America/New_York", "Asia/Tokyo", "UTC"][rng.integers(4)]
    return Portfolio(config, cadence, ZoneInfo(zone))


def weekly_portfolio(seed: int, rows: int) -> Portfolio:
    """The simulator's usual portfolio, as large as gives about so many rows a week, in UTC."""
    per_card = 0.8
    config = SimulatorConfig(seed=seed, cardholders=round(rows / 7 / per_card), transactions_per_card_per_day=per_card)
    return Portfolio(config, Cadence.WEEKLY, ZoneInfo("UTC"))


def false_alarms(
    seeds: Iterable[int] = FALSE_ALARM_SEEDS, judged: int = 50, detector: statistics.Detector = statistics.scipy_detector
) -> list[tuple[Portfolio, Rate]]:
    """Of each random portfolio: how many unshifted partitions after the bootstrap the gate rejects, walking forward."""
    settings, rates = Drift(), []
    for seed in tqdm(list(seeds), desc="false alarms", unit="portfolio"):
        portfolio = random_portfolio(seed)
        walked = gate.walk_forward(
            portfolio.walked(settings.bootstrap_partitions + judged),
            features=watched(),
            settings=settings,
            seed=seed,
            detector=detector,
            now=NOW,
        )
        verdicts = [judgement.verdict for judgement in walked if judgement.verdict.kind == "judged"]
        rates.append((portfolio, Rate(sum(not verdict.accepted for verdict in verdicts), len(verdicts))))
    return rates


@dataclass(frozen=True)
class Shift:
    """Something that happens to a partition.

    Attributes:
        name: for people.
        apply: canonical rows and a generator -> canonical rows after it.
        blind: features that the source is taken to be without.
    """

    name: str
    apply: Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]
    blind: Collection[str] = ()


def shifts() -> tuple[Shift, ...]:
    """The shifts whose detection is measured."""
    return (
        Shift("none", lambda rows, _: rows),
        *(Shift(f"amount x{factor}", partial(_dearer, factor=factor)) for factor in (1.1, 1.3, 2.0)),
        Shift("hour + 6", _later),
        Shift("the commonest category doubled", partial(_doubled, rank=0)),
        Shift("the rarest category doubled", partial(_doubled, rank=-1)),
        Shift("a new category (2 % of the rows)", _new_category),
        Shift("half the rows from one merchant", _one_merchant),
        Shift("the same, source without category and place", _one_merchant, blind=("category", "distance")),
        Shift("5 % of birth dates missing", _nulls),
    )


def power(
    rows: int, seeds: Sequence[int] = POWER_SEEDS, draws: int = 200, detector: statistics.Detector = statistics.scipy_detector
) -> dict[str, Rate]:
    """How often each shift rejects a week of so many rows; the draws are spread over the portfolios of the seeds.

    Each draw is a week of its own, judged once unshifted and once with each shift against the same accepted weeks before it.
    """
    settings, rates = Drift(), {shift.name: Rate(0, 0) for shift in shifts()}
    warm_up = max(settings.bootstrap_partitions, settings.reference_partitions)
    progress = tqdm(total=draws, desc=f"power at {rows:,} rows", unit="draw")
    for seed in seeds:
        portfolio, walk = weekly_portfolio(seed, rows), gate.Walk(settings)
        rng = np.random.default_rng([seed, rows])
        for position, part in enumerate(portfolio.partitions(warm_up + draws // len(seeds))):
            judgements = {
                shift.name: gate.judge(
                    partition=part.key,
                    content=f"{seed} {part.key} {shift.name}",  # only names the draw
                    frame=portfolio.features(shift.apply(part.rows, rng), part.before),
                    features=tuple(feature for feature in watched() if feature.name not in shift.blind),
                    past=walk.past(part.key),
                    position=position,
                    settings=settings,
                    seed=seed,
                    detector=detector,
                    now=NOW,
                )
                for shift in (shifts() if position >= warm_up else shifts()[:1])
            }
            walk.add(judgements["none"])
            if position >= warm_up:
                for name, judgement in judgements.items():
                    rates[name] += Rate(int(not judgement.verdict.accepted), 1)
                progress.update()
    progress.close()
    return rates


@dataclass(frozen=True)
class Season:
    """What comes back every year: amounts that rise and fall by `swing`, and weeks before Christmas.

    Attributes:
        name: for people.
        swing: amounts times 1 + swing * sin, over the year.
        christmas: amounts times 1 + christmas from 25 November to 24 December,
        shopping: when shopping is so many times as common.
    """

    name: str
    swing: float
    christmas: float
    shopping: float

    def apply(self, rows: pl.DataFrame, monday: date, rng: np.random.Generator) -> pl.DataFrame:
        """Rows of the week as the season has them."""
        factor = 1 + self.swing * np.sin(2 * np.pi * (monday.timetuple().tm_yday - 80) / 365)
        if date(monday.year, 11, 22) <= monday <= date(monday.year, 12, 24):
            factor *= 1 + self.christmas
            kept = pl.col("category").str.starts_with("shopping") | pl.Series(rng.random(len(rows)) < 1 / self.shopping)
            rows = rows.filter(kept)
        return _dearer(rows, rng, factor)


SEASONS = (
    Season("none", 0.0, 0.0, 1.0),
    Season("amounts +/- 10 % over the year, +5 % before Christmas", 0.10, 0.05, 1.1),
    Season("amounts +/- 15 % over the year, +10 % before Christmas, shopping x1.3", 0.15, 0.10, 1.3),
    Season("amounts +/- 15 % over the year, +30 % before Christmas, shopping x1.6", 0.15, 0.30, 1.6),
)


def series_portfolio(seed: int) -> Portfolio:
    """A weekly portfolio of the size that is the seed's turn."""
    return weekly_portfolio(seed, SLOW_ROWS[seed % len(SLOW_ROWS)])


def slow_drift(rate: float, seed: int, weeks: int = 40, detector: statistics.Detector = statistics.scipy_detector) -> int | None:
    """In which week the gate first holds amounts that rise by `rate` a week from the end of the bootstrap on; None: in none.

    Nobody accepts anything. The walk ends with the first week that is held.
    """
    settings, portfolio = Drift(), series_portfolio(seed)
    first = settings.bootstrap_partitions
    rng = np.random.default_rng(seed)

    def frames() -> Iterator[tuple[str, pl.DataFrame]]:
        for place, part in enumerate(portfolio.partitions(first + weeks)):
            rows = _dearer(part.rows, rng, (1 + rate) ** max(0, place + 1 - first))
            yield part.key, portfolio.features(rows, part.before)

    verdicts: list[gate.Verdict] = []

    def stopped() -> Iterator[tuple[str, pl.DataFrame]]:
        for frame in frames():
            if verdicts and not verdicts[-1].is_accepted:
                return
            yield frame

    def see(verdict: gate.Verdict) -> None:
        verdicts.append(verdict)

    gate.walk_forward(stopped(), features=watched(), settings=settings, seed=seed, detector=detector, now=NOW, person=see)
    return None if verdicts[-1].is_accepted else len(verdicts) - first


def seasonal(season: Season, seed: int, detector: statistics.Detector = statistics.scipy_detector) -> tuple[Rate, Rate]:
    """How many weeks of a first and of a second year with a season are held, where a person accepts each that is held."""
    settings, portfolio, rng = Drift(), series_portfolio(seed), np.random.default_rng(seed)

    def frames() -> Iterator[tuple[str, pl.DataFrame]]:
        for part in portfolio.partitions(2 * YEAR_WEEKS):
            rows = season.apply(part.rows, date.fromisoformat(part.key), rng)
            yield part.key, portfolio.features(rows, part.before)

    def accept(verdict: gate.Verdict) -> gate.Decision | None:
        if verdict.accepted:
            return None
        return gate.Decision(action="accept", who="person", reason="it is the season", at=NOW)

    walked = gate.walk_forward(
        frames(), features=watched(), settings=settings, seed=seed, detector=detector, now=NOW, person=accept
    )
    held = [not judgement.verdict.accepted for judgement in walked]
    first, second = held[settings.bootstrap_partitions : YEAR_WEEKS], held[YEAR_WEEKS:]
    return Rate(sum(first), len(first)), Rate(sum(second), len(second))


def _dearer(rows: pl.DataFrame, _: np.random.Generator, factor: float) -> pl.DataFrame:
    return rows.with_columns((pl.col("amount_cents") * factor).round().cast(pl.Int64))


def _later(rows: pl.DataFrame, _: np.random.Generator) -> pl.DataFrame:
    day = pl.col("timestamp").dt.truncate("1d")
    within = (pl.col("timestamp") - day + pl.duration(hours=6)).dt.total_microseconds() % DAY_US
    return rows.with_columns(timestamp=day + pl.duration(microseconds=within))


def _doubled(rows: pl.DataFrame, rng: np.random.Generator, rank: int) -> pl.DataFrame:
    """As many rows as before, of which a category has twice as many: copies of its rows take the place of others."""
    name = rows["category"].value_counts(sort=True)["category"][rank]
    inside = (rows["category"] == name).to_numpy()
    own, others = np.flatnonzero(inside), np.flatnonzero(~inside)
    kept = rng.choice(others, len(others) - len(own), replace=False)
    return rows[np.sort(np.concatenate([own, own, kept]))]


def _new_category(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    renamed = pl.Series(rng.random(len(rows)) < 0.02)
    return rows.with_columns(category=pl.when(renamed).then(pl.lit("never seen")).otherwise("category"))


def _one_merchant(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Half of the rows move to the merchant of a row drawn at random; their amounts, times and cards stay."""
    moved = pl.Series(rng.random(len(rows)) < 0.5)
    to = rows.row(int(rng.integers(len(rows))), named=True)
    columns = ("merchant", "category", "merchant_latitude", "merchant_longitude")
    return rows.with_columns(pl.when(moved).then(pl.lit(to[column])).otherwise(column).alias(column) for column in columns)


def _nulls(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    missing = pl.Series(rng.random(len(rows)) < 0.05)
    return rows.with_columns(birth_date=pl.when(missing).then(None).otherwise("birth_date"))
