"""MLflow runs: one for each training and its model, one for each verdict of the gate; and the champion's alias.

A training's run is opened by dagster-mlflow, which finds it again by the Dagster run's id, so that a record that was cut off goes
on where it stopped. The rest is MLflow's own interface. docs/adr/0001-mlflow.md says why.
"""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import polars as pl
from polars import selectors
from polars.exceptions import ColumnNotFoundError
from pydantic import BaseModel, ConfigDict

from fraud_assets.delivery.dvc import recording
from fraud_assets.delivery.mlflow.bundle_copy import write_copy
from fraud_assets.delivery.mlflow.server import Server
from fraud_assets.installation import Installation
from fraud_assets.reports import plots
from fraud_assets.training.split import SIDES
from fraud_assets.training.task import TrainingSettings
from fraud_assets.training.training import Preprocessor, TrainedModel
from fraud_core.errors import PartitionError
from fraud_core.evaluation.report import Report
from fraud_core.features.encoder import Encoder
from fraud_core.gate import Verdict
from fraud_core.models.registry import ChampionPointer
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Pointer

SERVED = Path(__file__).with_name("served.py")
CHAMPION = "champion"
WHOLE = "fraud.whole"  # set last: a run without it was cut off
EXAMPLE_ROWS = 5
SCHEMA_ROWS = 1_000


class TrainingNote(BaseModel):
    """A training that is to be logged: which Dagster run, and where its model and preprocessor lie."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["training"] = "training"
    run_id: str
    at: datetime
    model: Pointer
    preprocessor: Pointer


class VerdictNote(BaseModel):
    """A verdict of the gate that is to be logged."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["verdict"] = "verdict"
    verdict: Verdict


@dataclass(frozen=True)
class Logged:
    """A run that MLflow has, and its page."""

    run_id: str
    link: str


def model_name(source: Source) -> str:
    """How the registered model of a source is called."""
    return f"fraud-{source.name}"


