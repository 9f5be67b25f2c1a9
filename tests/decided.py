"""Decisions as tests need them: records of payments that were read as the API reads them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fraud_core.decisions.log import DecisionRecord
from fraud_core.transactions.transaction import EXAMPLE, Transaction

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def decided(identity: str, minutes: float = 0, **changed: Any) -> DecisionRecord:
    """A decision made so many minutes after noon, about a payment of a second before.

    Args:
        identity: of the payment.
        minutes: after noon.
        changed: of the payment (merchant, category, timestamp, amount_cents), or of the record.
    """
    scored_at = NOON + timedelta(minutes=minutes)
    sent = EXAMPLE | {"transaction_id": identity, "timestamp": (scored_at - timedelta(seconds=1)).isoformat()}
    sent |= {name: changed.pop(name) for name in ("merchant", "category") if name in changed}
    if "timestamp" in changed:
        sent["timestamp"] = changed.pop("timestamp").isoformat()
    cents = changed.pop("amount_cents", 1_234)
    sent["amount"] = f"{cents // 100}.{cents % 100:02d}"
    transaction = changed.pop("transaction", None)
    values: dict[str, Any] = {
        "transaction_id": identity,
        "scored_at": scored_at,
        "card": "c0ffee",
        "model_version": "0123456789ab",
        "probability": 0.1 + 0.2,
        "decision": "approve",
        "degraded": False,
        "reasons": ("amount", "new_merchant"),
        "features_sha256": "ab" * 32,
        "features": {"log_amount": 2.590017, "card_count_1h": None, "category": "gas"},
        "sequence": 7,
    }
    record = DecisionRecord.of(Transaction.model_validate(sent), **values | changed)
    return record if transaction is None else replace(record, transaction=transaction)
