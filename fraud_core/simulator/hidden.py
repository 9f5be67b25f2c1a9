"""Fraud that looks like any payment and only devices, BINs and networks show: device ring, BIN enumeration, account farm."""

import numpy as np

from fraud_core.simulator.config import ONLINE, SPREAD, FraudKind, kind_code
from fraud_core.simulator.draws import DAY, HOUR, pick, ragged_ranges, running_sum, scaled
from fraud_core.simulator.population import Population, Rows, draw_amounts, hour_of_rows
from fraud_core.units.arrays import Array

# Every payment here is one that the cardholder might have made online: category, merchant, hour and amount are as habits have it.
# What gives a campaign away is its actor alone, from which `signals` makes device, network, card numbers and accounts.

RING_CARDS, VISITS, RING_DAYS = (30, 51), (1, 3), 2
ATTEMPTS = (15, 36)
_GAP = 45.0  # seconds between two attempts, on average
ACCOUNTS, USES, OPENING_DAYS, FARM_DAYS = (18, 33), (1, 3), 3, 7
_CAMPAIGNS_A_DAY = 1 << 20


def device_ring(population: Population, rng: np.random.Generator, day: int, count: int) -> Rows:
    """Forty stolen cards are used at one device within two days, once or twice each; every one behind another address."""
    campaign, _ = ragged_ranges(rng.integers(*RING_CARDS, count))
    card = pick(population.activity_scale, rng, len(campaign))
    visit, _ = ragged_ranges(rng.integers(*VISITS, len(campaign)))
    card, campaign = card[visit], campaign[visit]
    on = day + rng.integers(0, RING_DAYS, len(card))
    return _purchases(population, rng, FraudKind.DEVICE_RING, card, on, actor_of(day, campaign))


def bin_enumeration(population: Population, rng: np.random.Generator, day: int, count: int) -> Rows:
    """Numbers under one BIN are tried within minutes, at many shops, from ever other devices and addresses; few are in use."""
    campaign, position = ragged_ranges(rng.integers(*ATTEMPTS, count))
    total = len(campaign)
    person = pick(population.activity_scale, rng, total)
    rows = _purchases(
        population, rng, FraudKind.BIN_ENUMERATION, person, np.full(total, day), actor_of(day, campaign), modest=True
    )
    begin = rows.moment[np.searchsorted(campaign, campaign)]  # the campaign's first attempt came at an hour as habits have it
    moment = begin + running_sum(rng.exponential(_GAP, total), position)
    return Rows.of(moment, rows.card, rows.merchant, rows.amount, rows.kind, rows.actor)


def account_farm(population: Population, rng: np.random.Generator, day: int, count: int) -> Rows:
    """Accounts opened behind one network prefix within days pay once or twice in the week, each with its own card and device."""
    campaign, _ = ragged_ranges(rng.integers(*ACCOUNTS, count))
    card = pick(population.activity_scale, rng, len(campaign))
    use, _ = ragged_ranges(rng.integers(*USES, len(campaign)))
    card, campaign = card[use], campaign[use]
    on = day + rng.integers(OPENING_DAYS, FARM_DAYS + 1, len(card))
    return _purchases(population, rng, FraudKind.ACCOUNT_FARM, card, on, actor_of(day, campaign))


def actor_of(day: int, campaign: Array) -> Array:
    """The number of who is behind each campaign that begins on a day: never 0, and once in a kind of fraud."""
    return day * _CAMPAIGNS_A_DAY + campaign + 1


def first_day_of(actor: Array) -> Array:
    """The day on which each actor's campaign began."""
    return actor // _CAMPAIGNS_A_DAY


def _purchases(
    population: Population,
    rng: np.random.Generator,
    kind: FraudKind,
    card: Array,
    day: Array,
    actor: Array,
    *,
    modest: bool = False,
) -> Rows:
    """One payment online for each card and day, as its holder has the habit; a modest one is in the cheaper half of these."""
    u_category, u_hour, u_second, u_loyal, u_slot, u_merchant = rng.random((6, len(card)))
    z = rng.standard_normal(len(card))
    taste = scaled(np.where(ONLINE, population.taste[card].astype(np.float64), 0.0))
    category = (taste <= u_category[:, None]).sum(axis=1)
    hour = np.empty(len(card), dtype=np.int64)
    for today in np.unique(day):
        then = day == today
        hour[then] = hour_of_rows(category[then], int(today), u_hour[then])
    second = ((hour + population.chronotype[card]) % 24 + u_second) * HOUR
    merchant = population.usual_merchant(category, card, population.home_city[card], u_loyal, u_slot, u_merchant)
    amount = draw_amounts(category, (-np.abs(z) if modest else z) + population.level[card] / SPREAD[category])
    return Rows.of(day * DAY + second, card, merchant, amount, kind_code(kind), actor)
