"""The jobs that the Dagster UI launches, run in this process: for `fraud pipeline`, and after what a person decided."""

import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from tqdm import tqdm

from fraud_assets.access.attribution import SIGNED_IN_TAG, who_is_at_the_shell
from fraud_assets.definitions import build
from fraud_assets.delivery import delivery
from fraud_assets.events.causes import chain, is_failed_check, own_sentence
from fraud_assets.installation import Installation
from fraud_assets.operations.judging import require_materialized
from fraud_assets.schedule import planning
from fraud_assets.schedule.state import read_state
from fraud_assets.stages import history, labels
from fraud_assets.stages.landing import load_landing
from fraud_assets.training.training import TrainedModel
from fraud_cli.instance import open_instance, own_process
from fraud_core.errors import FraudError, GateRefusalError, NotYetTrainableError, PartitionError, SourceError, StoreError
from fraud_core.gate import read_verdict
from fraud_core.intake.landing import partition_keys
from fraud_core.intake.refusals import explain_refusals
from fraud_core.settings import Settings
from fraud_core.sources.source import CardholderSplit, Source

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class JobFailedError(FraudError):
    """A job of the pipeline failed; the message is the cause."""


class Pipeline:
    """Runs the jobs of one installation in this process, on the instance that the Dagster UI shows."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.definitions = build(installation)
        self.instance = open_instance(installation.settings)

    def run(
        self,
        job: str,
        partition: str | None = None,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run a job to its end.

        Raises:
            JobFailedError: a step failed, other than by a check that did not pass.
        """
        result = self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=partition,
            raise_on_error=False,
            run_config={**QUIET, **(config or {})},
            tags={**own_process(), **(tags or {})},
        )
        if not result.success:
            failures = result.filter_events(lambda event: event.is_step_failure)
            errors = [event.step_failure_data.error for event in failures]
            if not errors:  # it did not come to a step
                errors = [event.job_failure_data.error for event in result.filter_events(lambda event: event.is_job_failure)]
            if not all(is_failed_check(error) for error in errors) or not errors:
                raise JobFailedError(_cause(errors))
        return result

    def deliver(self) -> None:
        """Push data versions and log to MLflow. What is not taken waits for the next time."""
        self._beside(delivery.has_work, delivery.JOB, "delivering data versions, and records to MLflow")

    def export_labels(self) -> None:
        """Copy labels that came in to where trainings read them."""
        self._beside(labels.has_news, "export_labels", "copying labels that came in")

    def load_history(self) -> None:
        """Bring the scorer's history up to date. The scorer does without where its store is gone."""
        self._beside(history.is_kept, history.JOB, "bringing the scorer's history up to date")

    def _beside(self, is_wanted: Callable[[Installation], bool], job: str, sentence: str) -> None:
        """Run a job that is wanted, and whose failure is said, but stops nothing."""
        try:
            if is_wanted(self.installation):
                say(sentence)
                self.run(job)
        except (StoreError, JobFailedError) as error:
            say(str(error))

    def keys(self, until: str | None) -> list[str]:
        """The partitions to take, in order.

        Raises:
            PartitionError: `until` is not one of them.
        """
        keys = partition_keys(self.installation.source, load_landing(self.installation))
        if until is None:
            return keys
        if until not in keys:
            raise PartitionError(
                f"There is no partition {until}; there are {keys[0]} to {keys[-1]}." if keys else "No data has landed yet."
            )
        return keys[: keys.index(until) + 1]

    def make(self, key: str) -> list[dg.AssetCheckEvaluation]:
        """Make a partition from what has landed, and judge it, as far as that was not done; the checks that did not pass."""
        installation, state = self.installation, read_state(self.installation, key)
        is_made = state.is_up_to_date and state.is_tolerable
        if state.is_up_to_date and state.transformed is not None:
            verdict = read_verdict(installation.artifacts.store, installation.artifacts.signing_key, key)
            if planning.is_judged(verdict, state.transformed.content, installation.rules()):
                return []
        result = self.run("check_partition" if is_made else "materialize_partition", key)
        return [evaluation for evaluation in result.get_asset_check_evaluations() if not evaluation.passed]

    def train(self) -> None:
        """Train on the accepted partitions, unless the champion is what that gave. What stands in the way is said."""
        installation = self.installation
        try:
            task = installation.training_task(installation.training_set())
            if planning.is_champion(task.inputs, installation.artifacts.pointer("model"), installation.latest()):
                say("the champion was trained on exactly these partitions already")
                return
        except (GateRefusalError, NotYetTrainableError) as error:
            say(str(error))
            return
        say("training")
        for evaluation in self.run("train").get_asset_check_evaluations():
            if evaluation.check_name == "beats_champion":
                say(f"{'promoted' if evaluation.passed else 'not promoted'}: {evaluation.description}")


