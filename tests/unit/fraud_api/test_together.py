"""Payments that arrive together: each gets its own score, by its own model, and none is left waiting."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fraud_api.together import Together

from fraud_api import together
from fraud_core.payment import Transaction
from fraud_core.scorer import Scorer
from fraud_core.scoring import inputs_of

Make = Callable[[int], list[dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many payments each call of the core was given."""
    sizes: list[int] = []
    real = together.matrix_of

    def counted(scorer: Scorer, transactions: list[Transaction]) -> Any:
        sizes.append(len(transactions))
        return real(scorer, transactions)

    monkeypatch.setattr(together, "matrix_of", counted)
    return sizes


def test_what_arrives_in_one_turn_is_scored_at_once_and_to_the_same_bits(
    installation: Any, made_transactions: Make, calls: list[int]
) -> None:
    payments = [Transaction.model_validate(row) for row in made_transactions(40)]
    served: list[Any] = [SimpleNamespace(scorer=Scorer(installation.bundle(number))) for number in (1, 2)]
    scores = Together()

    async def all_at_once() -> list[float]:
        return await asyncio.gather(*[scores.probability(served[at % 2], payment) for at, payment in enumerate(payments)])

    alone = [float(served[at % 2].scorer.score_inputs(inputs_of([one]))[0]) for at, one in enumerate(payments)]
    assert asyncio.run(all_at_once()) == alone
    assert calls == [20, 20]  # one call a model


def test_a_payment_that_comes_alone_is_scored_alone(installation: Any, made_transactions: Make, calls: list[int]) -> None:
    payments = [Transaction.model_validate(row) for row in made_transactions(3)]
    served: Any = SimpleNamespace(scorer=Scorer(installation.bundle(1)))
    scores = Together()

    async def one_by_one() -> None:
        for payment in payments:
            await scores.probability(served, payment)

    asyncio.run(one_by_one())
    assert calls == [1, 1, 1]


def test_a_crowd_is_scored_in_parts(
    installation: Any, made_transactions: Make, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "MOST_AT_ONCE", 8)
    payments = [Transaction.model_validate(row) for row in made_transactions(20)]
    served: Any = SimpleNamespace(scorer=Scorer(installation.bundle(1)))
    scores = Together()

    async def crowd() -> list[float]:
        return await asyncio.gather(*[scores.probability(served, payment) for payment in payments])

    assert len(asyncio.run(crowd())) == 20
    assert calls == [8, 8, 4]


def test_who_hung_up_disturbs_nobody_and_a_failure_reaches_everybody(installation: Any, made_transactions: Make) -> None:
    payments = [Transaction.model_validate(row) for row in made_transactions(3)]
    served: Any = SimpleNamespace(scorer=Scorer(installation.bundle(1)))
    broken: Any = SimpleNamespace(scorer=None)
    scores = Together()

    async def some_leave() -> list[Any]:
        asked = [asyncio.create_task(scores.probability(served, payment)) for payment in payments]
        await asyncio.sleep(0)
        asked[1].cancel()
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = asyncio.run(some_leave())
    assert isinstance(second, asyncio.CancelledError)
    assert 0 < first < 1
    assert 0 < third < 1

    async def all_fail() -> list[Any]:
        return await asyncio.gather(*[scores.probability(broken, payment) for payment in payments], return_exceptions=True)

    assert [type(error) for error in asyncio.run(all_fail())] == [AttributeError] * 3
