"""The standard features of the past in tests: what they are called, and the tallies behind them by short names."""

from typing import Any
from zoneinfo import ZoneInfo

from fraud_core.features.catalogue import PLAIN, STANDARD, STANDARD_PLAN
from fraud_core.features.online import Past, Query, state_asof
from fraud_core.features.windows import Reach, Tally
from fraud_core.fields.declaration import span_us
from fraud_core.history.store import HistoryStore

FEATURES = STANDARD.features
BY_NAME = STANDARD.by_name
HISTORY = FEATURES[len(PLAIN) :]
CARD_SPANS = {name: span_us(name) for name in ("1h", "1d", "7d", "30d")}
MERCHANT_SPANS = {name: span_us(name) for name in ("1d", "7d", "30d")}
_NIGHT = (("night", ("true",)),)
_CARD, _MERCHANT = ("card",), ("merchant",)

TALLIES = {
    **{f"card_count_{name}": Tally("count", _CARD, None, span) for name, span in CARD_SPANS.items()},
    **{f"card_cents_{name}": Tally("sum", _CARD, "amount_cents", span) for name, span in CARD_SPANS.items()},
    **{f"card_greatest_cents_{name}": Tally("max", _CARD, "amount_cents", CARD_SPANS[name]) for name in ("1d", "7d")},
    **{f"card_nights_{name}": Tally("count", _CARD, None, CARD_SPANS[name], _NIGHT) for name in ("1d", "7d")},
    "card_last_us": Tally("last", _CARD, "timestamp"),
    "card_last_latitude": Tally("last", _CARD, "merchant_latitude"),
    "card_last_longitude": Tally("last", _CARD, "merchant_longitude"),
    "card_merchants": Tally("distinct", _CARD, "merchant", CARD_SPANS["1d"]),
    "card_categories": Tally("distinct", _CARD, "category", CARD_SPANS["1d"]),
    "merchant_seen": Tally("seen", ("card", "merchant")),
    "category_seen": Tally("seen", ("card", "category")),
    **{f"merchant_count_{name}": Tally("hourly", _MERCHANT, None, span) for name, span in MERCHANT_SPANS.items()},
    **{f"merchant_judged_{name}": Tally("judged", _MERCHANT, None, span) for name, span in MERCHANT_SPANS.items()},
    **{f"merchant_frauds_{name}": Tally("frauds", _MERCHANT, None, span) for name, span in MERCHANT_SPANS.items()},
}
NAMES = {short: tally.name for short, tally in TALLIES.items()}


def query(timestamp: int, card: str | None, merchant: str | None, category: str | None = "gas") -> Query:
    """A question about a payment."""
    return Query(timestamp, {"card": card, "merchant": merchant, "category": category})


def counted(asked: Query, past: Past, reach: Reach, zone: ZoneInfo) -> dict[str, float]:
    """The tallies of a payment, by their short names."""
    found: dict[str, Any] = dict(zip(STANDARD_PLAN.tallies, state_asof(asked, past, STANDARD_PLAN, reach, zone), strict=True))
    return {short: found[tally] for short, tally in TALLIES.items()}


def look(store: HistoryStore, asked: Query, zone: ZoneInfo) -> dict[str, float]:
    """What a store holds of a payment's past, counted."""
    return counted(asked, store.look([asked], STANDARD_PLAN)[0], store.reach, zone)
