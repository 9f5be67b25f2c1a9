"""Configuration of the simulator: sizes, shares, seeds, and the kinds of fraud and category that it knows."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

FIRST_DAY = date(1970, 1, 1)


class FraudKind(StrEnum):
    """The kinds of fraud; the column `kind` carries their values."""

    CARD_TESTING = "card_testing"
    ACCOUNT_TAKEOVER = "account_takeover"
    SKIMMING = "skimming"
    COMPROMISED_MERCHANT = "compromised_merchant"
    BUST_OUT = "bust_out"
    # Only devices, BINs and networks show these; they need `[simulator.online]`. New kinds come last: codes stay what they are.
    DEVICE_RING = "device_ring"
    BIN_ENUMERATION = "bin_enumeration"
    ACCOUNT_FARM = "account_farm"


ONLINE_KINDS = (FraudKind.DEVICE_RING, FraudKind.BIN_ENUMERATION, FraudKind.ACCOUNT_FARM)
_USUAL_WEIGHTS = {
    FraudKind.CARD_TESTING: 3.0,
    FraudKind.ACCOUNT_TAKEOVER: 3.0,
    FraudKind.SKIMMING: 2.0,
    FraudKind.COMPROMISED_MERCHANT: 1.0,
    FraudKind.BUST_OUT: 2.0,
}


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
CATEGORY_NAMES = [category.name for category in CATEGORIES]
CATEGORY_CODE = {name: code for code, name in enumerate(CATEGORY_NAMES)}
ONLINE = np.array([category.online for category in CATEGORIES])
SHARES = np.array([category.share for category in CATEGORIES])
LOG_MEDIAN = np.log([category.median for category in CATEGORIES])
SPREAD = np.array([category.spread for category in CATEGORIES])


class OnlineConfig(BaseModel):
    """What legitimate payments carry beside the standard columns, and how often that looks like fraud. Shares lie in 0..1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    declined_share: float = Field(0.02, ge=0, le=0.5, description="Legitimate payments that lack funds, or are over a limit.")
    failed_check_share: float = Field(
        0.03, ge=0, le=0.2, description="Payments with a CVV check before which the holder mistypes it: an attempt of its own."
    )
    outages: float = Field(
        1.2, ge=0, le=30, description="Times a month that an issuer's CVV checks fail for some hours, on average of a BIN."
    )
    refund_share: float = Field(0.015, ge=0, le=0.4, description="Legitimate payments that are given back, whole or in part.")
    shared_device_share: float = Field(
        0.12, ge=0, le=1, description="Payments online at a device of many cards: call centres, tablets of shops."
    )
    fresh_device_share: float = Field(0.05, ge=0, le=1, description="Payments online by a device never seen before, nor again.")
    mobile_share: float = Field(0.35, ge=0, le=1, description="Payments online through one of few addresses of a mobile carrier.")
    young_account_share: float = Field(0.12, ge=0, le=1, description="Payments online with an account of up to two weeks.")
    virtual_share: float = Field(0.15, ge=0, le=1, description="Payments online with a number that the issuer made for one use.")


class SimulatorConfig(BaseModel):
    """What is simulated: first the portfolio, then how it shifts (for demonstrations of drift)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(20, ge=0, description="Seed of every draw.")
    cardholders: int = Field(1_000, ge=10, le=2_000_000, description="Cards, one a person.")
    merchants: int = Field(800, ge=50, le=100_000, description="Merchants, each one terminal.")
    transactions_per_card_per_day: float = Field(0.8, gt=0, le=100, description="Mean, fraud included.")
    fraud_rate: float = Field(0.008, ge=0, le=0.5, description="Expected share of fraudulent transactions.")
    kinds: dict[FraudKind, float] = Field(
        default_factory=lambda: dict(_USUAL_WEIGHTS),
        description="Weight of each kind among the fraudulent transactions; a kind that is not named does not happen.",
    )
    epoch: date = Field(date(2020, 1, 1), ge=FIRST_DAY, description="Nothing happens before; ages are drawn on this day.")

    online: OnlineConfig | None = Field(
        None,
        exclude_if=lambda given: given is None,  # what a source without it is, it stays: its fingerprint, too
        description="Whether payments carry devices, addresses, checks, currencies, declined attempts and refunds.",
    )

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
        if unknown := sorted(set(value) - set(CATEGORY_NAMES)):
            raise ValueError(f"there is no category {unknown[0]!r}; the simulator knows {', '.join(CATEGORY_NAMES)}")
        if not all(0 < factor < np.inf for factor in value.values()):
            raise ValueError("a category is boosted by a number above zero")
        return value

    @field_validator("new_category")
    @classmethod
    def _is_new(cls, value: str | None) -> str | None:
        if value in CATEGORY_CODE:
            raise ValueError(f"{value!r} is not new; boost it with category_boost instead")
        return value

    @model_validator(mode="after")
    def _some_kind(self) -> Self:
        if self.fraud_rate > 0 and not any(self.kinds.values()):
            raise ValueError("fraud_rate is above zero, but no kind of fraud has a weight; name one under kinds")
        return self

    @model_validator(mode="after")
    def _visible(self) -> Self:
        unseen = [kind.value for kind in ONLINE_KINDS if self.kinds.get(kind)]
        if unseen and self.online is None:
            raise ValueError(f"{unseen[0]} shows in nothing that payments carry without [simulator.online]; add that block")
        return self

    @property
    def transactions_per_day(self) -> float:
        """Expected transactions a day, fraud included, over a year."""
        return self.cardholders * self.transactions_per_card_per_day

    def shifted_on(self, day: int) -> bool:
        """Whether the shifts act on a day (counted from 1970-01-01)."""
        return self.shift_from is None or day >= day_number(self.shift_from)


def day_number(day: date) -> int:
    return (day - FIRST_DAY).days


def kind_code(kind: FraudKind) -> int:
    return 1 + list(FraudKind).index(kind)