class Records:
    """Writes to one MLflow. Made and used within `Server.connected`."""

    def __init__(self, installation: Installation, server: Server) -> None:
        import mlflow  # noqa: PLC0415 - it costs seconds, and most processes that load this module log nothing

        self._project, self._server = installation, server
        self._client = mlflow.MlflowClient(server.uri, server.uri)
        self._name = model_name(installation.source)

    def log_training(self, note: TrainingNote) -> Logged:
        """Log a training: parameters, metrics, datasets, plots, preprocessor and model; and register the model.

        Raises:
            IntegrityError: the model or preprocessor is not the file that was written.
        """
        trained: TrainedModel = self._project.artifacts.fitted(note.model)
        preprocessor: Preprocessor = self._project.artifacts.fitted(note.preprocessor)
        experiment = self._experiment(self._name)
        with self._training_run(note, trained) as mlflow:
            run = mlflow.active_run()
            if run.data.tags.get(WHOLE) is None:
                mlflow.log_params(parameters(self._project, trained))
                mlflow.log_metrics(training_metrics(trained))
                self._log_datasets(run.info.run_id, trained)
                with tempfile.TemporaryDirectory() as folder:
                    _write_report(Path(folder), trained, preprocessor)
                    mlflow.log_artifacts(folder)
                self._register(mlflow, trained)
                mlflow.set_tag(WHOLE, "yes")
        return Logged(run.info.run_id, self._server.run_link(experiment, run.info.run_id))

    def log_verdict(self, note: VerdictNote) -> Logged:
        """Log a verdict; one on the same content, with other decisions, takes the place of the former."""
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 - as above

        verdict = note.verdict
        experiment = self._experiment(f"{self._name}-drift")
        about = f"{verdict.partition} {verdict.content[:12]}"
        found = self._client.search_runs([experiment], f"tags.`fraud.verdict` = '{about}'", max_results=1)
        run = found[0] if found else self._client.create_run(experiment, run_name=verdict.partition)
        at = int(verdict.created_at.timestamp() * 1_000)
        self._client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, value, at, 0) for name, value in verdict_metrics(verdict).items()],
            params=[Param(name, value) for name, value in _verdict_parameters(verdict).items()],
            tags=[RunTag(name, value) for name, value in ({"fraud.verdict": about} | _verdict_tags(verdict)).items()],
        )
        self._client.log_dict(run.info.run_id, json.loads(verdict.model_dump_json()), "verdict.json")
        self._client.set_terminated(run.info.run_id)
        return Logged(run.info.run_id, self._server.run_link(experiment, run.info.run_id))

    def name_champion(self, latest: ChampionPointer) -> bool:
        """Move the alias `champion` to the registered version that serves; False where that version was never logged."""
        found = [
            version
            for version in self._client.search_model_versions(f"name = '{self._name}'")
            if version.tags.get("fraud.version") == latest.version
        ]
        if not found:
            return False
        newest = max(found, key=lambda version: int(version.version))
        self._client.set_registered_model_alias(self._name, CHAMPION, newest.version)
        self._client.set_model_version_tag(self._name, newest.version, "fraud.promoted", "yes")
        return True

    @contextmanager
    def _training_run(self, note: TrainingNote, trained: TrainedModel) -> Iterator[Any]:
        """The MLflow run that belongs to the Dagster run, opened by dagster-mlflow and closed as what comes of it."""
        from dagster_mlflow import mlflow_tracking  # noqa: PLC0415 - it imports MLflow

        revision = recording.revision(self._project.settings, trained.bundle.version)
        tags = {
            "mlflow.runName": f"{trained.bundle.version} {trained.candidates[0][0]}",
            "mlflow.source.name": "fraud",
            "fraud.source": self._project.source.name,
            "fraud.version": trained.bundle.version,
            "fraud.trained_at": note.at.isoformat(),
            "fraud.data_revision": revision or "none",
        }
        config = {"experiment_name": self._name, "mlflow_tracking_uri": self._server.uri, "env": {}, "extra_tags": tags}
        with dg.build_resources(
            {"mlflow": mlflow_tracking},
            resource_config={"mlflow": {"config": config}},
            dagster_run=dg.DagsterRun(job_name="train", run_id=note.run_id),
            log_manager=dg.DagsterLogManager.create(loggers=[]),
        ) as resources:
            status = "FAILED"
            try:
                yield resources.mlflow
                status = "FINISHED"
            finally:
                resources.mlflow.end_run(status)

    def _experiment(self, name: str) -> str:
        """The id of the experiment, made where there is none: artifacts of a database would else go to the working directory."""
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found else self._client.create_experiment(name, self._server.artifacts)

    def _log_datasets(self, run_id: str, trained: TrainedModel) -> None:
        """Name what was trained and judged on by its hash. pandas tells MLflow the columns; no row goes there."""
        from mlflow.data.pandas_dataset import from_pandas  # noqa: PLC0415 - as above
        from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

        sample = self._sample(trained, SCHEMA_ROWS, ["label"])
        lineage = trained.bundle.manifest.lineage
        digests = {"training": lineage.training_set[:32], "holdout": trained.holdout_id}
        inputs = []
        for side, digest in digests.items():
            described = from_pandas(
                sample,
                source=self._project.artifacts.store.uri("assets/transformed"),
                targets="label",
                name=f"{self._project.source.name} {side}",
                digest=digest,
            ).to_dict()
            counts = trained.sides[side]
            described["profile"] = json.dumps({"num_rows": counts.rows, "frauds": counts.frauds})
            inputs.append(DatasetInput(Dataset(**described), [InputTag("mlflow.data.context", side)]))
        self._client.log_inputs(run_id, inputs)

    def _register(self, mlflow: Any, trained: TrainedModel) -> None:
        """Log what serves, the bundle, as a model that takes transformed rows; and register it under its version."""
        example = self._sample(trained, EXAMPLE_ROWS)
        with tempfile.TemporaryDirectory() as folder:
            write_copy(trained.bundle, Path(folder))
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(SERVED),
                artifacts={"bundle": folder},
                signature=_signature(trained.bundle.encoder),
                input_example=example,
                pip_requirements=[
                    f"{name}=={metadata.version(name)}" for name in ("fraud-detection", "mlflow", "pandas", "treelite")
                ],
            )
        with _unless_exists():
            self._client.create_registered_model(self._name)
        self._client.create_model_version(
            self._name,
            logged.model_uri,
            run_id=mlflow.active_run().info.run_id,
            tags={"fraud.version": trained.bundle.version},
            model_id=logged.model_id,
        )

    def _sample(self, trained: TrainedModel, rows: int, more: list[str] | None = None) -> Any:
        """Some transformed rows as pandas has them: the model's features alone, nothing that tells who paid."""
        names = [*trained.bundle.encoder.features, *(more or [])]
        for partition, _, _ in reversed(trained.bundle.manifest.lineage.partitions):
            with suppress(PartitionError, KeyError, ColumnNotFoundError):  # made anew since, by another release
                frame = self._project.artifacts.scan("transformed", partition).select(names).head(rows).collect()
                if len(frame):  # whole numbers may be missing elsewhere, and are 64-bit floats for the model in any case
                    return frame.with_columns(selectors.numeric().cast(pl.Float64)).to_pandas()
        raise PartitionError("No partition that the model was trained on has its features any more; run `fraud pipeline` again.")


def parameters(installation: Installation, trained: TrainedModel) -> dict[str, str]:
    """A training's parameters, by name."""
    manifest = trained.bundle.manifest
    learned, lineage = manifest.learned, manifest.lineage
    blocks = {side: getattr(trained.split, side) for side in SIDES}
    borders = {f"split.{side}": f"{block.start or block.low} to {block.end or block.high}" for side, block in blocks.items()}
    return {
        "model": trained.candidates[0][0],
        "kind": learned.kind,
        "features": ", ".join(learned.features),
        "feature_version": str(learned.feature_version),
        "training_set": lineage.training_set,
        "partitions": f"{len(lineage.partitions)}: {lineage.partitions[0][0]} to {lineage.partitions[-1][0]}",
        "rejected": ", ".join(partition for partition, _ in lineage.rejected) or "none",
        "review_threshold": str(learned.thresholds.review),
        "decline_threshold": str(learned.thresholds.decline),
        **{name: str(value) for name, value in TrainingSettings.model_validate(installation.settings).model_dump().items()},
        **borders,
        **{f"library.{name}": version for name, version in lineage.libraries.items()},
        **{f"estimator.{name}": str(value) for name, value in _knobs(trained.estimator).items()},
    }


