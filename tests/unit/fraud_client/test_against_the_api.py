"""The async client against the real application, in one loop with it. The blocking one: tests/integration/test_api_server.py."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from fraud_api.app import create_app
from fraud_client.client import AsyncFraudClient
from fraud_client.errors import RefusedError, UnavailableError
from fraud_client.types import RowRefusal, RowScore, Transaction
from fraud_core.access.api_keys import ApiKeys

PAYMENT = Transaction(timestamp=datetime(2020, 6, 21, 12, tzinfo=UTC), amount="249.90", transaction_id="a", category="travel")
WRONG = Transaction(timestamp=datetime(2020, 6, 21, 12, tzinfo=UTC), amount="-1", transaction_id="b")


async def every_call(client: AsyncFraudClient, version: str, file: Path) -> None:
    """Each method once, and what the application says to it."""
    async with client:
        assert (await client.ready()).model_version == version
        score, again = await asyncio.gather(client.score(PAYMENT, explain=True), client.score(PAYMENT))
        assert score.model_version == version
        assert score.probability == again.probability
        with pytest.raises(RefusedError, match="amount") as refused:
            await client.score(WRONG)
        assert (refused.value.status, refused.value.errors[0].field) == (422, "amount")
        batch = await client.score_batch([PAYMENT, WRONG])
        assert [type(one) for one in batch.results] == [RowScore, RowRefusal]
        assert [type(row) async for row in client.score_file(file)] == [RowScore, RowRefusal]
        assert (await client.label("a", "fraud")).sequence == 1
        assert (await client.model())["model_version"] == version
        assert (await client.models())["models"][0]["state"] == "champion"
        assert (await client.reload()).ready


def test_every_call_of_the_async_client_is_answered_by_the_real_application(installation: Any, tmp_path: Path) -> None:
    version = installation.promote(1)
    settings = installation.settings.model_copy(update={"api_drain_seconds": 0.01})
    file = tmp_path / "payments.csv"
    file.write_text("timestamp,amount\n2020-06-21T12:14:25Z,2.86\n2020-06-21T12:20:00Z,\n")
    _, key = ApiKeys.of(settings).create("till", ["score", "label", "admin"])

    async def session() -> None:
        app = create_app(settings, asks_for_keys=True)
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app):
            await every_call(AsyncFraudClient("http://test", key, transport=transport), version, file)
            async with AsyncFraudClient("http://test", "fraud_wrong", transport=transport) as stranger:
                with pytest.raises(RefusedError, match="401"):
                    await stranger.score(PAYMENT)

    asyncio.run(session())


def test_without_a_model_the_async_client_leaves_the_decision_to_its_caller(installation: Any) -> None:
    settings = installation.settings.model_copy(update={"api_drain_seconds": 0.01})

    async def session() -> None:
        app = create_app(settings, asks_for_keys=False)
        client = AsyncFraudClient("http://test", patience=0.1, transport=httpx.ASGITransport(app))
        async with app.router.lifespan_context(app), client:
            assert not (await client.ready()).ready
            with pytest.raises(UnavailableError, match="no model"):
                await client.score(PAYMENT)

    asyncio.run(session())
