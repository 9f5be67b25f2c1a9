"""Windows over the past of a card and a merchant: their borders, and the names of what is counted in them.

Everything counted is a whole number (payments, cents, hours), so that it is the same number in whatever order it is added up:
`asof` counts for one payment, `columns` for a million, and both take their borders from here. Missing is NaN.

- A card's windows hold its payments with timestamps in [t - window, t): exact, and payments of equal time see none of each other.
- A merchant's windows hold whole hours of UTC that lie within [t - window, t): payments in flight together cannot disagree.
  Frauds among them are counted in the windows that end the label delay before t, with the labels known in hours ended before t.
- Nothing older than the source's `history_days` (for frauds: and its label delay) is looked at.
- A card's windows hold its newest `history_events` payments at most, so that no card, however busy, makes its payments slow: of a
  card with more of them before t, only those that are later than the newest but `history_events` count. Payments of equal time
  stay together, so the order in which a store gives them back does not matter.
"""

from dataclasses import dataclass, replace

from fraud_core.units.time import DAY_US, HOUR_US

CARD_WINDOWS = {"1h": HOUR_US, "1d": DAY_US, "7d": 7 * DAY_US, "30d": 30 * DAY_US}
MERCHANT_WINDOWS = {"1d": DAY_US, "7d": 7 * DAY_US, "30d": 30 * DAY_US}
DISTINCT_WINDOW = "1d"  # in which a card's different merchants and categories are counted
NEWEST_EVENTS = 10_000  # of a card, at most, where a source says nothing else
RECENT_WINDOWS = ("1d", "7d")  # in which a card's greatest payment and its payments at night are looked for

CARD_STATE = (
    *(f"card_count_{window}" for window in CARD_WINDOWS),
    *(f"card_cents_{window}" for window in CARD_WINDOWS),
    *(f"card_greatest_cents_{window}" for window in RECENT_WINDOWS),  # of one payment; 0 without one
    *(f"card_nights_{window}" for window in RECENT_WINDOWS),  # payments at night, by the source's clocks
    "card_last_us",  # when the card was last used; of payments of equal time the one with the greatest id counts
    "card_last_latitude",
    "card_last_longitude",
    "card_merchants",
    "card_categories",
    "merchant_seen",  # 1: the card was at this merchant before, 0: it was not
    "category_seen",
)
MERCHANT_STATE = (
    *(f"merchant_count_{window}" for window in MERCHANT_WINDOWS),
    *(f"merchant_judged_{window}" for window in MERCHANT_WINDOWS),  # payments whose outcome is known, or settled by the delay
    *(f"merchant_frauds_{window}" for window in MERCHANT_WINDOWS),
)
STATE = (*CARD_STATE, *MERCHANT_STATE)


@dataclass(frozen=True)
class Reach:
    """How far a source looks back.

    Attributes:
        history_us: no payment older than this counts; longer windows end here.
        delay_us: after so long a payment without a chargeback counts as legitimate.
        newest_events: so many payments of a card count at most.
    """

    history_us: int
    delay_us: int
    newest_events: int = NEWEST_EVENTS

    @classmethod
    def of_days(cls, history_days: int, label_delay_days: int, newest_events: int = NEWEST_EVENTS) -> "Reach":
        """As a source's TOML has it."""
        return cls(history_days * DAY_US, label_delay_days * DAY_US, newest_events)

    def holds(self, other: "Reach") -> bool:
        """Whether everything that counts for the other counts here."""
        return self.total_us >= other.total_us and self.newest_events >= other.newest_events

    def widened(self, other: "Reach") -> "Reach":
        """The least that holds both."""
        wider = max(self, other, key=lambda reach: reach.total_us)
        return replace(wider, newest_events=max(self.newest_events, other.newest_events))

    @property
    def total_us(self) -> int:
        """Nothing older than this before a payment is looked at for it."""
        return self.history_us + self.delay_us


def whole_hours(begin_us: int, end_us: int) -> tuple[int, int]:
    """The first hour (counted from 1970) that lies whole within [begin, end), and the first that no longer does."""
    return -(-begin_us // HOUR_US), end_us // HOUR_US
