"""The model card for people, as Markdown."""

from fraud_assets.reports.markdown import render
from fraud_core.evaluation import figures
from fraud_core.evaluation.model_card import FEW_FRAUD_CARDS, ModelCard


def to_markdown(card: ModelCard) -> str:
    """The card for people. Every average precision stands beside the fraud rate."""
    reports = {"Validation B": card.validation, "Hold-out": card.holdout}
    if card.holdout_without_rejected is not None:
        reports["Hold-out without rejected partitions"] = card.holdout_without_rejected
    return render("model_card.md.jinja", card=card, reports=reports, figures=figures, few_fraud_cards=FEW_FRAUD_CARDS)
