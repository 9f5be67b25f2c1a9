"""Explanations as they are answered. Scores come from the core alone."""

from fraud_api.schemas import Explanation, Reason
from fraud_core.scoring.score import Examined


def explanation_of(examined: Examined) -> Explanation:
    """The strongest reasons for a score, and what is left over."""
    reasons = examined.reasons
    named = sum(reason.contribution for reason in reasons)
    return Explanation(
        unit=examined.explainer.unit,
        base=examined.base,
        reasons=[Reason.model_validate(reason, from_attributes=True) for reason in reasons],
        others=examined.total - examined.base - named,
        total=examined.total,
    )
