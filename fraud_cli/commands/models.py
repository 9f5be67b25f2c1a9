"""`fraud models`: the versions, which one is champion, and their figures."""

from fraud_assets.installation import Installation
from fraud_core.evaluation.model_card import ModelCard
from fraud_core.models.registry import LATEST, latest_model_card, read_latest, versions
from fraud_core.settings import Settings


def print_models(settings: Settings) -> int:
    """Print a line a version, the champion marked."""
    installation = Installation.load(settings)
    store = installation.artifacts.store
    latest = read_latest(store, installation.artifacts.signing_key)
    if latest is None:
        print("There is no champion yet; `fraud pipeline` makes one.")
        return 0
    promoted = {change.version: change for change in latest.history}
    print(f"{'version':17} {'state':10} {'promoted (UTC)':17} {'average precision':26} {'fraud rate':10} model")
    whole = versions(store, installation.artifacts.signing_key)
    for version in sorted(whole, key=lambda v: promoted[v].sequence if v in promoted else 0):
        stored, card = latest_model_card(store, version, installation.artifacts.signing_key), read_card(installation, version)
        state = "champion" if version == latest.version else "withdrawn" if version in latest.withdrawn else ""
        at = f"{promoted[version].at:%Y-%m-%d %H:%M}" if version in promoted else "never"
        figures = ""
        if stored is not None and card is not None:
            interval = card.holdout.average_precision_interval
            figures = f"{card.holdout.average_precision:.4f} ({interval.low:.4f}-{interval.high:.4f})"
            figures = f"{figures:26} {card.holdout.fraud_rate:<10.3%} {card.kind}"
            figures += "" if stored.is_signed else " (figures unsigned)"
        print(f"{version:17} {state:10} {at:17} {figures}")
    print(f"The pointer is at change {latest.sequence}; this machine has seen change {installation.heads.sequence(LATEST)}.")
    return 0


def read_card(installation: Installation, version: str) -> ModelCard | None:
    """The newest card of a version, None where there is none."""
    stored = latest_model_card(installation.artifacts.store, version, installation.artifacts.signing_key)
    return None if stored is None else ModelCard.model_validate(stored.body)