def tell_refusals(installation: Installation) -> None:
    """Say what was refused of the source's rows, before anything is made of the others.

    Raises:
        SourceError: there are no others.
    """
    landing = load_landing(installation)
    if installation.source.simulator is not None or landing is None:
        return
    told = explain_refusals(installation.source, landing, installation.artifacts.store)
    empty = [name for name, file in sorted(landing.files.items()) if not file.rows]
    if not landing.kept:
        raise SourceError(
            told or f"There is no row in {', '.join(empty) or 'the files of this source'}, so there is nothing to do."
        )
    for name in empty:
        say(f"{name} has no rows")
    if told is not None:
        say(told)


def rolling(source: Source) -> Source:
    """The source as automation takes it: a hold-out that a benchmark fixes rolls with the data, too."""
    if isinstance(source.split, CardholderSplit):
        return source
    return source.model_copy(update={"split": source.split.model_copy(update={"holdout_start": None})})


def overrule(settings: Settings, action: Literal["accept", "refuse"], partition: str, *, who: str, reason: str) -> None:
    """Accept or refuse a partition by the job with which it is done in the Dagster UI, which shows what holds from then on.

    Raises:
        PartitionError: it was not materialized.
        JobFailedError: the gate takes no such decision, or not without a reason in words.
    """
    pipeline = Pipeline(Installation.load(settings))
    require_materialized(pipeline.installation, partition)  # Dagster would say less of a partition that it does not know
    config = {"ops": {action: {"config": {"reason": reason}}}}
    pipeline.run(f"{action}_partition", partition, config, {SIGNED_IN_TAG: who_is_at_the_shell(who)})


def deliver(installation: Installation) -> None:
    """Deliver what waits, as after a change of the champion that the command line made."""
    if delivery.has_work(installation):  # else Dagster's definitions need not be built
        Pipeline(installation).deliver()


def summary(installation: Installation, keys: list[str], seconds: float) -> dict[str, Any]:
    """The figures of the last line. What a protocol does not have is null."""
    landing = load_landing(installation)
    raws = installation.artifacts.pointers("raw")
    verdicts = [read_verdict(installation.artifacts.store, installation.artifacts.signing_key, key) for key in keys]
    judged = [verdict for verdict in verdicts if verdict is not None]
    known = set(partition_keys(installation.source, landing))
    refused = [segment for file in landing.files.values() for segment in file.refused] if landing else []
    nowhere = sum(segment.rows for segment in refused if segment.partition not in known)  # undated, or outside of the source
    summary: dict[str, Any] = {
        "rows": sum(int(raws[key].facts["rows"]) for key in keys if key in raws),
        "quarantined": nowhere + sum(int(raws[key].facts["quarantined"]) for key in keys if key in raws),
        "repaired": sum(file.repaired for file in landing.files.values()) if landing else 0,
        "rounded": sum(file.rounded for file in landing.files.values()) if landing else 0,
        "partitions": len(keys),
        "accepted": sum(verdict.is_accepted for verdict in judged),
        "rejected": sum(not verdict.is_accepted for verdict in judged),
    }
    model = _trained(installation)
    report = None if model is None else model.holdout
    card_precision = None if report is None else report.card_precision_at_100
    interval = None if report is None else report.average_precision_interval
    return summary | {
        "version": None if model is None else model.bundle.version,
        "model": None if model is None else model.candidates[0][0],
        "average_precision": None if report is None else report.average_precision,
        "average_precision_ci": None if interval is None else [interval.low, interval.high],
        "roc_auc": None if report is None else report.roc_auc,
        "average_precision_validation": None if model is None else model.validation.average_precision,
        "average_precision_without_history": None if model is None or model.fallback is None else model.fallback.holdout,
        "holdout_looks": None if model is None else model.holdout_looks,
        "card_precision_at_100": None if card_precision is None else card_precision.value,
        "card_precision_at_100_ceiling": None if card_precision is None else card_precision.ceiling,
        "fraud_rate": None if report is None else report.fraud_rate,
        "threshold": None if model is None else model.policy.review_threshold,
        "decline_threshold": None if model is None else model.policy.decline_threshold,
        "seconds": round(seconds, 1),
        "peak_rss_mb": round(_peak_rss_mb(), 1),
    }


def _trained(installation: Installation) -> TrainedModel | None:
    pointer = installation.artifacts.pointer("model")
    try:
        if not planning.is_trained(installation.training_task(installation.training_set()).inputs, pointer):
            return None
    except (GateRefusalError, NotYetTrainableError):
        return None
    model = installation.artifacts.estimator("model")
    assert isinstance(model, TrainedModel)
    return model


def _peak_rss_mb() -> float:
    """The most memory that this process, or any it started, held at once (Linux counts kilobytes)."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the process was that started this one
        own = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    else:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(own, children) / 1024


def _cause(errors: Sequence[Any]) -> str:
    """The message of the first of our own errors behind a failed run, else of the last cause."""
    said = next((sentence for error in errors if (sentence := own_sentence(error)) is not None), None)
    if said is not None:
        return said
    causes = [str(each.message).strip() for error in errors for each in chain(error)]
    return causes[-1] if causes else "The run failed; see it in the Dagster UI."


def say(text: str) -> None:
    """Say a sentence on standard error, beside the bar of progress."""
    tqdm.write(text, file=sys.stderr)
