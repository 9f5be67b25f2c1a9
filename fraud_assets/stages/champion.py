"""`champion`: the promoted model, which is what 'the latest model' means everywhere; and the jobs that roll it back."""

import json
from datetime import UTC, datetime

import dagster as dg

from fraud_assets.delivery import delivery
from fraud_assets.installation import Installation
from fraud_assets.operations.judging_models import promotion_of
from fraud_assets.reports import plots
from fraud_assets.reports.model_card import to_markdown
from fraud_assets.runtime.partitioning import own_partition
from fraud_assets.training.card import model_card
from fraud_assets.training.rows import read_rows
from fraud_assets.training.training import TrainedModel
from fraud_core import gate
from fraud_core.errors import GateRefusalError, PromotionError
from fraud_core.evaluation.model_card import ModelCard
from fraud_core.gate.baseline import make_reference, write_reference
from fraud_core.models.bundle import Bundle, write_bundle
from fraud_core.models.registry import point_at
from fraud_core.signing.documents import signed_document
from fraud_core.storage.artifacts import Document


def build(installation: Installation) -> list[dg.AssetsDefinition]:
    """The asset."""

    @dg.asset(
        ins={"model": dg.AssetIn(input_manager_key="artifacts")},
        io_manager_key="artifacts",
        group_name="model",
        kinds={"treelite"},
    )
    def champion(context: dg.AssetExecutionContext, model: TrainedModel) -> dg.Output[Document]:
        """The serving bundle, written once under its version; then the pointer to it, last. What was evaluated is what ships."""
        allowed = installation.training_set(own_partition(context))
        if model.bundle.manifest.lineage.training_set != gate.fingerprint(allowed):
            raise GateRefusalError(
                "The model was trained on other partitions than the gate accepts now; materialize preprocessor and model first."
            )
        now = datetime.now(UTC)
        promotion = promotion_of(installation, model, now)
        if not promotion.promoted:
            raise PromotionError(f"Not promoted: {' '.join(promotion.reasons)}")
        store, key = installation.artifacts.store, installation.artifacts.signing_key
        revision = delivery.revision_of(installation, model.bundle.version, context.log.warning)
        write_bundle(store, with_revision(model.bundle, revision), key)
        card = model_card(model, allowed, promotion, now)
        _write_run(installation, model, card, context.run.run_id, revision)
        rows = read_rows(
            installation.training_data(), allowed.accepted, model.split.validation_b
        )  # the last that it did not learn from
        reference = make_reference(model.bundle, model.bundle.encoder.frame_matrix(rows.frame), now)
        write_reference(store, key, context.run.run_id, reference)
        latest = point_at(store, model.bundle.version, key, how="promotion", who="pipeline", at=now, heads=installation.heads)
        return dg.Output(
            Document(
                body={"version": latest.version, "sequence": latest.sequence},
                content=model.bundle.version,
                facts={"version": latest.version, "sequence": latest.sequence},
            ),
            metadata={"card": dg.MetadataValue.md(to_markdown(card)), "data_revision": revision or "none"},
        )

    return [champion]


def with_revision(bundle: Bundle, revision: str | None) -> Bundle:
    """The bundle, whose manifest names its data version. The version of the bundle stays: it is the hash of what was learned."""
    lineage = bundle.manifest.lineage.model_copy(update={"data_revision": revision})
    return bundle.model_copy(update={"manifest": bundle.manifest.model_copy(update={"lineage": lineage})})


def _write_run(installation: Installation, model: TrainedModel, card: ModelCard, run_id: str, revision: str | None) -> None:
    """What is known about this training, beside the bundle: the card and the plots."""
    folder = f"models/{model.bundle.version}/runs/{run_id}"
    files = {
        "card.json": signed_document(card, installation.artifacts.signing_key),
        "card.md": to_markdown(card).encode(),
        "precision_recall.png": plots.pr_plot(model.validation, model.holdout),
        "calibration.png": plots.calibration_plot(model.validation, model.holdout),
        "cost.png": plots.cost_plot(model.holdout),
        "run.json": json.dumps(
            {"dagster_run_id": run_id, "created": card.created.isoformat(), "data_revision": revision}
        ).encode(),
    }
    for name, data in files.items():
        installation.artifacts.store.put(f"{folder}/{name}", data)