def training_metrics(trained: TrainedModel) -> dict[str, float]:
    """A training's metrics. An average precision is called one, stands beside the fraud rate, and has its interval."""
    found: dict[str, float | None] = {"holdout.looks": trained.holdout_looks}
    for side, report in (("validation", trained.validation), ("holdout", trained.holdout)):
        found |= {f"{side}.{name}": value for name, value in report_metrics(report).items()}
    for name, value in trained.candidates:
        found[f"validation_a.average_precision.{name.split(' (')[0].replace(',', '')}"] = value
    found["validation_a.fraud_rate"] = trained.candidates_fraud_rate
    for name, counts in trained.sides.items():
        found |= {f"rows.{name}": counts.rows, f"frauds.{name}": counts.frauds}
    return _finite(found)


def report_metrics(report: Report) -> dict[str, float | None]:
    """The figures of a report, by name."""
    card = report.card_precision_at_100
    return {
        "average_precision": report.average_precision,
        "average_precision_low": report.average_precision_interval.low,
        "average_precision_high": report.average_precision_interval.high,
        "fraud_rate": report.fraud_rate,
        "roc_auc": report.roc_auc,
        "precision_at_review": report.at_review.precision,
        "recall_at_review": report.at_review.recall,
        "precision_at_decline": report.at_decline.precision,
        "recall_at_decline": report.at_decline.recall,
        "alerts_per_day": report.alerts_per_day,
        "card_precision_at_100": None if card is None else card.value,
        "card_precision_at_100_ceiling": None if card is None else card.ceiling,
        "cost_per_thousand": report.cost.per_thousand,
        "expected_calibration_error": report.calibration_error,
        "brier_score": report.brier_score,
    }


def verdict_metrics(verdict: Verdict) -> dict[str, float]:
    """The figures of a verdict: how far each feature lies beyond noise and its bound, and what follows."""
    found: dict[str, float | None] = {
        "accepted": float(verdict.is_accepted),
        "rows": verdict.rows,
        "drifted_features": sum(feature.drifted for feature in verdict.features),
        "blocking_findings": sum(finding.blocking for finding in verdict.findings),
    }
    for feature in verdict.features:
        found |= {
            f"distance.{feature.name}": feature.distance,
            f"excess.{feature.name}": feature.excess,
            f"bound.{feature.name}": feature.bound,
            f"p_corrected.{feature.name}": feature.p_corrected,
        }
    return _finite(found)


def _verdict_parameters(verdict: Verdict) -> dict[str, str]:
    reference = ", ".join(part.partition for part in verdict.reference)
    return {"partition": verdict.partition, "kind": verdict.kind, "detector": verdict.detector, "reference": reference or "none"}


def _verdict_tags(verdict: Verdict) -> dict[str, str]:
    tags = {"fraud.accepted": "yes" if verdict.is_accepted else "no", "fraud.content": verdict.content}
    if verdict.decisions:
        last = verdict.decisions[-1]
        tags |= {"fraud.decided_by": last.who, "fraud.decision": last.action, "fraud.reason": last.reason}
    return tags


def _write_report(folder: Path, trained: TrainedModel, preprocessor: Preprocessor) -> None:
    """The plots, the figures behind them, and what was fitted, as files."""
    report = folder / "report"
    report.mkdir()
    (report / "precision_recall.png").write_bytes(plots.pr_plot(trained.validation, trained.holdout))
    (report / "calibration.png").write_bytes(plots.calibration_plot(trained.validation, trained.holdout))
    (report / "cost.png").write_bytes(plots.cost_plot(trained.holdout))
    (report / "holdout.json").write_text(trained.holdout.model_dump_json(indent=1))
    (report / "validation.json").write_text(trained.validation.model_dump_json(indent=1))
    fitted = folder / "preprocessor"
    fitted.mkdir()
    (fitted / "encoder.json").write_text(preprocessor.encoder.model_dump_json(indent=1))
    (fitted / "split.json").write_text(preprocessor.split.model_dump_json(indent=1))


def _signature(encoder: Encoder) -> Any:
    """What the registered model takes and gives. Any value may be missing, whatever an example says."""
    from mlflow.models import ModelSignature  # noqa: PLC0415 - as above
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    kinds = {column.feature: "double" if column.categories is None else "string" for column in encoder.columns}
    taken = Schema([ColSpec(kind, name, required=False) for name, kind in kinds.items()])
    return ModelSignature(inputs=taken, outputs=Schema([ColSpec("double")]))


def _knobs(estimator: Any) -> Mapping[str, Any]:
    """scikit-learn's parameters of the estimator; of a pipeline, those of its last step."""
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    return {} if last is None else last.get_params(deep=False)


def _finite(found: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


@contextmanager
def _unless_exists() -> Iterator[None]:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - as above

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
