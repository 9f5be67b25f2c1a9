"""Signals of simulated payments: device, IP address, e-mail, card number and BIN, CVV, 3-D Secure, currency, declined, refunded.

Every signal is a hash of the payment it belongs to, and of whom it belongs to: a person's telephone of the person and the year,
say. Nothing is drawn in a row's place, so a signal is the same whatever window asks for it, and a source without signals draws
what it always drew.

Nobody's: card numbers begin with 9, which no issuer of cards has; IP addresses are of private and shared ranges (RFC 1918 and
6598); e-mail addresses end in `.example` (RFC 2606).
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import polars as pl

from fraud_core.simulator.config import ONLINE, FraudKind, OnlineConfig, kind_code
from fraud_core.simulator.draws import DAY, HOUR, below, hashed, ragged_ranges, scaled, uniform
from fraud_core.simulator.hidden import OPENING_DAYS, first_day_of
from fraud_core.simulator.population import Population, Rows
from fraud_core.units.arrays import Array

CURRENCIES = ("USD", "EUR", "JPY")
_WORTH = np.array([1.0, 1.085, 0.00668])  # of one unit, in the first one
_SWING, _SWING_DAYS = np.array([0.0, 0.03, 0.05]), np.array([365.0, 410.0, 530.0])
WHOLE_UNITS = np.array([False, False, True])  # the yen has no cents

REFUND_DAYS = 14  # a refund comes within so many days

_ISSUERS = 12
_BIN_SCALE = scaled(1 / np.arange(1, _ISSUERS + 1) ** 0.7)
_CHAINS, _IN_CHAIN = 3, 0.3  # chains whose shops' tills pay through one gateway
_CARDS_A_DESK, _SITES = 25, 8  # a day; where its network leaves
_RELAYS = 12  # homes that a ring pays from
_CARRIERS, _EXITS = 4, 4  # mobile carriers, and /24s of each
_AT_OFFICE = 40  # persons
_NEIGHBOURS = 8  # households a /24
_UNFAMILIAR = 5  # times as often is the CVV of a virtual number mistyped
_YOUNG_MINUTES = 14 * 24 * 60.0  # a young account is between a minute and two weeks old, most of them minutes or hours
_COUNTRIES = np.array(["US", "CA", "MX", "GB"])
_COUNTRY_SCALE = np.array([0.95, 0.97, 0.985, 1.0])
_DOMAINS = ("post", "mail", "letterbox", "quickmail", "webpost", "inbox", "mailhaven", "postline")
_DOMAIN_SCALE = np.array([0.34, 0.58, 0.75, 0.85, 0.91, 0.95, 0.98, 1.0])
_COLOURS = ("amber", "azure", "coral", "cyan", "ebony", "green", "indigo", "ivory", "lilac", "ochre", "olive", "ruby", "sepia")
_ANIMALS = ("badger", "crane", "dove", "falcon", "finch", "heron", "ibis", "lark", "lynx", "otter", "raven", "robin", "seal")


class _Draw(IntEnum):
    """What is drawn: each of its own, so that one says nothing about another."""

    PAYMENT = 1
    ISSUER = 2
    NUMBER = 3
    VIRTUAL = 4
    APP = 5
    DEVICE = 6
    OWN_DEVICE = 7
    WHICH_DEVICE = 8
    TILL = 9
    DESK = 10
    NETWORK = 11
    ADDRESS = 12
    CARRIER = 13
    OFFICE = 14
    NAME = 15
    DOMAIN = 16
    YOUNG = 17
    OTHER_ADDRESS = 18
    OPENED = 19
    COUNTRY = 20
    SHIPPING = 21
    OUTCOME = 22
    SECURE = 23
    STORED = 24
    CVV = 25
    CURRENCY = 26
    ATTEMPTS = 27
    OUTAGE = 28
    REFUND = 29
    HOUSEHOLD = 30
    ACCOMPLICE = 31
    LEASE = 32


@dataclass(frozen=True)
class Signals:
    """What payments carry beside `Rows`: arrays of one length, and texts as Polars has them."""

    texts: pl.DataFrame
    opened: Array  # local seconds since 1970; below zero: so many seconds before the payment; NaN: none
    currency: Array

    def take(self, which: Array) -> "Signals":
        return Signals(self.texts[which], self.opened[which], self.currency[which])


def worth(currency: Array, day: Array) -> Array:
    """What one unit of each currency is worth in the first one on a day (counted from 1970-01-01)."""
    swing = _SWING[currency] * np.sin(2 * np.pi * day / _SWING_DAYS[currency])
    value: Array = np.round(_WORTH[currency] * (1 + swing), 6)
    return value


def refunds_of(population: Population, purchases: Rows) -> Rows:
    """What is given back of legitimate payments: negative amounts, 1 to 14 days later, of the same card and merchant."""
    online, payment = _online(population), _payment(population.config.seed, purchases)
    wanted = uniform(payment, _Draw.OUTCOME) >= 1 - online.refund_share  # at the other end are those that were declined
    wanted &= uniform(payment, _Draw.VIRTUAL) >= online.virtual_share  # those numbers are of no use a second time
    given, payment = purchases.take(wanted), payment[wanted]
    part = np.where(uniform(payment, _Draw.REFUND) < 0.75, 1.0, 0.1 + 0.8 * uniform(payment, _Draw.REFUND, 1))
    day = given.moment // DAY + 1 + below(REFUND_DAYS, payment, _Draw.REFUND, 2)
    moment = day * DAY + ((8 + 11 * uniform(payment, _Draw.REFUND, 3)) * HOUR).astype(np.int64)
    currency = _currency(population, given.merchant)
    drifted = worth(currency, day) / worth(currency, given.moment // DAY)  # what was paid in yen comes back in as many
    return Rows.of(moment, given.card, given.merchant, -given.amount * part * drifted, 0)


def with_signals(population: Population, rows: Rows) -> tuple[Rows, Signals]:
    """Rows with the failed attempts before them, and what each carries. Rows of negative amount are refunds."""
    drawing = _Drawing(population, rows)
    attempts = drawing.failed_attempts()
    copied, position = ragged_ranges(attempts)
    gap = (20 + 160 * uniform(drawing.payment[copied], _Draw.ATTEMPTS, 1)).astype(np.int64)
    moment = np.maximum(rows.moment[copied] - (1 + position) * gap, rows.moment[copied] // DAY * DAY)
    signals, tried = drawing.signals(), rows.take(copied)
    failed = signals.take(copied)
    texts = failed.texts.with_columns(cvv=pl.lit("N"), authorised=pl.lit("declined"))
    tried = Rows.of(moment, tried.card, tried.merchant, tried.amount, tried.kind, tried.actor)
    every = Signals(
        pl.concat([signals.texts, texts]),
        np.concatenate([signals.opened, failed.opened]),
        np.concatenate([signals.currency, failed.currency]),
    )
    return Rows.concatenate([rows, tried]), every


def _online(population: Population) -> OnlineConfig:
    assert population.config.online is not None
    return population.config.online


def _payment(seed: int, rows: Rows) -> Array:
    """What all draws of a payment begin with."""
    return hashed(seed, _Draw.PAYMENT, rows.card, rows.moment, rows.merchant)


def _currency(population: Population, merchant: Array) -> Array:
    """A merchant's currency: shops take the first; online, every sixth is abroad."""
    u = uniform(population.config.seed, _Draw.CURRENCY, merchant)
    abroad = np.where(u < 0.11, 1, np.where(u < 0.17, 2, 0))
    return np.where(ONLINE[population.merchant_category[merchant]], abroad, 0)


