"""Population of the simulator: customers with their habits, terminals with their places and hours."""

from dataclasses import dataclass, fields
from datetime import date, timedelta
from itertools import pairwise
from typing import Self

import numpy as np

from fraud_core.simulator.config import (
    CATEGORIES,
    CATEGORY_CODE,
    CATEGORY_NAMES,
    FIRST_DAY,
    LOG_MEDIAN,
    ONLINE,
    SHARES,
    SPREAD,
    SimulatorConfig,
    day_number,
)
from fraud_core.simulator.draws import DAY, HOUR, Stream, pick, scaled
from fraud_core.units.arrays import Array

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


@dataclass(frozen=True)
class Rows:
    """Transactions before they get names: arrays of one length.

    `moment` is the local time in seconds since 1970, as a wall clock would count it; `kind` is 0 for a legitimate row, else
    1 + the position in `FraudKind`. `actor` is who pays in the holder's place, a number of its own in each campaign; 0 where
    that is the holder, or nothing tells.
    """

    moment: Array
    card: Array
    merchant: Array
    amount: Array
    kind: Array
    actor: Array

    @classmethod
    def of(cls, moment: Array, card: Array, merchant: Array, amount: Array, kind: int | Array, actor: int | Array = 0) -> Self:
        return cls(
            moment.astype(np.int64),
            card.astype(np.int32),
            merchant.astype(np.int32),
            amount.astype(np.float64),
            np.broadcast_to(np.int8(kind) if isinstance(kind, int) else kind, moment.shape).astype(np.int8),
            np.broadcast_to(actor, moment.shape).astype(np.int64),
        )

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        none = np.zeros(0)
        parts = [cls.of(none, none, none, none, 0), *parts]
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def take(self, which: Array) -> Self:
        return type(self)(*(getattr(self, f.name)[which] for f in fields(self)))


class Population:
    """Who pays, where, and for what: drawn from the seed alone. Merchants are numbered by category."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        rng = self.rng(Stream.POPULATION)
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
        self.city_scale = scaled(pull)

        every_category_twice = np.repeat(np.arange(len(CATEGORIES)), 2)
        others = rng.choice(len(CATEGORIES), merchants - len(every_category_twice), p=SHARES / SHARES.sum())
        self.merchant_category = np.sort(np.concatenate([every_category_twice, others])).astype(np.int8)
        city = pick(self.city_scale, rng, merchants)
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
        self.nearby_scale = scaled(weights)

    def _draw_cardholders(self, rng: np.random.Generator) -> None:
        cards = self.config.cardholders
        self.home_city = pick(self.city_scale, rng, cards)
        self.home = self.city_place[self.home_city] + rng.normal(0, 0.08, (cards, 2))
        age = 16 + 70 * rng.beta(1.7, 2.4, cards)
        self.birth_day = (day_number(self.config.epoch) - age * 365.25).astype(np.int64)
        activity = np.exp(rng.normal(0, 0.6, cards))
        self.activity = activity / activity.mean()
        self.activity_scale = scaled(activity)
        self.level = rng.normal(0, 0.25, cards)
        self.chronotype = np.rint(rng.normal(0, 1.3, cards) + (45 - age) / 25).astype(np.int64)
        self.trip_chance = 0.4 * rng.beta(1.0, 4.0, cards)
        frail = 1.0 + (age > 60)
        self.frailty_scale = scaled(frail * activity)

        taste = SHARES * rng.gamma(4.0, 0.25, (cards, len(CATEGORIES)))
        tilt = np.exp(rng.normal(0, 0.5, cards) - 0.012 * (age - 45))
        taste[:, ONLINE] *= tilt[:, None]
        taste /= taste.sum(axis=1, keepdims=True)
        self.taste = taste.astype(np.float32)
        self.taste_scale = scaled(taste)
        self.shifted_taste_scale = scaled(taste * self._boost(taste.mean(axis=0)))

    def _boost(self, mix: Array) -> Array:
        """What the shift multiplies each category's share with, given the mix of an average cardholder."""
        factors = np.ones(len(CATEGORIES))
        for name, factor in self.config.category_boost.items():
            share = mix[CATEGORY_CODE[name]]
            # In odds, so that the category's own share comes out `factor` times as large, as far as that is possible.
            wanted = min(factor * share, 0.99)
            factors[CATEGORY_CODE[name]] = wanted * (1 - share) / (share * (1 - wanted))
        if self.config.online_share is not None:
            online = (mix * factors)[ONLINE].sum() / (mix * factors).sum()
            wanted = self.config.online_share
            factors *= np.where(ONLINE, wanted / online, (1 - wanted) / (1 - online))
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
        return np.where(ONLINE[category], anywhere, self.nearby[city, category, near])

    def usual_merchant(self, category: Array, card: Array, city: Array, u_loyal: Array, u_slot: Array, u: Array) -> Array:
        """Where each holder goes: mostly to a favourite (never with `u_loyal` from 1 on), else within reach of the city."""
        slot = np.searchsorted(scaled(_SLOT_SHARES), u_slot, side="right")
        return np.where(u_loyal < _LOYALTY, self.favourites[category, slot, card], self.merchant_at(category, city, u))

    def regulars_of(self, merchant: int) -> Array:
        """Cards that have the merchant among their favourites."""
        return np.flatnonzero((self.favourites[self.merchant_category[merchant]] == merchant).any(axis=0))

    def trips(self, day: int) -> tuple[Array, Array]:
        """Of each card: whether it is away on the day, and in which city then."""
        cards = self.config.cardholders
        block, position = divmod(day, _TRIP_BLOCK)
        rng = self.rng(Stream.TRIPS, block)
        leaves = rng.random(cards) < self.trip_chance
        first, length = rng.integers(0, _TRIP_BLOCK - 1, cards), rng.integers(2, 8, cards)
        away = leaves & (first <= position) & (position < first + length)
        return away, pick(self.city_scale, rng, cards)


