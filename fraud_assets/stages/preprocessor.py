"""`preprocessor`: the encoder, fitted on the training rows of the accepted partitions."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from fraud_assets.installation import Installation
from fraud_assets.operations.judging_labels import judge_training_labels
from fraud_assets.reports.markdown import markdown_table
from fraud_assets.runtime.partitioning import own_partition
from fraud_assets.training.training import fit_preprocessor
from fraud_core import gate
from fraud_core.errors import NotYetTrainableError
from fraud_core.storage.artifacts import Estimator, fingerprint


def build(installation: Installation) -> list[dg.AssetsDefinition | dg.AssetChecksDefinition]:
    """The asset, and the check that shows whose labels are held."""

    @dg.asset(
        deps=["transformed", "labels"],
        io_manager_key="artifacts",
        group_name="model",
        output_required=False,
        kinds={"scikitlearn"},
    )
    def preprocessor(context: dg.AssetExecutionContext) -> Iterator[dg.Output[Any]]:
        """How features become numbers: categories' fraud shares and medians, from training rows of accepted partitions alone.

        With too little data for the split, nothing is made and the run ends well: 'not yet trainable'.
        """
        for verdict in judge_training_labels(installation, installation.accepted_set(own_partition(context))):
            if verdict.is_held:
                context.log.warning(verdict.explain())
                installation.tell(verdict.explain())
        allowed = installation.training_set(own_partition(context))
        try:
            fitted = fit_preprocessor(installation.training_task(allowed))
        except NotYetTrainableError as error:
            context.log.warning(str(error))
            installation.tell(str(error))
            return
        inputs = fingerprint(fitted.training_set, fitted.split.model_dump_json(), *([fitted.labels] if fitted.labels else []))
        columns = [
            {
                "feature": column.feature,
                "missing becomes": "" if column.missing is None else f"{column.missing:g}",
                "categories": "" if column.categories is None else len(column.categories),
            }
            for column in fitted.encoder.columns
        ]
        dropped = [{"feature": name, "why": reason} for name, reason in fitted.dropped]
        yield dg.Output(
            Estimator(fitted=fitted, inputs=inputs, facts={"training_rows": fitted.rows, "training_frauds": fitted.frauds}),
            metadata={
                "columns": dg.MetadataValue.md(markdown_table(columns)),
                "dropped": dg.MetadataValue.md(markdown_table(dropped)) if dropped else "none",
                "training_set": gate.fingerprint(allowed),
                "partitions": ", ".join(part.partition for part in allowed.accepted),
                "rejected": ", ".join(part.partition for part in allowed.rejected) or "none",
                "split": dg.MetadataValue.json(fitted.split.model_dump(mode="json")),
            },
        )

    @dg.asset_check(asset=preprocessor)
    def labels_plausible() -> dg.AssetCheckResult:
        """Are the labels of every accepted partition plausible? Held ones are left out, until a person accepts them."""
        held = installation.training_set().held
        return dg.AssetCheckResult(
            passed=not held,
            severity=dg.AssetCheckSeverity.ERROR,
            description=" ".join(held.values()) or "No partition's labels are held.",
            metadata={"partitions_held": len(held), "held": ", ".join(held) or "none"},
        )

    return [preprocessor, labels_plausible]