def _households(population: Population) -> Array:
    """Each cardholder's household: one to a few of the same city."""
    city = population.home_city
    order = np.argsort(city, kind="stable")
    alone = uniform(population.config.seed, _Draw.HOUSEHOLD, np.arange(len(order))) < 0.55
    moved = np.diff(city[order], prepend=-1) != 0
    household = np.empty(len(order), dtype=np.int64)
    household[order] = np.cumsum(alone | moved) - 1
    return household


class _Drawing:
    """The draws of some rows that several signals share."""

    def __init__(self, population: Population, rows: Rows) -> None:
        self.population, self.rows, self.config = population, rows, _online(population)
        self.seed = population.config.seed
        self.payment = _payment(self.seed, rows)
        households = _households(population)
        self.household, self.households = households[rows.card], int(households.max()) + 1
        self.day = rows.moment // DAY
        self.is_refund = rows.amount < 0
        self.remote = ONLINE[population.merchant_category[rows.merchant]]
        self.ring, self.enumeration, self.farm, testing, takeover = (
            rows.kind == kind_code(kind)
            for kind in (
                FraudKind.DEVICE_RING,
                FraudKind.BIN_ENUMERATION,
                FraudKind.ACCOUNT_FARM,
                FraudKind.CARD_TESTING,
                FraudKind.ACCOUNT_TAKEOVER,
            )
        )
        self.testing, self.takeover = testing & self.remote, takeover & self.remote
        self.hidden = self.ring | self.enumeration | self.farm
        self.stolen = self.hidden | self.testing | self.takeover
        # Older kinds of fraud have no actor: somebody holds the stolen card for a fortnight.
        fortnight = hashed(self.seed, _Draw.ACCOMPLICE, rows.kind, rows.card, self.day // 14)
        self.actor = np.where(self.hidden, hashed(self.seed, _Draw.ACCOMPLICE, rows.kind, rows.actor), fortnight)
        self.in_app = uniform(self.seed, _Draw.APP, rows.card, rows.merchant) < 0.4
        self.issuer = np.searchsorted(_BIN_SCALE, uniform(self.seed, _Draw.ISSUER, rows.card), side="right")
        under = np.searchsorted(_BIN_SCALE, uniform(self.actor, _Draw.ISSUER), side="right")
        self.issuer = np.where(self.enumeration, under, self.issuer)
        is_desk = uniform(self.payment, _Draw.DESK) < self.config.shared_device_share
        self.at_desk = is_desk & self.remote & ~self.in_app & ~self.stolen
        young = uniform(self.payment, _Draw.YOUNG) < self.config.young_account_share
        self.is_young = (young & ~self.farm & ~self.takeover) | self.testing
        virtual = uniform(self.payment, _Draw.VIRTUAL) < self.config.virtual_share
        self.is_virtual = virtual & self.remote & ~self.stolen & (rows.amount > 0)
        stored = uniform(self.seed, _Draw.STORED, rows.card, rows.merchant) < np.where(self.in_app, 0.5, 0.15)
        self.is_checked = self.remote & (~stored | self.enumeration | self.testing) & ~self.is_refund
        self.outcome = uniform(self.payment, _Draw.OUTCOME)

    # --- failed checks

    def failed_attempts(self) -> Array:
        """How often the CVV of each legitimate payment was wrong before it was right."""
        u = uniform(self.payment, _Draw.ATTEMPTS)
        share = self.config.failed_check_share * np.where(self.is_virtual, _UNFAMILIAR, 1)
        usual = np.where(u < share, 1 + (u < share / 4), 0)
        hour = self.rows.moment % DAY / HOUR
        which = (self.seed, _Draw.OUTAGE, self.issuer, self.day)
        begin = 7 + 12 * uniform(*which, 1)
        out = (uniform(*which) < self.config.outages / 30) & (begin <= hour) & (hour < begin + 2 + 4 * uniform(*which, 2))
        attempts = np.where(out & (u < 0.8), 1 + below(4, self.payment, _Draw.ATTEMPTS, 2), usual)
        return np.where(self.is_checked & (self.rows.kind == 0), attempts, 0)

    def _checks(self) -> tuple[Array, Array, Array]:
        """Codes of 3-D Secure and CVV results (-1: none), and whether the issuer declined."""
        u_secure, u_cvv = uniform(self.payment, _Draw.SECURE), uniform(self.payment, _Draw.CVV)
        declined = self.outcome < self.config.declined_share
        right = np.where(self.testing, u_cvv >= 0.3, u_cvv >= 0.015)  # some shops take a payment for all that
        hit = self.enumeration & (u_cvv < 0.07)
        right = np.where(self.enumeration, hit | (u_cvv > 0.97), right)
        declined = np.where(self.enumeration, ~hit, declined | (self.testing & ~right))
        secure = np.searchsorted([0.56, 0.94, 0.99, 1.0], u_secure, side="right")
        secure = np.where(declined & (u_secure > 0.8), 3, secure)
        secure = np.where(self.testing, 0, secure)  # tried where nobody asks
        paid = ~self.is_refund
        return np.where(self.remote & paid, secure, -1), np.where(self.is_checked, right, -1), declined & paid

    # --- numbers

    def _card_numbers(self) -> Array:
        """16 digits, valid by Luhn: BIN, account, check digit. Cards are replaced every two to four years."""
        card = self.rows.card
        period = 730 + below(730, self.seed, _Draw.NUMBER, card)
        generation = (self.day + below(1_460, self.seed, _Draw.NUMBER, card, 1)) // period
        own = hashed(self.seed, _Draw.NUMBER, card, generation, 2)
        once = self.enumeration | self.is_virtual
        account = np.where(once, hashed(self.payment, _Draw.NUMBER), own) % np.uint64(10**9)
        first = (910_000 + 7_043 * self.issuer) * 10**9 + account.astype(np.int64)
        digits = first[:, None] // 10 ** np.arange(15) % 10
        doubled = digits[:, ::2] * 2
        total = digits[:, 1::2].sum(axis=1) + (doubled - 9 * (doubled > 9)).sum(axis=1)
        number: Array = first * 10 + -total % 10
        return number

    # --- devices and networks

    def _devices(self) -> Array:
        """64 bits for each device; 0 where there is none."""
        card, merchant = self.rows.card, self.rows.merchant
        of = (self.seed, _Draw.DEVICE)
        household = self.household
        u = uniform(self.payment, _Draw.WHICH_DEVICE)
        telephone = hashed(*of, 1, card, self._generation(_Draw.OWN_DEVICE, card, 400, 700)[0])
        laptop = hashed(*of, 2, card, self._generation(_Draw.OWN_DEVICE, card, 700, 900)[0])
        family = hashed(*of, 3, household, self._generation(_Draw.OWN_DEVICE, household, 900, 900)[0])
        device = np.where(self.in_app, np.where(u < 0.85, telephone, family), np.where(u < 0.55, laptop, family))
        fresh = uniform(self.payment, _Draw.DEVICE) < self.config.fresh_device_share
        device = np.where(fresh, hashed(self.payment, _Draw.OWN_DEVICE), device)
        desk = self._desks()
        # Stands come and go: that a device is new and takes many cards is nothing bad by itself.
        stand = hashed(*of, 4, desk, self._generation(_Draw.DESK, desk, 12, 40)[0])
        device = np.where(self.at_desk, stand, device)
        till = np.where(self._chains() >= 0, hashed(*of, 5, self._chains()), hashed(*of, 6, merchant))
        device = np.where(self.remote, device, till)
        device = np.where(self.enumeration, hashed(self.payment, _Draw.OWN_DEVICE), device)
        device = np.where(self.farm, hashed(self.actor, _Draw.DEVICE, card), device)
        device = np.where(self.ring | self.testing | self.takeover, hashed(self.actor, _Draw.DEVICE), device)
        return np.where(self.is_refund, np.uint64(0), device)

    def _addresses(self) -> Array:
        """IPv4 addresses as whole numbers; 0 where there is none."""
        card, merchant = self.rows.card, self.rows.merchant
        hour, weekday = self.rows.moment % DAY // HOUR, (self.day + 3) % 7
        u = uniform(self.payment, _Draw.NETWORK)
        home = self._home_address(self.household)
        carrier = below(_CARRIERS, self.seed, _Draw.CARRIER, card)
        exit_ = below(_EXITS * 16, self.payment, _Draw.CARRIER)
        mobile = _ip(100, 64 + carrier, exit_ // 16, 10 + exit_ % 16)
        office = below(max(1, len(self.population.home) // _AT_OFFICE), self.seed, _Draw.OFFICE, card)
        at_work = (weekday < 5) & (hour >= 8) & (hour < 18) & (u > 0.6)
        address = np.where(at_work, _ip(172, 16 + office // 256 % 8, office % 256, 1), home)
        is_mobile = u < np.where(self.in_app, 1.5, 0.5) * self.config.mobile_share
        address = np.where(is_mobile, mobile, address)
        # Who orders for others sits at any of a call centre's sites, or walks about with a tablet.
        site = self._desks() * _SITES + below(_SITES, self.payment, _Draw.DESK, 1)
        address = np.where(self.at_desk & ~is_mobile, _ip(172, 24 + site // 256 % 4, site % 256, 1), address)
        mall = np.where(self._chains() >= 0, 65_000 + self._chains(), merchant // 4)
        address = np.where(self.remote, address, _ip(172, 28 + mall // 65_536 % 4, mall // 256 % 256, mall % 256))
        # Behind ever another home, whose router somebody rents out, or behind a dozen; or behind one, for all an actor does.
        rented = hashed(self.actor, _Draw.ADDRESS, below(_RELAYS, self.payment, _Draw.ADDRESS, 1))
        relay = np.where(self.enumeration, hashed(self.payment, _Draw.ADDRESS), rented)
        relay = np.where(self.testing | self.takeover, hashed(self.actor, _Draw.ADDRESS), relay)
        address = np.where(self.stolen, self._home_address(below(self.households, relay)), address)
        farm = self._home_address(below(self.households, self.actor, _Draw.NETWORK)) // 256 * 256
        farm = farm + 2 + below(250, self.actor, _Draw.ADDRESS, card, 2)  # among neighbours who know nothing of it
        address = np.where(self.farm, farm, address)
        return np.where(self.is_refund, 0, address)

    def _home_address(self, household: Array) -> Array:
        """Of a household's line: from a /24 that it shares with its neighbours, another one every few weeks."""
        network = household // _NEIGHBOURS * 40_503 % 65_536
        lease = self._generation(_Draw.LEASE, household, 7, 60)[0]
        return _ip(10, network // 256, network % 256, 2 + below(250, self.seed, _Draw.LEASE, household, lease, 1))

    def _desks(self) -> Array:
        """The call centre that a merchant's orders by telephone go through."""
        remote = self.population.config.online_share or 0.25
        a_day = self.population.config.transactions_per_day * remote * 0.6 * self.config.shared_device_share
        return below(max(1, round(a_day / _CARDS_A_DESK)), self.seed, _Draw.DESK, self.rows.merchant)

    def _chains(self) -> Array:
        """The chain that a merchant belongs to, or -1."""
        u = uniform(self.seed, _Draw.TILL, self.rows.merchant)
        return np.where(u < _IN_CHAIN, (u / _IN_CHAIN * _CHAINS).astype(np.int64), -1)

    def _generation(self, draw: _Draw, owner: Array, shortest: int, more: int) -> tuple[Array, Array]:
        """Of what everybody replaces now and then, each at a period of its own: which one it is, and the day it is from."""
        period = shortest + below(more, self.seed, draw, owner, shortest)
        phase = below(1 << 20, self.seed, draw, owner, shortest, 1) % period
        generation = (self.day + phase) // period
        return generation, generation * period - phase

    # --- accounts

    def _accounts(self) -> tuple[pl.Series, Array]:
        """E-mail addresses, null where there is none, and when the account was opened (see `Signals`)."""
        card, people = self.rows.card, len(self.population.home)
        # Stolen cards are used with accounts that were somebody else's, or with young ones, as anybody's are.
        buyer = np.where(self.enumeration, self.payment, hashed(self.actor, card))
        bought = (self.ring | self.enumeration) & ~self.is_young
        owner = np.where(bought, below(people, buyer, _Draw.ACCOMPLICE), card)
        name, domain = hashed(self.seed, _Draw.NAME, owner), uniform(self.seed, _Draw.DOMAIN, owner)
        digits = owner.astype(np.int64)
        # Of young accounts some have another address; all do that are for stolen cards.
        other = self.is_young & (self.stolen | (uniform(self.payment, _Draw.OTHER_ADDRESS) < 0.4))
        source = np.where(self.testing, self.actor, np.where(self.ring, buyer, self.payment))
        name = np.where(other, hashed(source, _Draw.NAME), name)
        domain = np.where(other, uniform(source, _Draw.DOMAIN), domain)
        digits = np.where(other, below(100_000, source, _Draw.OTHER_ADDRESS), digits)
        # A farm's addresses are of a kind: one name with ever other digits, at one provider.
        name = np.where(self.farm, hashed(self.actor, _Draw.NAME), name)
        domain = np.where(self.farm, uniform(self.actor, _Draw.DOMAIN), domain)
        digits = np.where(self.farm, below(100_000, self.actor, _Draw.OTHER_ADDRESS, card), digits)
        which = np.searchsorted(_DOMAIN_SCALE, domain, side="right")
        words = (name % np.uint64(len(_COLOURS) * len(_ANIMALS))).astype(np.int64)
        local = _gather([f"{colour}.{animal}" for colour in _COLOURS for animal in _ANIMALS], words)
        host = _gather([f"@{domain}.example" for domain in _DOMAINS], which)
        email = local + pl.Series(digits).cast(pl.String) + host

        opened = self._generation(_Draw.OPENED, owner, 300, 1_500)[1] * DAY + below(DAY, self.seed, _Draw.OPENED, owner, 2)
        begin = first_day_of(self.rows.actor) + below(OPENING_DAYS, self.actor, _Draw.OPENED, card)
        opened = np.where(self.farm, begin * DAY + below(DAY, self.actor, _Draw.OPENED, card, 1), opened).astype(np.float64)
        opened = np.where(self.is_young, -np.rint(60 * _YOUNG_MINUTES ** uniform(source, _Draw.OPENED, 3)), opened)
        has = self.remote & ~self.is_refund
        return _where(has, email), np.where(has, opened, np.nan)

    # --- all

    def signals(self) -> Signals:
        """What each row carries."""
        secure, cvv, declined = self._checks()
        email, opened = self._accounts()
        device, address = self._devices(), self._addresses()
        country = np.searchsorted(_COUNTRY_SCALE, uniform(self.seed, _Draw.COUNTRY, self.rows.card), side="right")
        elsewhere = uniform(self.payment, _Draw.SHIPPING) < np.where(self.takeover, 0.25, 0.05)
        sent = np.searchsorted(_COUNTRY_SCALE, uniform(self.payment, _Draw.SHIPPING, 1), side="right")
        sent = np.where(elsewhere, np.where(sent == country, (sent + 1) % len(_COUNTRIES), sent), country)
        has = self.remote & ~self.is_refund
        channel = np.where(self.remote, np.where(self.in_app, 2, 1), 0)
        texts = pl.DataFrame(
            {
                "card": pl.Series(self._card_numbers()).cast(pl.String),
                "device": _where(device != 0, _device_names(device)),
                "ip": _where(address != 0, _dotted(address)),
                "email": email,
                "channel": _gather(["pos", "web", "app"], channel),
                "three_ds": _gather(["none", "authenticated", "attempted", "failed", None], secure),
                "cvv": _gather(["N", "M", None], cvv),
                "billing_country": _gather([*_COUNTRIES, None], np.where(has, country, -1)),
                "shipping_country": _gather([*_COUNTRIES, None], np.where(has, sent, -1)),
                "authorised": _gather(["approved", "declined"], declined.astype(np.int64)),
            }
        )
        return Signals(texts, opened, _currency(self.population, self.rows.merchant))


def _ip(first: Array | int, second: Array | int, third: Array | int, fourth: Array | int) -> Array:
    address: Array = ((np.asarray(first) * 256 + second) * 256 + third) * 256 + fourth
    return address


def _dotted(address: Array) -> pl.Series:
    parts = [pl.Series(address >> shift & 255).cast(pl.String) for shift in (24, 16, 8, 0)]
    return parts[0] + "." + parts[1] + "." + parts[2] + "." + parts[3]


def _device_names(device: Array) -> pl.Series:
    """`d-` and letters: 50 of the bits, in words of letters alone, which nobody takes for a card number."""
    letters = np.array(list("abcdefghijkmnpqrstuvwxyz23456789"))
    at = (device[:, None] >> (np.arange(10, dtype=np.uint64) * np.uint64(5))) & np.uint64(31)
    codes = letters[at.astype(np.int64)].astype("U1")
    return "d-" + pl.Series(np.ascontiguousarray(codes).view("U10").ravel(), dtype=pl.String)


def _gather(names: list[str | None] | list[str], at: Array) -> pl.Series:
    """Names by position; -1 is the last one."""
    series = pl.Series(names, dtype=pl.String)
    return series.gather(pl.Series(np.where(at < 0, len(names) - 1, at).astype(np.int64)))


def _where(condition: Array, texts: pl.Series) -> pl.Series:
    return pl.select(pl.when(pl.Series(condition)).then(texts)).to_series()
