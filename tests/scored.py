"""Decisions made by the product's own writer: payments through the real application, in this process, into the decision log."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fraud_api.app import create_app
from fraud_core.settings import Settings
from tests.unit.fraud_api.conftest import Caller

CARD = "token-of-the-queue"


def suspicious(number: int, **changed: Any) -> dict[str, Any]:
    """A payment of last night that is sent to review; the greater the number, the greater the expected loss."""
    night = (datetime.now(ZoneInfo("America/New_York")) - timedelta(days=1)).replace(hour=3, minute=0, second=0, microsecond=0)
    return {
        "transaction_id": f"case-{number:03d}",
        "timestamp": (night + timedelta(minutes=number / 2, microseconds=number)).astimezone(UTC).isoformat(),
        "amount": f"{57 + number / 50:.2f}",
        "card": CARD,
        "merchant": "Kirlin & Sons",
        "category": "gas_transport",
        "birth_date": f"{night.year - 45}-01-01",
        "home_latitude": 40.4,
        "home_longitude": -73.9,
        "merchant_latitude": 40.5,
        "merchant_longitude": -74.0,
        "city_population": 300_000,
        **changed,
    }


def decide(settings: Settings, payments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The answers of the API to these payments, which are recorded and logged as it does."""
    quick = settings.model_copy(update={"api_drain_seconds": 0.01})

    def answered() -> list[Any]:
        with Caller(create_app(quick, asks_for_keys=False)) as api:
            return [api.post("/v1/score", json=payment) for payment in payments]

    with ThreadPoolExecutor(1) as thread:  # a browser's test has an event loop of its own in this one
        answers = thread.submit(answered).result()
    assert [answer.status_code for answer in answers] == [200] * len(answers), answers[0].text
    return [answer.json() for answer in answers]
