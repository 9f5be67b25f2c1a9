"""`model`: the candidate, evaluated once on the hold-out; and `beats_champion`, whether it may take the champion's place."""

from datetime import UTC, datetime

import dagster as dg

from fraud_assets.installation import Installation
from fraud_assets.operations.judging_labels import require_judged_labels
from fraud_assets.operations.judging_models import promotion_of
from fraud_assets.reports import plots
from fraud_assets.reports.markdown import markdown_table
from fraud_assets.runtime.partitioning import own_partition
from fraud_assets.training.training import Preprocessor, TrainedModel, train
from fraud_core.evaluation.model_card import Promotion
from fraud_core.storage.artifacts import Estimator


def build(installation: Installation) -> list[dg.AssetsDefinition | dg.AssetChecksDefinition]:
    """The asset and its check."""

    @dg.asset(
        ins={"preprocessor": dg.AssetIn(input_manager_key="artifacts")},
        io_manager_key="artifacts",
        group_name="model",
        kinds={"scikitlearn"},
    )
    def model(context: dg.AssetExecutionContext, preprocessor: Preprocessor) -> dg.Output[Estimator]:
        """The best of a linear model, a random forest and boosting on validation A; calibrated and given thresholds on B."""
        allowed = installation.training_set(own_partition(context))
        require_judged_labels(installation, allowed)
        task = installation.training_task(allowed)

        def progress(sentence: str) -> None:
            context.log.info(sentence)
            installation.tell(sentence)

        trained = train(task, preprocessor, progress)
        report = trained.holdout
        candidates = [
            {
                "average precision on validation A": f"{value:.4f}",  # first: the page is narrow, and names are long
                "fraud rate": f"{trained.candidates_fraud_rate:.2%}",
                "candidate": name,
            }
            for name, value in trained.candidates
        ]
        sides = [{"side": name, "rows": side.rows, "frauds": side.frauds} for name, side in trained.sides.items()]
        return dg.Output(
            Estimator(fitted=trained, inputs=task.inputs, facts={"version": trained.bundle.version}),
            metadata={
                "average_precision": report.average_precision,
                "average_precision_low": report.average_precision_interval.low,
                "average_precision_high": report.average_precision_interval.high,
                "fraud_rate": report.fraud_rate,
                "average_precision_validation": trained.validation.average_precision,
                "roc_auc": report.roc_auc,
                "holdout_looks": trained.holdout_looks,
                "candidates": dg.MetadataValue.md(markdown_table(candidates)),
                "sides": dg.MetadataValue.md(markdown_table(sides)),
                "precision_recall": dg.MetadataValue.md(plots.as_markdown_image(plots.pr_plot(trained.validation, report))),
                "calibration": dg.MetadataValue.md(plots.as_markdown_image(plots.calibration_plot(trained.validation, report))),
                "cost": dg.MetadataValue.md(plots.as_markdown_image(plots.cost_plot(report))),
            },
        )

    @dg.asset_check(asset=model, blocking=True)
    def beats_champion(model: TrainedModel) -> dg.AssetCheckResult:
        """Is the candidate as good as the champion, on the same hold-out rows?"""
        promotion = promotion_of(installation, model, datetime.now(UTC))
        return dg.AssetCheckResult(
            passed=promotion.promoted,
            severity=dg.AssetCheckSeverity.ERROR,
            description=" ".join(promotion.reasons),
            metadata=promotion_metadata(promotion),
        )

    return [model, beats_champion]


def promotion_metadata(promotion: Promotion) -> dict[str, float | str]:
    """A promotion's verdict as metadata."""
    shown: dict[str, float | str] = {"champion": promotion.champion or "none"}
    if promotion.difference is not None and promotion.interval is not None:
        shown |= {"difference": promotion.difference, "low": promotion.interval.low, "high": promotion.interval.high}
    return shown
