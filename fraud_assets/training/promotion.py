"""Promotion of a candidate: judged on the same hold-out rows as the champion and the best of the last twelve months."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

import polars as pl

from fraud_assets.training.rows import CardCodes, Rows
from fraud_assets.training.training import TrainedModel
from fraud_core.errors import IntegrityError
from fraud_core.evaluation import metrics
from fraud_core.evaluation.model_card import Promotion
from fraud_core.models.bundle import Bundle
from fraud_core.models.registry import ChampionPointer
from fraud_core.models.scorer import Scorer
from fraud_core.settings import Settings

MEMORY = timedelta(days=365)
SETTINGS = {"seed", "threads", "bootstrap_draws", "promotion_lift", "promotion_margin", "promotion_decline"}


def judge_promotion(
    trained: TrainedModel,
    latest: ChampionPointer | None,
    champions: Mapping[str, Bundle | IntegrityError],
    holdout: Callable[[], Rows],
    settings: Settings,
) -> Promotion:
    """Compare a candidate with what came before.

    Promoted if its interval lies well above the fraud rate, the lower end of the paired difference to the champion is above
    minus the margin, and it is not far below the best champion of the last twelve months. All bounds are settings.

    Args:
        trained: the candidate.
        latest: the pointer to the champion; None where there is none yet.
        champions: the versions of `recent_champions`, each as its bundle or as why that cannot be read.
        holdout: reads the hold-out's rows.
        settings: the bounds, and the bootstrap's.
    """
    report, version = trained.holdout, trained.bundle.version
    if latest is not None and latest.version == version:
        return Promotion(
            promoted=True, reasons=("It is the champion already: the same training set gave the same version.",), champion=version
        )

    low, needed = report.average_precision_interval.low, settings.promotion_lift * report.fraud_rate
    checks = [
        (
            low >= needed,
            f"The lower end of its average precision is {low:.4f}; at least {settings.promotion_lift:g} times the fraud rate "
            f"of {report.fraud_rate:.2%}, {needed:.4f}, is asked for.",
        )
    ]
    if latest is None:
        promoted = all(passed for passed, _ in checks)
        return Promotion(promoted=promoted, reasons=(*(reason for _, reason in checks), "There is no champion yet."))
    if version in latest.withdrawn:
        withdrawal = latest.withdrawn[version]
        reason = (
            f"Version {version} was withdrawn by {withdrawal.who}: {withdrawal.reason}. "
            f"`fraud restore {version}` takes that back."
        )
        return Promotion(promoted=False, reasons=(reason,), champion=latest.version)

    rows = holdout()
    labels = rows.labels
    cards = CardCodes().codes(rows.frame["card"]) if "card" in rows.frame.columns else None
    scores = Scorer(trained.bundle, settings.threads).score_features(rows.frame)
    difference = interval = None
    notes: list[str] = []
    averages: dict[str, float] = {}
    for earlier, found in champions.items():
        try:
            if isinstance(found, IntegrityError):
                raise found
            earlier_scores = Scorer(found, settings.threads).score_features(rows.frame)
        except (IntegrityError, pl.exceptions.ColumnNotFoundError) as error:
            notes.append(f"Version {earlier} cannot be compared with: {error}")
            continue
        averages[earlier] = metrics.average_precision(labels, earlier_scores)
        if earlier == latest.version:
            difference, interval = metrics.paired_difference(
                labels, scores, earlier_scores, cards, draws=settings.bootstrap_draws, seed=settings.seed
            )
            checks.append(
                (
                    interval.low > -settings.promotion_margin,
                    f"The lower end of its difference to champion {earlier} is {interval.low:+.4f}; it must lie above "
                    f"{-settings.promotion_margin:+.4f}.",
                )
            )
    if averages:
        best = max(averages, key=lambda name: averages[name])
        checks.append(
            (
                report.average_precision >= averages[best] - settings.promotion_decline,
                f"Its average precision is {report.average_precision:.4f}; the best champion of the last twelve months, {best}, "
                f"has {averages[best]:.4f} on the same rows, and {settings.promotion_decline:g} below that is tolerated.",
            )
        )
    return Promotion(
        promoted=all(passed for passed, _ in checks),
        reasons=(*(reason for _, reason in checks), *notes),
        champion=latest.version,
        difference=difference,
        interval=interval,
    )


def recent_champions(latest: ChampionPointer, now: datetime) -> Iterator[str]:
    """The champion, and the versions that were champion within the last twelve months, but for withdrawn ones."""
    yield latest.version
    seen = {latest.version}
    ended = now
    for change in reversed(latest.history):
        if ended >= now - MEMORY and change.version not in seen and change.version not in latest.withdrawn:
            seen.add(change.version)
            yield change.version
        ended = change.at
