"""The built-in simulator: card transactions with habits, and fraud as fraud teams know it, out of a seed alone.

Everything is drawn per (seed, local day): the day's legitimate traffic on its own, and every fraud campaign from the day on
which it begins. A window therefore needs no other window: it draws its own days, and the campaigns that began in the few weeks
before it. Daily windows put together equal the monthly one, row by row.

The idea of campaigns (cards and terminals compromised for a time) is that of the Fraud Detection Handbook's simulator, Le Borgne
et al. 2022, chapter 3; the categories are those of the Sparkov data.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from enum import IntEnum, StrEnum
from itertools import pairwise
from typing import Any, Self
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fraud_core.local_time import utc_offset_us

Array = npt.NDArray[Any]

DAY = 86_400
HOUR = 3_600
FIRST_DAY = date(1970, 1, 1)


class FraudKind(StrEnum):
    """The kinds of fraud; the column `kind` carries their values."""

    CARD_TESTING = "card_testing"
    ACCOUNT_TAKEOVER = "account_takeover"
    SKIMMING = "skimming"
    COMPROMISED_MERCHANT = "compromised_merchant"
    BUST_OUT = "bust_out"


@dataclass(frozen=True)
class Category:
    """A merchant category.

    Attributes:
        name: as in the data.
        share: of the legitimate transactions of an average cardholder.
        online: whether the card is not present, so that the merchant's place says nothing.
        median: of a legitimate amount, in currency units.
        spread: standard deviation of the amount's logarithm.
        hours: which of _HOURS tells when people buy there.
    """

    name: str
    share: float
    online: bool
    median: float
    spread: float
    hours: str


CATEGORIES: tuple[Category, ...] = (
    Category("entertainment", 0.07, False, 32, 0.65, "evening"),
    Category("food_dining", 0.11, False, 27, 0.60, "meals"),
    Category("gas_transport", 0.13, False, 42, 0.40, "waking"),
    Category("grocery_net", 0.04, True, 55, 0.50, "browsing"),
    Category("grocery_pos", 0.14, False, 58, 0.55, "opening"),
    Category("health_fitness", 0.05, False, 42, 0.65, "opening"),
    Category("home", 0.07, False, 58, 0.70, "opening"),
    Category("kids_pets", 0.06, False, 40, 0.65, "opening"),
    Category("misc_net", 0.09, True, 22, 0.80, "browsing"),
    Category("misc_pos", 0.06, False, 28, 0.75, "opening"),
    Category("personal_care", 0.05, False, 30, 0.65, "opening"),
    Category("shopping_net", 0.10, True, 52, 0.75, "browsing"),
    Category("shopping_pos", 0.08, False, 55, 0.75, "opening"),
    Category("travel", 0.02, True, 160, 0.80, "browsing"),
)
_NAMES = [category.name for category in CATEGORIES]
_CODE = {name: code for code, name in enumerate(_NAMES)}
_ONLINE = np.array([category.online for category in CATEGORIES])
_SHARES = np.array([category.share for category in CATEGORIES])
_LOG_MEDIAN = np.log([category.median for category in CATEGORIES])
_SPREAD = np.array([category.spread for category in CATEGORIES])

# Weight of each local hour from 0 to 23, on working days; at weekends everything but shops' opening hours moves an hour later.
_HOURS: dict[str, tuple[float, ...]] = {
    "waking": (1, 1, 1, 1, 1, 2, 5, 8, 9, 7, 6, 6, 7, 6, 6, 7, 9, 10, 8, 6, 4, 3, 2, 1),
    "opening": (0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 1, 3, 6, 8, 9, 9, 9, 8, 8, 8, 9, 10, 9, 6, 4, 2, 1, 0.4),
    "meals": (1, 0.5, 0.3, 0.2, 0.2, 0.4, 2, 5, 6, 3, 3, 8, 12, 9, 4, 3, 4, 7, 12, 11, 7, 4, 2, 1.5),
    "evening": (4, 2.5, 1.5, 0.7, 0.3, 0.2, 0.3, 0.5, 1, 2, 3, 3, 4, 4, 4, 5, 6, 8, 10, 11, 11, 9, 7, 5),
    "browsing": (3, 1.5, 0.8, 0.5, 0.4, 0.6, 1.5, 3, 4, 5, 5, 5, 6, 6, 5, 5, 5, 6, 7, 9, 11, 11, 9, 6),
}
_WEEKDAY_VOLUME = (0.94, 0.92, 0.94, 0.98, 1.10, 1.14, 0.98)  # Monday first; mean 1
_DECEMBER_RISE = 0.15  # at its peak on 20 December; it begins on 25 November and is over on 5 January

_SLOTS = 3  # favourite merchants of a cardholder in each category
_SLOT_SHARES = np.array([0.60, 0.25, 0.15])
_LOYALTY = 0.80  # share of purchases at a favourite
_NEARBY = 8  # merchants of a category within reach of a city
_REACH_KM = 15.0
_KM_PER_DEGREE = 111.2
_TRIP_BLOCK = 14  # days; at most one trip in each


class _Stream(IntEnum):
    """Independent streams of random numbers, so that a change in one leaves the others as they were."""

    POPULATION = 1
    TRIPS = 2
    HABITS = 3
    SHIFT = 4
    CAMPAIGNS = 5  # and one more for each kind of fraud; keep this one last


class SimulatorConfig(BaseModel):
    """What is simulated: first the portfolio, then how it shifts (for demonstrations of drift)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(20, ge=0, description="Seed of every draw.")
    cardholders: int = Field(1_000, ge=10, le=2_000_000, description="Cards, one a person.")
    merchants: int = Field(800, ge=50, le=100_000, description="Merchants, each one terminal.")
    transactions_per_card_per_day: float = Field(0.8, gt=0, le=100, description="Mean, fraud included.")
    fraud_rate: float = Field(0.008, ge=0, le=0.5, description="Expected share of fraudulent transactions.")
    kinds: dict[FraudKind, float] = Field(
        default_factory=lambda: dict(zip(FraudKind, (3.0, 3.0, 2.0, 1.0, 2.0), strict=True)),
        description="Weight of each kind among the fraudulent transactions; a kind that is not named does not happen.",
    )
    epoch: date = Field(date(2020, 1, 1), ge=FIRST_DAY, description="Nothing happens before; ages are drawn on this day.")

    shift_from: date | None = Field(None, description="First local day on which what follows acts; if not given, it always does.")
    amount_factor: float = Field(1.0, gt=0, le=1_000, description="Every amount times this.")
    hour_shift: int = Field(0, ge=-23, le=23, description="Every transaction so many hours later, within its day.")
    category_boost: dict[str, float] = Field(
        default_factory=dict, description="How many times as likely as before a legitimate purchase is in a category."
    )
    new_category: str | None = Field(None, min_length=1, description="A category never seen before.")
    new_category_share: float = Field(0.05, gt=0, le=1, description="Share of transactions in the new category.")
    merchant_concentration: float = Field(0.0, ge=0, le=1, description="Share of transactions moved to one merchant.")
    online_share: float | None = Field(
        None, ge=0, le=1, description="Share of legitimate purchases online; if not given, 0.25 as habits have it."
    )

    @field_validator("kinds")
    @classmethod
    def _weights(cls, value: dict[FraudKind, float]) -> dict[FraudKind, float]:
        if not all(0 <= weight < np.inf for weight in value.values()):
            raise ValueError("weights of kinds of fraud are numbers from zero on")
        return value

    @field_validator("category_boost")
    @classmethod
    def _known_categories(cls, value: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(value) - set(_NAMES)):
            raise ValueError(f"there is no category {unknown[0]!r}; the simulator knows {', '.join(_NAMES)}")
        if not all(0 < factor < np.inf for factor in value.values()):
            raise ValueError("a category is boosted by a number above zero")
        return value

    @field_validator("new_category")
    @classmethod
    def _is_new(cls, value: str | None) -> str | None:
        if value in _CODE:
            raise ValueError(f"{value!r} is not new; boost it with category_boost instead")
        return value

    @model_validator(mode="after")
    def _some_kind(self) -> Self:
        if self.fraud_rate > 0 and not any(self.kinds.values()):
            raise ValueError("fraud_rate is above zero, but no kind of fraud has a weight; name one under kinds")
        return self

    @property
    def transactions_per_day(self) -> float:
        """Expected transactions a day, fraud included, over a year."""
        return self.cardholders * self.transactions_per_card_per_day

    def shifted_on(self, day: int) -> bool:
        """Whether the shifts act on a day (counted from 1970-01-01)."""
        return self.shift_from is None or day >= _day_number(self.shift_from)


