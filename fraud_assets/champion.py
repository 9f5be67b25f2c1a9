"""`champion`: the promoted model, which is what 'the latest model' means everywhere; and the jobs that roll it back."""

import json
from datetime import UTC, datetime

import dagster as dg

from fraud_assets import delivery, plots
from fraud_assets.attribution import who_started
from fraud_assets.learning.card import model_card
from fraud_assets.learning.promotion import judge_promotion
from fraud_assets.learning.rows import Data, read_rows
from fraud_assets.learning.training import TrainedModel
from fraud_assets.preprocessor import own_partition
from fraud_assets.project import Project
from fraud_core import gate
from fraud_core.artifacts import Document
from fraud_core.bundle import Bundle, point_at, read_latest, write_bundle
from fraud_core.errors import GateRefusalError, PromotionError
from fraud_core.keys import canonical_json, sign
from fraud_core.model_card import ModelCard
from fraud_core.reference import make_reference, write_reference


def build(project: Project) -> list[dg.AssetsDefinition]:
    """The asset."""

    @dg.asset(
        ins={"model": dg.AssetIn(input_manager_key="artifacts")},
        io_manager_key="artifacts",
        group_name="model",
        kinds={"treelite"},
    )
    def champion(context: dg.AssetExecutionContext, model: TrainedModel) -> dg.Output[Document]:
        """The serving bundle, written once under its version; then the pointer to it, last. What was evaluated is what ships."""
        allowed = project.training_set(own_partition(context))
        if model.bundle.manifest.lineage.training_set != gate.fingerprint(allowed):
            raise GateRefusalError(
                "The model was trained on other partitions than the gate accepts now; materialize preprocessor and model first."
            )
        now = datetime.now(UTC)
        promotion = judge_promotion(project, model, now)
        if not promotion.promoted:
            raise PromotionError(f"Not promoted: {' '.join(promotion.reasons)}")
        store, key = project.artifacts.store, project.artifacts.signing_key
        revision = delivery.revision_of(project, model.bundle.version, context.log.warning)
        write_bundle(store, with_revision(model.bundle, revision), key)
        card = model_card(model, allowed, promotion, now)
        _write_run(project, model, card, context.run.run_id, revision)
        rows = read_rows(Data.of(project), allowed.accepted, model.split.validation_b)  # the last that it did not learn from
        reference = make_reference(model.bundle, model.bundle.encoder.frame_matrix(rows.frame), now)
        write_reference(store, key, context.run.run_id, reference)
        latest = point_at(store, model.bundle.version, key, how="promotion", who="pipeline", at=now, heads=project.heads)
        return dg.Output(
            Document(
                body={"version": latest.version, "sequence": latest.sequence},
                content=model.bundle.version,
                facts={"version": latest.version, "sequence": latest.sequence},
            ),
            metadata={"card": dg.MetadataValue.md(card.to_markdown()), "data_revision": revision or "none"},
        )

    return [champion]


def with_revision(bundle: Bundle, revision: str | None) -> Bundle:
    """The bundle, whose manifest names its data version. The version of the bundle stays: it is the hash of what was learned."""
    lineage = bundle.manifest.lineage.model_copy(update={"data_revision": revision})
    return bundle.model_copy(update={"manifest": bundle.manifest.model_copy(update={"lineage": lineage})})


def _write_run(project: Project, model: TrainedModel, card: ModelCard, run_id: str, revision: str | None) -> None:
    """What is known about this training, beside the bundle: the card and the plots."""
    folder = f"models/{model.bundle.version}/runs/{run_id}"
    files = {
        "card.json": canonical_json(sign(card.model_dump(mode="json"), project.artifacts.signing_key)),
        "card.md": card.to_markdown().encode(),
        "precision_recall.png": plots.pr_plot(model.validation, model.holdout),
        "calibration.png": plots.calibration_plot(model.validation, model.holdout),
        "cost.png": plots.cost_plot(model.holdout),
        "run.json": json.dumps(
            {"dagster_run_id": run_id, "created": card.created.isoformat(), "data_revision": revision}
        ).encode(),
    }
    for name, data in files.items():
        project.artifacts.store.put(f"{folder}/{name}", data)


def rollback(project: Project, version: str, *, who: str, reason: str) -> str:
    """Point at an older version and mark the present champion withdrawn, in one write; returns the withdrawn version.

    Raises:
        PromotionError: there is no champion, the version is the champion, it is unknown or withdrawn, or there is no reason.
    """
    store, key = project.artifacts.store, project.artifacts.signing_key
    latest = read_latest(store, key)
    if latest is None:
        raise PromotionError("There is no champion yet, so there is nothing to roll back.")
    if version == latest.version:
        raise PromotionError(f"Version {version} is the champion already.")
    _require(project, version, reason)
    now, withdraw, heads = datetime.now(UTC), latest.version, project.heads
    point_at(store, version, key, how="rollback", who=who, at=now, reason=reason, withdraw=withdraw, heads=heads)
    return latest.version


def restore(project: Project, version: str, *, who: str, reason: str) -> None:
    """Undo a rollback: the withdrawn version may serve again, and does.

    Raises:
        PromotionError: the version is unknown or not withdrawn, or there is no reason.
    """
    store, key = project.artifacts.store, project.artifacts.signing_key
    latest = read_latest(store, key)
    if latest is None or version not in latest.withdrawn:
        raise PromotionError(f"Version {version} is not withdrawn; `fraud models` lists what there is.")
    _require(project, version, reason)
    now, heads = datetime.now(UTC), project.heads
    point_at(store, version, key, how="restoration", who=who, at=now, reason=reason, heads=heads)


def _require(project: Project, version: str, reason: str) -> None:
    if not project.artifacts.store.exists(f"models/{version}/manifest.json"):
        raise PromotionError(f"There is no version {version}; `fraud models` lists what there is.")
    if not any(word.isalpha() for word in reason.split()):
        raise PromotionError("Give a reason in words; whoever is on call next will want to know.")


def build_jobs(project: Project) -> list[dg.JobDefinition]:
    """Rollback and its undoing, for the Dagster UI."""

    @dg.op(config_schema={"version": str, "reason": str, "who": dg.Field(str, default_value="")})
    def roll_back(context: dg.OpExecutionContext) -> None:
        config = context.op_config
        withdrawn = rollback(project, config["version"], who=who_started(context.run, config["who"]), reason=config["reason"])
        context.log.info(f"{config['version']} is champion again; {withdrawn} is withdrawn.")

    @dg.op(config_schema={"version": str, "reason": str, "who": dg.Field(str, default_value="")})
    def lift_withdrawal(context: dg.OpExecutionContext) -> None:
        config = context.op_config
        restore(project, config["version"], who=who_started(context.run, config["who"]), reason=config["reason"])

    @dg.job(description="Point at an older version and withdraw the present champion, with a reason.")
    def rollback_champion() -> None:
        roll_back()

    @dg.job(description="Undo a rollback: a withdrawn version serves again.")
    def restore_champion() -> None:
        lift_withdrawal()

    return [rollback_champion, restore_champion]
