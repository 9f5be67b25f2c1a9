"""Decisions as tests need them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fraud_core.decisions.record import LoggedTransaction
from fraud_core.stores.decisions import DecisionRecord

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def decided(identity: str, minutes: float = 0, **changed: Any) -> DecisionRecord:
    """A decision made so many minutes after noon, about a payment of a second before."""
    scored_at = NOON + timedelta(minutes=minutes)
    values: dict[str, Any] = {
        "transaction_id": identity,
        "scored_at": scored_at,
        "timestamp": scored_at - timedelta(seconds=1),
        "amount_cents": 1_234,
        "card": "c0ffee",
        "merchant": "Kirlin and Sons",
        "category": None,
        "transaction": LoggedTransaction(scored_at, 1_234, "Kirlin and Sons", None, None, None, None),
        "model_version": "0123456789ab",
        "probability": 0.1 + 0.2,
        "decision": "approve",
        "degraded": False,
        "reasons": ("amount", "new_merchant"),
        "features_sha256": "ab" * 32,
        "features": {"log_amount": 2.590017, "card_count_1h": None, "category": "gas"},
        "sequence": 7,
    }
    return DecisionRecord(**values | changed)