def habits_of(population: Population, day: int) -> Rows:
    """The legitimate transactions of a local day."""
    config = population.config
    rng = population.rng(Stream.HABITS, day)
    volume = config.transactions_per_day * (1 - config.fraud_rate) * _volume_factor(day)
    count = int(rng.poisson(volume))
    u_card, u_category, u_hour, u_second, u_loyal, u_slot, u_merchant = rng.random((7, count))
    z_amount = rng.standard_normal(count)

    card = np.searchsorted(population.activity_scale, u_card, side="right")
    taste_scale = population.shifted_taste_scale if config.shifted_on(day) else population.taste_scale
    category = (taste_scale[card] <= u_category[:, None]).sum(axis=1)
    second = (hour_of_rows(category, day, u_hour) + population.chronotype[card]) % 24 * HOUR + (u_second * HOUR).astype(np.int64)

    away, destination = population.trips(day)
    away = away[card]
    city = np.where(away, destination[card], population.home_city[card])
    merchant = population.usual_merchant(category, card, city, u_loyal + 1.0 * (away & ~ONLINE[category]), u_slot, u_merchant)
    amount = draw_amounts(category, z_amount + population.level[card] / SPREAD[category])
    return Rows.of(day * DAY + second, card, merchant, amount, 0)


def terminal_shares(population: Population) -> Array:
    """Chance of each merchant to be the next compromised: the same for all shops that have customers enough."""
    visits = np.where(ONLINE[population.merchant_category], 0.0, population.regular_visits)
    busy = visits >= np.median(visits[visits > 0]) / 2
    shares: Array = busy / busy.sum()
    return shares


def draw_terminals(population: Population, rng: np.random.Generator, count: int) -> Array:
    return pick(scaled(terminal_shares(population)), rng, count)


def draw_customers(population: Population, rng: np.random.Generator, terminals: Array) -> Array:
    """A regular customer of each terminal."""
    card, u = np.empty(len(terminals), dtype=np.int64), rng.random(len(terminals))
    for terminal in np.unique(terminals):
        mine = terminals == terminal
        regulars = population.regulars_of(int(terminal))
        card[mine] = regulars[(u[mine] * len(regulars)).astype(np.int64)]
    return card


# --- shifts and the frame -----------------------------------------------------------------------------------------------------


def shifted(population: Population, rows: Rows, category: Array) -> tuple[Rows, Array]:
    """Rows and categories with the population's shift; rows are ordered by day, and each day draws for itself."""
    config = population.config
    day = rows.moment // DAY
    shifted = np.full(len(day), True) if config.shift_from is None else day >= day_number(config.shift_from)
    second = (rows.moment % DAY + config.hour_shift * HOUR) % DAY
    moment = np.where(shifted, day * DAY + second, rows.moment)
    amount = np.where(shifted, rows.amount * config.amount_factor, rows.amount)
    merchant = rows.merchant
    if config.merchant_concentration or config.new_category:
        days, begins = np.unique(day, return_index=True)
        counts = np.diff([*begins, len(day)])
        draws = [population.rng(Stream.SHIFT, int(d)).random((2, n)) for d, n in zip(days, counts, strict=True)]
        u_merchant, u_category = np.concatenate([np.zeros((2, 0)), *draws], axis=1)
        one = int(np.argmax(population.regular_visits))
        merchant = np.where(shifted & (u_merchant < config.merchant_concentration), one, merchant).astype(np.int32)
        category = population.merchant_category[merchant]
        if config.new_category:
            category = np.where(shifted & (u_category < config.new_category_share), len(CATEGORIES), category)
    return Rows.of(moment, rows.card, merchant, amount, rows.kind, rows.actor), category


def _volume_factor(day: int) -> float:
    """Traffic of a day, relative to the year's mean."""
    today = FIRST_DAY + timedelta(days=day)
    peak = date(today.year if today.month > 6 else today.year - 1, 12, 20)
    off = (today - peak).days
    rise = _DECEMBER_RISE * max(0.0, 1 - (off / 16 if off > 0 else -off / 25))
    return _WEEKDAY_VOLUME[today.weekday()] * (1 + rise) / (1 + _DECEMBER_RISE * 20.5 / 365.25)


def hour_of_rows(category: Array, day: int, u: Array) -> Array:
    """A local hour for each category, as habits have it on the day."""
    weekend = (day + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    hours = np.array([np.roll(_HOURS[c.hours], int(weekend and c.hours != "opening")) for c in CATEGORIES])
    hour: Array = (scaled(hours)[category] <= u[:, None]).sum(axis=1)
    return hour


def draw_amounts(category: Array, z: Array) -> Array:
    """Amounts, log-normal by category, in currency units; z is standard normal."""
    amount: Array = np.exp(LOG_MEDIAN[category] + SPREAD[category] * z)
    return amount


def mixed(rng: np.random.Generator, count: int, **weights: float) -> Array:
    """Category codes drawn by weight."""
    scale = scaled(np.array([weights.get(name, 0.0) for name in CATEGORY_NAMES]))
    return pick(scale, rng, count)


def _kilometres(one: Array, other: Array) -> Array:
    """Distance on a flat map at the first one's latitude; good to a few percent within a country, which habits do not notice."""
    north = other[..., 0] - one[..., 0]
    east = (other[..., 1] - one[..., 1]) * np.cos(np.radians(one[..., 0]))
    distance: Array = _KM_PER_DEGREE * np.hypot(north, east)
    return distance
