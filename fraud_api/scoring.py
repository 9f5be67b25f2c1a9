"""The answers about payments. Scores come from the core alone."""

from collections.abc import Callable, Sequence

from fraud_api.schemas import Explanation, Reason, Score
from fraud_core.holder import Served
from fraud_core.payment import Transaction
from fraud_core.scorer import Floats
from fraud_core.scoring import Examined, examine, made_id

Seen = Callable[[Served, Floats, Sequence[float]], None]  # what the model saw of n payments, and their probabilities


def not_looked_at(_: Served, __: Floats, ___: Sequence[float]) -> None:
    """Nobody looks at what is scored."""


def decision(served: Served, transaction: Transaction, probability: float, explanation: Explanation | None = None) -> Score:
    """The answer about a payment."""
    return Score(
        transaction_id=transaction.transaction_id or made_id(),
        probability=probability,
        decision=served.scorer.decide(probability),
        model_version=served.version,
        explanation=explanation,
    )


def explained(served: Served, transaction: Transaction, seen: Seen = not_looked_at) -> Score:
    """The answer about a payment, with its reasons; `seen` is shown what was scored."""
    examined = examine(served, transaction)
    seen(served, examined.matrix, [examined.probability])
    return decision(served, transaction, examined.probability, _explanation(served, examined))


def _explanation(served: Served, examined: Examined) -> Explanation:
    reasons = served.explainer.reasons(examined.values, examined.contributions)
    named = sum(reason.contribution for reason in reasons)
    total = examined.base + float(examined.contributions.sum())
    return Explanation(
        unit=served.explainer.unit,
        base=examined.base,
        reasons=[Reason.model_validate(reason, from_attributes=True) for reason in reasons],
        others=total - examined.base - named,
        total=total,
    )