def simulate(config: SimulatorConfig, start: datetime, end: datetime, zone: ZoneInfo) -> pl.DataFrame:
    """The transactions of a window, the same whether it is drawn alone or as a part of a longer one.

    Args:
        config: portfolio, fraud and shifts.
        start: begin of the window, with a time zone.
        end: its end, exclusive.
        zone: time zone of habits: hours, weekdays and days are local.

    Returns:
        Frame of n rows sorted by (timestamp, transaction_id): the canonical columns of `fraud_core.schema`, amounts in cents, and
        `kind` (null: legitimate), which is for analysis and must not reach a model. Coordinates are degrees.

    Raises:
        ValueError: the window is empty or its ends have no time zone.
    """
    if start.tzinfo is None or end.tzinfo is None or start >= end:
        raise ValueError("A window to simulate has a start before its end, both with a time zone.")
    first = max(_day_number(start.astimezone(zone).date()), _day_number(config.epoch))
    last = _day_number((end - timedelta(microseconds=1)).astimezone(zone).date())
    population = _Population(config)
    habits = [_habits(population, day) for day in range(first, last + 1)]
    rows = _Rows.concatenate([*habits, *_campaign_rows(population, first, last)])
    rows = rows.take(np.argsort(rows.moment // DAY, kind="stable"))  # the order within a day does not depend on the window
    category = population.merchant_category[rows.merchant]
    rows, category = _shift(population, rows, category)

    stamp = _instants(rows.moment, zone)
    inside = (stamp >= _microseconds(start)) & (stamp < _microseconds(end))
    return _frame(population, rows, category, stamp).filter(inside).sort("timestamp", "transaction_id")


@dataclass(frozen=True)
class _Rows:
    """Transactions before they get names: arrays of one length.

    `moment` is the local time in seconds since 1970, as a wall clock would count it; `kind` is 0 for a legitimate row, else
    1 + the position in `FraudKind`.
    """

    moment: Array
    card: Array
    merchant: Array
    amount: Array
    kind: Array

    @classmethod
    def of(cls, moment: Array, card: Array, merchant: Array, amount: Array, kind: int | Array) -> Self:
        return cls(
            moment.astype(np.int64),
            card.astype(np.int32),
            merchant.astype(np.int32),
            amount.astype(np.float64),
            np.broadcast_to(np.int8(kind) if isinstance(kind, int) else kind, moment.shape).astype(np.int8),
        )

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        none = np.zeros(0)
        parts = [cls.of(none, none, none, none, 0), *parts]
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def take(self, which: Array) -> Self:
        return type(self)(*(getattr(self, f.name)[which] for f in fields(self)))


class _Population:
    """Who pays, where, and for what: drawn from the seed alone. Merchants are numbered by category."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        rng = self.rng(_Stream.POPULATION)
        self._draw_places(rng)
        self._draw_cardholders(rng)
        self._draw_favourites(rng)

    def rng(self, stream: int, day: int = 0) -> np.random.Generator:
        """The generator of a stream on a day (counted from 1970-01-01)."""
        return np.random.default_rng([self.config.seed, stream, day])

    def _draw_places(self, rng: np.random.Generator) -> None:
        merchants = self.config.merchants
        cities = int(np.clip(merchants // 20, 8, 400))
        metros = np.column_stack([rng.uniform(31, 45, 8), rng.uniform(-118, -74, 8)])
        self.city_place = metros[rng.integers(0, 8, cities)] + rng.normal(0, 0.4, (cities, 2))
        self.city_population = np.clip(np.exp(rng.normal(10.3, 1.6, cities)), 300, 4_000_000).astype(np.int64)
        pull = self.city_population**0.6
        self.city_scale = _scale(pull)

        every_category_twice = np.repeat(np.arange(len(CATEGORIES)), 2)
        others = rng.choice(len(CATEGORIES), merchants - len(every_category_twice), p=_SHARES / _SHARES.sum())
        self.merchant_category = np.sort(np.concatenate([every_category_twice, others])).astype(np.int8)
        city = _pick(self.city_scale, rng, merchants)
        self.merchant_place = self.city_place[city] + rng.normal(0, 0.06, (merchants, 2))
        self.popularity = np.exp(rng.normal(0, 1.0, merchants))
        # One search serves all categories: within category c, cumulative popularity runs from c to c + 1.
        borders = np.searchsorted(self.merchant_category, np.arange(len(CATEGORIES) + 1))
        self.popularity_scale = np.empty(merchants)
        self.nearby = np.zeros((cities, len(CATEGORIES), _NEARBY), dtype=np.int32)
        weights = np.zeros((cities, len(CATEGORIES), _NEARBY), dtype=np.float32)
        for code, (low, high) in enumerate(pairwise(borders)):
            total = np.cumsum(self.popularity[low:high])
            self.popularity_scale[low:high] = code + total / total[-1]
            distance = _kilometres(self.city_place[:, None, :], self.merchant_place[None, low:high, :])
            pull = self.popularity[low:high] / (1 + distance / _REACH_KM) ** 2
            best = np.argsort(-pull, axis=1, kind="stable")[:, :_NEARBY]
            self.nearby[:, code, : best.shape[1]] = low + best
            weights[:, code, : best.shape[1]] = np.take_along_axis(pull, best, axis=1)
        self.nearby_scale = _scale(weights)

    def _draw_cardholders(self, rng: np.random.Generator) -> None:
        cards = self.config.cardholders
        self.home_city = _pick(self.city_scale, rng, cards)
        self.home = self.city_place[self.home_city] + rng.normal(0, 0.08, (cards, 2))
        age = 16 + 70 * rng.beta(1.7, 2.4, cards)
        self.birth_day = (_day_number(self.config.epoch) - age * 365.25).astype(np.int64)
        activity = np.exp(rng.normal(0, 0.6, cards))
        self.activity = activity / activity.mean()
        self.activity_scale = _scale(activity)
        self.level = rng.normal(0, 0.25, cards)
        self.chronotype = np.rint(rng.normal(0, 1.3, cards) + (45 - age) / 25).astype(np.int64)
        self.trip_chance = 0.4 * rng.beta(1.0, 4.0, cards)
        frail = 1.0 + (age > 60)
        self.frailty_scale = _scale(frail * activity)

        taste = _SHARES * rng.gamma(4.0, 0.25, (cards, len(CATEGORIES)))
        tilt = np.exp(rng.normal(0, 0.5, cards) - 0.012 * (age - 45))
        taste[:, _ONLINE] *= tilt[:, None]
        taste /= taste.sum(axis=1, keepdims=True)
        self.taste = taste.astype(np.float32)
        self.taste_scale = _scale(taste)
        self.shifted_taste_scale = _scale(taste * self._boost(taste.mean(axis=0)))

    def _boost(self, mix: Array) -> Array:
        """What the shift multiplies each category's share with, given the mix of an average cardholder."""
        factors = np.ones(len(CATEGORIES))
        for name, factor in self.config.category_boost.items():
            share = mix[_CODE[name]]
            # In odds, so that the category's own share comes out `factor` times as large, as far as that is possible.
            wanted = min(factor * share, 0.99)
            factors[_CODE[name]] = wanted * (1 - share) / (share * (1 - wanted))
        if self.config.online_share is not None:
            online = (mix * factors)[_ONLINE].sum() / (mix * factors).sum()
            wanted = self.config.online_share
            factors *= np.where(_ONLINE, wanted / online, (1 - wanted) / (1 - online))
        return factors

    def _draw_favourites(self, rng: np.random.Generator) -> None:
        cards = self.config.cardholders
        self.favourites = np.empty((len(CATEGORIES), _SLOTS, cards), dtype=np.int32)
        for code in range(len(CATEGORIES)):
            for slot in range(_SLOTS):
                self.favourites[code, slot] = self.merchant_at(np.full(cards, code), self.home_city, rng.random(cards))
        traffic = np.zeros(self.config.merchants)
        for slot, share in enumerate(_SLOT_SHARES):
            for code in range(len(CATEGORIES)):
                visits = self.activity * self.taste[:, code] * share
                traffic += np.bincount(self.favourites[code, slot], weights=visits, minlength=self.config.merchants)
        self.regular_visits = traffic * _LOYALTY * self.config.transactions_per_card_per_day

    def merchant_at(self, category: Array, city: Array, u: Array) -> Array:
        """A merchant of each category within reach of each city (anywhere if online), by popularity and distance."""
        near = (self.nearby_scale[city, category] <= u[:, None]).sum(axis=1)
        anywhere = np.minimum(np.searchsorted(self.popularity_scale, category + u, side="right"), len(self.popularity) - 1)
        return np.where(_ONLINE[category], anywhere, self.nearby[city, category, near])

    def regulars_of(self, merchant: int) -> Array:
        """Cards that have the merchant among their favourites."""
        return np.flatnonzero((self.favourites[self.merchant_category[merchant]] == merchant).any(axis=0))

    def trips(self, day: int) -> tuple[Array, Array]:
        """Of each card: whether it is away on the day, and in which city then."""
        cards = self.config.cardholders
        block, position = divmod(day, _TRIP_BLOCK)
        rng = self.rng(_Stream.TRIPS, block)
        leaves = rng.random(cards) < self.trip_chance
        first, length = rng.integers(0, _TRIP_BLOCK - 1, cards), rng.integers(2, 8, cards)
        away = leaves & (first <= position) & (position < first + length)
        return away, _pick(self.city_scale, rng, cards)


def _habits(population: _Population, day: int) -> _Rows:
    """The legitimate transactions of a local day."""
    config = population.config
    rng = population.rng(_Stream.HABITS, day)
    volume = config.transactions_per_day * (1 - config.fraud_rate) * _volume_factor(day)
    count = int(rng.poisson(volume))
    u_card, u_category, u_hour, u_second, u_loyal, u_slot, u_merchant = rng.random((7, count))
    z_amount = rng.standard_normal(count)

    card = np.searchsorted(population.activity_scale, u_card, side="right")
    taste_scale = population.shifted_taste_scale if config.shifted_on(day) else population.taste_scale
    category = (taste_scale[card] <= u_category[:, None]).sum(axis=1)
    second = (_hour_of(category, day, u_hour) + population.chronotype[card]) % 24 * HOUR + (u_second * HOUR).astype(np.int64)

    away, destination = population.trips(day)
    away = away[card]
    city = np.where(away, destination[card], population.home_city[card])
    slot = np.searchsorted(_scale(_SLOT_SHARES), u_slot, side="right")
    loyal = (u_loyal < _LOYALTY) & (_ONLINE[category] | ~away)
    merchant = np.where(loyal, population.favourites[category, slot, card], population.merchant_at(category, city, u_merchant))
    amount = _amount(category, z_amount + population.level[card] / _SPREAD[category])
    return _Rows.of(day * DAY + second, card, merchant, amount, 0)


# --- fraud ------------------------------------------------------------------------------------------------------------------
# A campaign is drawn whole from the generator of its kind and first day. Ranges (low, high) are of integers, high excluded.

_PROBES, _HITS = (5, 13), (1, 3)
_TAKEOVER_ROWS = (3, 8)
_SKIMMED_CARDS, _SKIMMED_ROWS = (3, 8), (2, 5)
_SKIM_DAYS, _SKIM_PAUSE, _SKIM_USE_DAYS = 10, 12, 16
_COMPROMISED_DAYS = 28
_BUST_OUT_ROWS, _BUST_OUT_DAYS = (14, 23), (28, 43)


def _card_testing(population: _Population, rng: np.random.Generator, day: int, count: int) -> _Rows:
    """A stolen number is probed with small online payments, a minute or two apart; once it works, one or two large ones."""
    probes = rng.integers(*_PROBES, count)
    campaign, position = _ragged(probes + rng.integers(*_HITS, count))
    card = _pick(population.activity_scale, rng, count)
    shop = population.merchant_at(_mix(rng, count, misc_net=3, shopping_net=2, grocery_net=1), card * 0, rng.random(count))
    begin = day * DAY + (_hour_of(_mix(rng, count, misc_net=1), day, rng.random(count)) + rng.random(count)) * HOUR

    total = len(campaign)
    is_probe = position < probes[campaign]
    gap = np.where(is_probe, 20 + rng.exponential(80, total), rng.uniform(10 * 60, 5 * HOUR, total))
    moment = begin[campaign] + _running_sum(gap, position)
    target = population.merchant_at(_mix(rng, total, shopping_net=6, misc_net=2, travel=1), card[campaign] * 0, rng.random(total))
    small = np.exp(rng.uniform(np.log(0.4), np.log(3), total))
    large = np.exp(rng.normal(np.log(420), 0.5, total))
    return _Rows.of(
        moment,
        card[campaign],
        np.where(is_probe, shop[campaign], target),
        np.where(is_probe, small, large),
        _kind_code(FraudKind.CARD_TESTING),
    )


def _account_takeover(population: _Population, rng: np.random.Generator, day: int, count: int) -> _Rows:
    """Somebody else uses the account for one to three days: mostly by night, far from home, for more, and for other things."""
    size = rng.integers(*_TAKEOVER_ROWS, count)
    nights = rng.integers(1, 4, count)
    campaign, position = _ragged(size)
    card = _pick(population.frailty_scale, rng, count)
    place = _pick(population.city_scale, rng, count)

    total = len(campaign)
    category = _mix(rng, total, shopping_net=7, misc_net=4, shopping_pos=4, travel=2, home=2, grocery_pos=2, entertainment=1)
    by_night = rng.random(total) < 0.75
    hour = np.where(by_night, 22 + 7 * rng.random(total), _hour_of(category, day, rng.random(total)) + rng.random(total))
    moment = (day + position * nights[campaign] // size[campaign]) * DAY + hour * HOUR
    amount = _amount(category, rng.standard_normal(total) * 0.8) * np.exp(rng.normal(np.log(8), 0.5, total))
    merchant = population.merchant_at(category, place[campaign], rng.random(total))
    return _Rows.of(moment, card[campaign], merchant, amount, _kind_code(FraudKind.ACCOUNT_TAKEOVER))


def _skimming(population: _Population, rng: np.random.Generator, day: int, count: int) -> _Rows:
    """A terminal is tampered with for ten days; cards that paid there are copied, and used elsewhere weeks later."""
    victims = rng.integers(*_SKIMMED_CARDS, count)
    terminal = np.repeat(_terminals(population, rng, count), victims)
    card = _customers(population, rng, terminal)
    category = population.merchant_category[terminal]
    cards = len(card)
    visit = (day + rng.integers(0, _SKIM_DAYS, cards)) * DAY
    visit += ((_hour_of(category, day, rng.random(cards)) + rng.random(cards)) * HOUR).astype(np.int64)
    visit_amount = _amount(category, rng.standard_normal(cards) + population.level[card] / _SPREAD[category])
    visits = _Rows.of(visit, card, terminal, visit_amount, 0)

    victim, _ = _ragged(rng.integers(*_SKIMMED_ROWS, cards))
    total = len(victim)
    used_on = (day + _SKIM_PAUSE + rng.integers(0, _SKIM_USE_DAYS, cards))[victim] + rng.integers(0, 2, total)
    elsewhere = np.where(rng.random(cards) < 0.2, population.home_city[card], _pick(population.city_scale, rng, cards))
    category = _mix(rng, total, shopping_pos=7, gas_transport=5, grocery_pos=5, misc_pos=3)
    moment = used_on * DAY + (_hour_of(category, day, rng.random(total)) + rng.random(total)) * HOUR
    amount = _amount(category, rng.standard_normal(total) * 0.8) * np.exp(rng.normal(np.log(5), 0.4, total))
    merchant = population.merchant_at(category, elsewhere[victim], rng.random(total))
    uses = _Rows.of(moment, card[victim], merchant, amount, _kind_code(FraudKind.SKIMMING))
    return _Rows.concatenate([visits, uses])


def _compromised_merchant(population: _Population, rng: np.random.Generator, day: int, count: int) -> _Rows:
    """For four weeks most of what a terminal charges its usual customers is fraud; nothing else about it is unusual."""
    terminals = _terminals(population, rng, count)
    sizes = rng.poisson(_COMPROMISED_DAYS * _compromised_rows_per_day(population)[terminals])
    terminal = np.repeat(terminals, sizes)
    total = len(terminal)
    card = _customers(population, rng, terminal)
    category = population.merchant_category[terminal]
    moment = (day + rng.integers(0, _COMPROMISED_DAYS, total)) * DAY
    moment = moment + (_hour_of(category, day, rng.random(total)) + rng.random(total)) * HOUR
    amount = _amount(category, rng.standard_normal(total) + population.level[card] / _SPREAD[category])
    amount *= np.exp(rng.normal(np.log(1.2), 0.3, total))
    return _Rows.of(moment, card, terminal, amount, _kind_code(FraudKind.COMPROMISED_MERCHANT))


def _bust_out(population: _Population, rng: np.random.Generator, day: int, count: int) -> _Rows:
    """The holder means not to pay: for four to six weeks, near home and by day, amounts grow from the ordinary to the limit."""
    size, span = rng.integers(*_BUST_OUT_ROWS, count), rng.integers(*_BUST_OUT_DAYS, count)
    campaign, position = _ragged(size)
    card = _pick(population.activity_scale, rng, count)
    limit = np.exp(rng.normal(np.log(1_300), 0.4, count))

    total = len(campaign)
    progress = (position + rng.random(total)) / size[campaign]
    category = _mix(rng, total, shopping_pos=4, shopping_net=4, grocery_pos=3, home=3, misc_pos=2, misc_net=2, travel=1)
    moment = (day + (progress * span[campaign]).astype(np.int64)) * DAY
    moment = moment + (_hour_of(category, day, rng.random(total)) + rng.random(total)) * HOUR
    begin = np.exp(_LOG_MEDIAN[category] + population.level[card[campaign]])
    amount = begin * (limit[campaign] / begin) ** np.sqrt(progress) * np.exp(rng.normal(0, 0.35, total))
    merchant = population.merchant_at(category, population.home_city[card[campaign]], rng.random(total))
    return _Rows.of(moment, card[campaign], merchant, amount, _kind_code(FraudKind.BUST_OUT))


@dataclass(frozen=True)
class _Campaign:
    """How campaigns of a kind are drawn.

    Attributes:
        draw: population, generator, first day, number of campaigns -> their rows.
        rows: expected fraudulent rows of one campaign.
        days: rows lie on the first day and fewer than this many days after it.
    """

    draw: Callable[[_Population, np.random.Generator, int, int], _Rows]
    rows: Callable[[_Population], float]
    days: int


_CAMPAIGNS: dict[FraudKind, _Campaign] = {
    FraudKind.CARD_TESTING: _Campaign(_card_testing, lambda _: _mean(_PROBES) + _mean(_HITS), 2),
    FraudKind.ACCOUNT_TAKEOVER: _Campaign(_account_takeover, lambda _: _mean(_TAKEOVER_ROWS), 4),
    FraudKind.SKIMMING: _Campaign(
        _skimming, lambda _: _mean(_SKIMMED_CARDS) * _mean(_SKIMMED_ROWS), _SKIM_PAUSE + _SKIM_USE_DAYS + 1
    ),
    FraudKind.COMPROMISED_MERCHANT: _Campaign(
        _compromised_merchant,
        lambda population: float(_COMPROMISED_DAYS * np.dot(_compromised_rows_per_day(population), _terminal_shares(population))),
        _COMPROMISED_DAYS,
    ),
    FraudKind.BUST_OUT: _Campaign(_bust_out, lambda _: _mean(_BUST_OUT_ROWS), _BUST_OUT_DAYS[1]),
}


def _campaign_rows(population: _Population, first: int, last: int) -> Iterator[_Rows]:
    """Rows of all campaigns that lie on the days from first to last, in the order of kind and first day."""
    config = population.config
    weight = sum(config.kinds.values())
    for kind, campaign in _CAMPAIGNS.items():
        if not config.fraud_rate or not config.kinds.get(kind):
            continue
        rows_per_day = config.transactions_per_day * config.fraud_rate * config.kinds[kind] / weight
        rate = rows_per_day / campaign.rows(population)
        for day in range(max(first - campaign.days + 1, _day_number(config.epoch)), last + 1):
            rng = population.rng(_Stream.CAMPAIGNS + _kind_code(kind), day)
            if count := int(rng.poisson(rate)):
                rows = campaign.draw(population, rng, day, count)
                rows = rows.take((rows.moment >= first * DAY) & (rows.moment < (last + 1) * DAY))
                yield rows


def _terminal_shares(population: _Population) -> Array:
    """Chance of each merchant to be the next compromised: the same for all shops that have customers enough."""
    visits = np.where(_ONLINE[population.merchant_category], 0.0, population.regular_visits)
    busy = visits >= np.median(visits[visits > 0]) / 2
    shares: Array = busy / busy.sum()
    return shares


def _terminals(population: _Population, rng: np.random.Generator, count: int) -> Array:
    return _pick(_scale(_terminal_shares(population)), rng, count)


def _compromised_rows_per_day(population: _Population) -> Array:
    """Fraudulent rows a day of each merchant while compromised: twice its regular traffic, within bounds."""
    return np.clip(2.0 * population.regular_visits, 0.25, 3.0)


def _customers(population: _Population, rng: np.random.Generator, terminals: Array) -> Array:
    """A regular customer of each terminal."""
    card, u = np.empty(len(terminals), dtype=np.int64), rng.random(len(terminals))
    for terminal in np.unique(terminals):
        mine = terminals == terminal
        regulars = population.regulars_of(int(terminal))
        card[mine] = regulars[(u[mine] * len(regulars)).astype(np.int64)]
    return card


# --- shifts and the frame -----------------------------------------------------------------------------------------------------


def _shift(population: _Population, rows: _Rows, category: Array) -> tuple[_Rows, Array]:
    """Rows and categories with the population's shift; rows are ordered by day, and each day draws for itself."""
    config = population.config
    day = rows.moment // DAY
    shifted = np.full(len(day), True) if config.shift_from is None else day >= _day_number(config.shift_from)
    second = (rows.moment % DAY + config.hour_shift * HOUR) % DAY
    moment = np.where(shifted, day * DAY + second, rows.moment)
    amount = np.where(shifted, rows.amount * config.amount_factor, rows.amount)
    merchant = rows.merchant
    if config.merchant_concentration or config.new_category:
        days, begins = np.unique(day, return_index=True)
        counts = np.diff([*begins, len(day)])
        draws = [population.rng(_Stream.SHIFT, int(d)).random((2, n)) for d, n in zip(days, counts, strict=True)]
        u_merchant, u_category = np.concatenate([np.zeros((2, 0)), *draws], axis=1)
        one = int(np.argmax(population.regular_visits))
        merchant = np.where(shifted & (u_merchant < config.merchant_concentration), one, merchant).astype(np.int32)
        category = population.merchant_category[merchant]
        if config.new_category:
            category = np.where(shifted & (u_category < config.new_category_share), len(CATEGORIES), category)
    return _Rows.of(moment, rows.card, merchant, amount, rows.kind), category


def _frame(population: _Population, rows: _Rows, category: Array, stamp: Array) -> pl.DataFrame:
    """Rows of whole local days, with names and types. An id counts the day's rows in time, and tells nothing else."""
    config = population.config
    day = rows.moment // DAY
    number = np.empty(len(day), dtype=np.int64)
    number[np.lexsort((stamp, day))] = np.arange(len(day)) - np.searchsorted(day, day)
    names = [*_NAMES, config.new_category or ""]
    card, merchant = rows.card, rows.merchant
    home, place = population.home[card], population.merchant_place[merchant]
    kinds = pl.Series(list(FraudKind), dtype=pl.String)
    dates = pl.Series(day.astype(np.int32)).cast(pl.Date).dt.strftime("%Y%m%d")
    return pl.DataFrame(
        {
            "transaction_id": dates + "-" + pl.Series(number).cast(pl.String).str.zfill(8),
            "timestamp": pl.Series(stamp).cast(pl.Datetime("us", "UTC")),
            "amount_cents": np.maximum(np.rint(rows.amount * 100), 1).astype(np.int64),
            "label": rows.kind > 0,
            "card": _named("C", config.cardholders).gather(card),
            "merchant": _named("M", config.merchants).gather(merchant),
            "category": pl.Series(names, dtype=pl.String).gather(category),
            "birth_date": pl.Series(population.birth_day[card].astype(np.int32)).cast(pl.Date),
            "home_latitude": np.round(home[:, 0], 4),
            "home_longitude": np.round(home[:, 1], 4),
            "merchant_latitude": np.round(place[:, 0], 4),
            "merchant_longitude": np.round(place[:, 1], 4),
            "city_population": population.city_population[population.home_city[card]],
            "kind": kinds.gather(pl.Series(rows.kind.astype(np.int64) - 1).replace(-1, None)),
        }
    )


def _named(letter: str, count: int) -> pl.Series:
    return letter + pl.Series(np.arange(count)).cast(pl.String).str.zfill(6)


# --- small pieces -------------------------------------------------------------------------------------------------------------


def _day_number(day: date) -> int:
    return (day - FIRST_DAY).days


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _instants(moment: Array, zone: ZoneInfo) -> Array:
    """Microseconds UTC of local wall-clock seconds. A clock time that the spring change skips is taken an hour on or back."""
    wall = moment * 1_000_000
    stamp = wall - utc_offset_us(wall - utc_offset_us(wall, zone), zone)
    day = moment // DAY
    days = np.unique(day)
    midnights = [
        [_microseconds(datetime.combine(FIRST_DAY + timedelta(int(d) + step), time(), tzinfo=zone)) for d in days]
        for step in (0, 1)
    ]
    begins, ends = np.array(midnights, dtype=np.int64).reshape(2, -1)[:, np.searchsorted(days, day)]
    inside: Array = np.clip(stamp, begins, ends - 1)  # where the clock changes at midnight, a day must keep its rows
    return inside


def _volume_factor(day: int) -> float:
    """Traffic of a day, relative to the year's mean."""
    today = FIRST_DAY + timedelta(days=day)
    peak = date(today.year if today.month > 6 else today.year - 1, 12, 20)
    off = (today - peak).days
    rise = _DECEMBER_RISE * max(0.0, 1 - (off / 16 if off > 0 else -off / 25))
    return _WEEKDAY_VOLUME[today.weekday()] * (1 + rise) / (1 + _DECEMBER_RISE * 20.5 / 365.25)


def _hour_of(category: Array, day: int, u: Array) -> Array:
    """A local hour for each category, as habits have it on the day."""
    weekend = (day + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    hours = np.array([np.roll(_HOURS[c.hours], int(weekend and c.hours != "opening")) for c in CATEGORIES])
    hour: Array = (_scale(hours)[category] <= u[:, None]).sum(axis=1)
    return hour


def _amount(category: Array, z: Array) -> Array:
    """Amounts, log-normal by category, in currency units; z is standard normal."""
    amount: Array = np.exp(_LOG_MEDIAN[category] + _SPREAD[category] * z)
    return amount


def _mix(rng: np.random.Generator, count: int, **weights: float) -> Array:
    """Category codes drawn by weight."""
    scale = _scale(np.array([weights.get(name, 0.0) for name in _NAMES]))
    return _pick(scale, rng, count)


def _pick(scale: Array, rng: np.random.Generator, count: int) -> Array:
    """Positions drawn from a cumulative scale that ends at 1."""
    return np.searchsorted(scale, rng.random(count), side="right")


def _scale(weights: Array) -> Array:
    """Cumulative weights along the last axis: exactly 1 from the last positive weight on, so that no u below 1 passes it."""
    total = np.cumsum(weights, axis=-1)
    scale: Array = total / total[..., -1:]
    return scale


def _ragged(sizes: Array) -> tuple[Array, Array]:
    """For groups of these sizes, laid end to end: the group of each row, and the row's position in its group."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    return group, np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _running_sum(steps: Array, position: Array) -> Array:
    """Sums within each group, zero at its first row."""
    total = np.cumsum(np.where(position == 0, 0.0, steps))
    sums: Array = total - total[np.arange(len(total)) - position]
    return sums


def _kind_code(kind: FraudKind) -> int:
    return 1 + list(FraudKind).index(kind)


def _mean(bounds: tuple[int, int]) -> float:
    """Mean of `rng.integers(*bounds)`."""
    return (bounds[0] + bounds[1] - 1) / 2


def _kilometres(one: Array, other: Array) -> Array:
    """Distance on a flat map at the first one's latitude; good to a few percent within a country, which habits do not notice."""
    north = other[..., 0] - one[..., 0]
    east = (other[..., 1] - one[..., 1]) * np.cos(np.radians(one[..., 0]))
    distance: Array = _KM_PER_DEGREE * np.hypot(north, east)
    return distance
