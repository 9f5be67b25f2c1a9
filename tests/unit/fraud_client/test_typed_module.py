"""The typed module: what `fraud client-types` writes can be imported, checked by mypy's rules, and sent to the API."""

import importlib.util
import inspect
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from fraud_cli.main import main
from fraud_client.client import AsyncFraudClient
from fraud_client.types import Transaction
from fraud_core.transactions.declared_type import transaction_type
from tests.declared import ONLINE
from tests.unit.fraud_api.conftest import call  # noqa: F401 - a fixture

AT = datetime(2020, 6, 21, 12, tzinfo=UTC)


def test_own_fields_are_keywords_of_a_payment() -> None:
    opened = datetime(2020, 1, 1, tzinfo=UTC)
    payment = Transaction(timestamp=AT, amount=Decimal("1.50"), channel="web", basket=Decimal("7.50"), cvv=True, opened=opened)
    assert payment.to_json() == {
        "timestamp": AT.isoformat(),
        "amount": "1.50",
        "channel": "web",
        "basket": "7.50",
        "cvv": True,
        "opened": opened.isoformat(),
    }
    assert transaction_type(ONLINE).model_validate(payment.to_json()).__dict__["basket"] == 7.5
    assert replace(payment, amount=2, transaction_id="b").own == payment.own
    assert "web" not in repr(payment)
    assert len({payment, replace(payment)}) == 1
    with pytest.raises(ValueError, match="opened needs a time zone"):
        Transaction(timestamp=AT, amount=1, opened=datetime(2020, 1, 1))  # noqa: DTZ001


def _imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("payments", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_written_module_takes_the_declared_fields_and_the_api_its_payments(
    call: Any,  # noqa: F811
    installation: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installation.promote(1, declared=ONLINE)
    for name in ("home", "store"):
        monkeypatch.setenv(f"FRAUD_{name.upper()}", str(getattr(installation.settings, name)))
    monkeypatch.setattr("fraud_core.storage.artifacts.Artifacts.claim", lambda *_: None)  # whose store it is, is another test
    written = tmp_path / "payments.py"
    assert main(["client-types", "--out", str(written)]) == 0
    payment_type = _imported(written).Transaction
    parameters = inspect.signature(payment_type).parameters
    assert list(parameters)[:3] == ["timestamp", "amount", "channel"]  # the required ones first
    assert parameters["channel"].annotation.__args__ == ("web", "app")
    assert parameters["basket"].annotation == float | Decimal | int | None
    assert "bin" not in parameters
    assert "basket: The basket, in items, from 0 to 1000." in payment_type.__doc__
    api = call(installation.settings)

    async def scored() -> Any:
        client = AsyncFraudClient("http://test", transport=httpx.ASGITransport(api.app))
        return await client.score(payment_type(timestamp=AT, amount="2.86", channel="app", device="d-1", cvv=False))

    assert api.runner.run(scored()).decision in {"approve", "review", "decline"}
