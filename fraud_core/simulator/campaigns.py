"""Fraud campaigns of the simulator: card testing, account takeover, skimming, compromised merchants, bust-out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fraud_core.simulator.config import LOG_MEDIAN, SPREAD, FraudKind, day_number, kind_code
from fraud_core.simulator.draws import DAY, HOUR, Stream, mean_of, pick, ragged_ranges, running_sum
from fraud_core.simulator.hidden import (
    ACCOUNTS,
    ATTEMPTS,
    FARM_DAYS,
    RING_CARDS,
    RING_DAYS,
    USES,
    VISITS,
    account_farm,
    bin_enumeration,
    device_ring,
)
from fraud_core.simulator.population import (
    Population,
    Rows,
    draw_amounts,
    draw_customers,
    draw_terminals,
    hour_of_rows,
    mixed,
    terminal_shares,
)
from fraud_core.units.arrays import Array

# A campaign is drawn whole from the generator of its kind and first day. Ranges (low, high) are of integers, high excluded.

_PROBES, _HITS = (5, 13), (1, 3)
_TAKEOVER_ROWS = (3, 8)
_SKIMMED_CARDS, _SKIMMED_ROWS = (3, 8), (2, 5)
_SKIM_DAYS, _SKIM_PAUSE, _SKIM_USE_DAYS = 10, 12, 16
_COMPROMISED_DAYS = 28
_BUST_OUT_ROWS, _BUST_OUT_DAYS = (14, 23), (28, 43)


def _card_testing(population: Population, rng: np.random.Generator, day: int, count: int) -> Rows:
    """A stolen number is probed with small online payments, a minute or two apart; once it works, one or two large ones."""
    probes = rng.integers(*_PROBES, count)
    campaign, position = ragged_ranges(probes + rng.integers(*_HITS, count))
    card = pick(population.activity_scale, rng, count)
    shop = population.merchant_at(mixed(rng, count, misc_net=3, shopping_net=2, grocery_net=1), card * 0, rng.random(count))
    begin = day * DAY + (hour_of_rows(mixed(rng, count, misc_net=1), day, rng.random(count)) + rng.random(count)) * HOUR

    total = len(campaign)
    is_probe = position < probes[campaign]
    gap = np.where(is_probe, 20 + rng.exponential(80, total), rng.uniform(10 * 60, 5 * HOUR, total))
    moment = begin[campaign] + running_sum(gap, position)
    target = population.merchant_at(
        mixed(rng, total, shopping_net=6, misc_net=2, travel=1), card[campaign] * 0, rng.random(total)
    )
    small = np.exp(rng.uniform(np.log(0.4), np.log(3), total))
    large = np.exp(rng.normal(np.log(420), 0.5, total))
    return Rows.of(
        moment,
        card[campaign],
        np.where(is_probe, shop[campaign], target),
        np.where(is_probe, small, large),
        kind_code(FraudKind.CARD_TESTING),
    )


def _account_takeover(population: Population, rng: np.random.Generator, day: int, count: int) -> Rows:
    """Somebody else uses the account for one to three days: mostly by night, far from home, for more, and for other things."""
    size = rng.integers(*_TAKEOVER_ROWS, count)
    nights = rng.integers(1, 4, count)
    campaign, position = ragged_ranges(size)
    card = pick(population.frailty_scale, rng, count)
    place = pick(population.city_scale, rng, count)

    total = len(campaign)
    category = mixed(rng, total, shopping_net=7, misc_net=4, shopping_pos=4, travel=2, home=2, grocery_pos=2, entertainment=1)
    by_night = rng.random(total) < 0.75
    hour = np.where(by_night, 22 + 7 * rng.random(total), hour_of_rows(category, day, rng.random(total)) + rng.random(total))
    moment = (day + position * nights[campaign] // size[campaign]) * DAY + hour * HOUR
    amount = draw_amounts(category, rng.standard_normal(total) * 0.8) * np.exp(rng.normal(np.log(8), 0.5, total))
    merchant = population.merchant_at(category, place[campaign], rng.random(total))
    return Rows.of(moment, card[campaign], merchant, amount, kind_code(FraudKind.ACCOUNT_TAKEOVER))


def _skimming(population: Population, rng: np.random.Generator, day: int, count: int) -> Rows:
    """A terminal is tampered with for ten days; cards that paid there are copied, and used elsewhere weeks later."""
    victims = rng.integers(*_SKIMMED_CARDS, count)
    terminal = np.repeat(draw_terminals(population, rng, count), victims)
    card = draw_customers(population, rng, terminal)
    category = population.merchant_category[terminal]
    cards = len(card)
    visit = (day + rng.integers(0, _SKIM_DAYS, cards)) * DAY
    visit += ((hour_of_rows(category, day, rng.random(cards)) + rng.random(cards)) * HOUR).astype(np.int64)
    visit_amount = draw_amounts(category, rng.standard_normal(cards) + population.level[card] / SPREAD[category])
    visits = Rows.of(visit, card, terminal, visit_amount, 0)

    victim, _ = ragged_ranges(rng.integers(*_SKIMMED_ROWS, cards))
    total = len(victim)
    used_on = (day + _SKIM_PAUSE + rng.integers(0, _SKIM_USE_DAYS, cards))[victim] + rng.integers(0, 2, total)
    elsewhere = np.where(rng.random(cards) < 0.2, population.home_city[card], pick(population.city_scale, rng, cards))
    category = mixed(rng, total, shopping_pos=7, gas_transport=5, grocery_pos=5, misc_pos=3)
    moment = used_on * DAY + (hour_of_rows(category, day, rng.random(total)) + rng.random(total)) * HOUR
    amount = draw_amounts(category, rng.standard_normal(total) * 0.8) * np.exp(rng.normal(np.log(5), 0.4, total))
    merchant = population.merchant_at(category, elsewhere[victim], rng.random(total))
    uses = Rows.of(moment, card[victim], merchant, amount, kind_code(FraudKind.SKIMMING))
    return Rows.concatenate([visits, uses])


def _compromised_merchant(population: Population, rng: np.random.Generator, day: int, count: int) -> Rows:
    """For four weeks most of what a terminal charges its usual customers is fraud; nothing else about it is unusual."""
    terminals = draw_terminals(population, rng, count)
    sizes = rng.poisson(_COMPROMISED_DAYS * _compromised_rows_per_day(population)[terminals])
    terminal = np.repeat(terminals, sizes)
    total = len(terminal)
    card = draw_customers(population, rng, terminal)
    category = population.merchant_category[terminal]
    moment = (day + rng.integers(0, _COMPROMISED_DAYS, total)) * DAY
    moment = moment + (hour_of_rows(category, day, rng.random(total)) + rng.random(total)) * HOUR
    amount = draw_amounts(category, rng.standard_normal(total) + population.level[card] / SPREAD[category])
    amount *= np.exp(rng.normal(np.log(1.2), 0.3, total))
    return Rows.of(moment, card, terminal, amount, kind_code(FraudKind.COMPROMISED_MERCHANT))


def _bust_out(population: Population, rng: np.random.Generator, day: int, count: int) -> Rows:
    """The holder means not to pay: for four to six weeks, near home and by day, amounts grow from the ordinary to the limit."""
    size, span = rng.integers(*_BUST_OUT_ROWS, count), rng.integers(*_BUST_OUT_DAYS, count)
    campaign, position = ragged_ranges(size)
    card = pick(population.activity_scale, rng, count)
    limit = np.exp(rng.normal(np.log(1_300), 0.4, count))

    total = len(campaign)
    progress = (position + rng.random(total)) / size[campaign]
    category = mixed(rng, total, shopping_pos=4, shopping_net=4, grocery_pos=3, home=3, misc_pos=2, misc_net=2, travel=1)
    moment = (day + (progress * span[campaign]).astype(np.int64)) * DAY
    moment = moment + (hour_of_rows(category, day, rng.random(total)) + rng.random(total)) * HOUR
    begin = np.exp(LOG_MEDIAN[category] + population.level[card[campaign]])
    amount = begin * (limit[campaign] / begin) ** np.sqrt(progress) * np.exp(rng.normal(0, 0.35, total))
    merchant = population.merchant_at(category, population.home_city[card[campaign]], rng.random(total))
    return Rows.of(moment, card[campaign], merchant, amount, kind_code(FraudKind.BUST_OUT))


@dataclass(frozen=True)
class _Campaign:
    """How campaigns of a kind are drawn.

    Attributes:
        draw: population, generator, first day, number of campaigns -> their rows.
        rows: expected fraudulent rows of one campaign.
        days: rows lie on the first day and fewer than this many days after it.
    """

    draw: Callable[[Population, np.random.Generator, int, int], Rows]
    rows: Callable[[Population], float]
    days: int


_CAMPAIGNS: dict[FraudKind, _Campaign] = {
    FraudKind.CARD_TESTING: _Campaign(_card_testing, lambda _: mean_of(_PROBES) + mean_of(_HITS), 2),
    FraudKind.ACCOUNT_TAKEOVER: _Campaign(_account_takeover, lambda _: mean_of(_TAKEOVER_ROWS), 4),
    FraudKind.SKIMMING: _Campaign(
        _skimming, lambda _: mean_of(_SKIMMED_CARDS) * mean_of(_SKIMMED_ROWS), _SKIM_PAUSE + _SKIM_USE_DAYS + 1
    ),
    FraudKind.COMPROMISED_MERCHANT: _Campaign(
        _compromised_merchant,
        lambda population: float(_COMPROMISED_DAYS * np.dot(_compromised_rows_per_day(population), terminal_shares(population))),
        _COMPROMISED_DAYS,
    ),
    FraudKind.BUST_OUT: _Campaign(_bust_out, lambda _: mean_of(_BUST_OUT_ROWS), _BUST_OUT_DAYS[1]),
    FraudKind.DEVICE_RING: _Campaign(device_ring, lambda _: mean_of(RING_CARDS) * mean_of(VISITS), RING_DAYS + 1),
    FraudKind.BIN_ENUMERATION: _Campaign(bin_enumeration, lambda _: mean_of(ATTEMPTS), 2),
    FraudKind.ACCOUNT_FARM: _Campaign(account_farm, lambda _: mean_of(ACCOUNTS) * mean_of(USES), FARM_DAYS + 1),
}


def campaign_rows(population: Population, first: int, last: int) -> Iterator[Rows]:
    """Rows of all campaigns that lie on the days from first to last, in the order of kind and first day."""
    config = population.config
    weight = sum(config.kinds.values())
    for kind, campaign in _CAMPAIGNS.items():
        if not config.fraud_rate or not config.kinds.get(kind):
            continue
        rows_per_day = config.transactions_per_day * config.fraud_rate * config.kinds[kind] / weight
        rate = rows_per_day / campaign.rows(population)
        for day in range(max(first - campaign.days + 1, day_number(config.epoch)), last + 1):
            rng = population.rng(Stream.CAMPAIGNS + kind_code(kind), day)
            if count := int(rng.poisson(rate)):
                rows = campaign.draw(population, rng, day, count)
                rows = rows.take((rows.moment >= first * DAY) & (rows.moment < (last + 1) * DAY))
                yield rows


def _compromised_rows_per_day(population: Population) -> Array:
    """Fraudulent rows a day of each merchant while compromised: twice its regular traffic, within bounds."""
    return np.clip(2.0 * population.regular_visits, 0.25, 3.0)
