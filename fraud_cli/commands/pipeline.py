"""`fraud pipeline`: every partition in order through the jobs that the Dagster UI launches, then a training."""

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
from tqdm import tqdm

from fraud_assets.access.attribution import who_is_at_the_shell
from fraud_assets.definitions import build
from fraud_assets.delivery import delivery
from fraud_assets.events.causes import chain, is_failed_check, own_sentence
from fraud_assets.installation import Installation
from fraud_assets.operations.judging import decide_partition
from fraud_assets.operations.overruling import confirm_rules_of
from fraud_assets.schedule import planning
from fraud_assets.schedule.state import read_state
from fraud_assets.stages import history, labels
from fraud_assets.stages.landing import load_landing
from fraud_assets.training.training import TrainedModel
from fraud_cli.commands.spread import spread
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

    def run(self, job: str, partition: str | None = None) -> dg.ExecuteInProcessResult:
        """Run a job to its end.

        Raises:
            JobFailedError: a step failed, other than by a check that did not pass.
        """
        result = self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=partition,
            raise_on_error=False,
            run_config=QUIET,
            tags=own_process(),
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
        """Push data versions and log to MLflow. What is not taken is said, and waits for the next time."""
        if not delivery.has_work(self.installation):
            return
        _say("delivering data versions, and records to MLflow")
        try:
            self.run(delivery.JOB)
        except JobFailedError as error:
            _say(str(error))

    def export_labels(self) -> None:
        """Copy labels that came in to where trainings read them. A database that is gone is said, and stops nothing."""
        try:
            if labels.has_news(self.installation):
                _say("copying labels that came in")
                self.run("export_labels")
        except (StoreError, JobFailedError) as error:
            _say(str(error))

    def load_history(self) -> None:
        """Bring the scorer's history up to date. A store that is gone is said, and stops nothing: the scorer does without."""
        if not history.is_kept(self.installation):
            return
        _say("bringing the scorer's history up to date")
        try:
            self.run(history.JOB)
        except JobFailedError as error:
            _say(str(error))

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

    def is_made(self, key: str) -> bool:
        """Whether raw and transformed are made from what has landed."""
        state = read_state(self.installation, key)
        return state.is_up_to_date and state.is_tolerable

    def is_finished(self, key: str) -> bool:
        """Whether the partition is made from what has landed, and judged."""
        installation, state = self.installation, read_state(self.installation, key)
        if state.transformed is None or not state.is_up_to_date:
            return False
        verdict = read_verdict(installation.artifacts.store, installation.artifacts.signing_key, key)
        return planning.is_judged(verdict, state.transformed.content, installation.rules())

    def is_trained(self) -> bool:
        """Whether the champion is what training on the accepted partitions gave.

        Raises:
            GateRefusalError: there is nothing that may be trained on.
            NotYetTrainableError: there is too little of it by now, since the split was declared otherwise.
        """
        task = self.installation.training_task(self.installation.training_set())
        return planning.is_champion(task.inputs, self.installation.artifacts.pointer("model"), self.installation.latest())


def run_pipeline(settings: Settings, files: tuple[str, ...], *, until: str | None, each: bool) -> int:
    """Run everything; the last line of standard output is one JSON object."""
    begin = time.monotonic()
    installation = Installation.load(settings, files, _say)
    installation.artifacts.check_writable()
    installation.rules()  # refuses before any work where the TOML changes them
    if each:
        installation = replace(installation, source=rolling(installation.source))
    pipeline = Pipeline(installation)
    _say(f"{installation.source.name} -> {installation.artifacts.store.url}")
    _say("reading source files")
    pipeline.run("land")
    tell_refusals(installation)
    keys = pipeline.keys(until)
    if settings.broker is not None and not each:
        spread(installation, pipeline.instance, keys, _say)
    bar = tqdm(keys, desc="partitions", unit="partition", file=sys.stderr, disable=None)
    for key in bar:
        bar.set_postfix_str(key)
        if bar.disable:  # no terminal: a line each
            _say(key)
        if not pipeline.is_finished(key):
            result = pipeline.run("check_partition" if pipeline.is_made(key) else "materialize_partition", key)
            for evaluation in result.get_asset_check_evaluations():
                if not evaluation.passed:
                    bar.write(f"{key}: {evaluation.check_name}: {evaluation.description}", file=sys.stderr)
        if each:
            _train(pipeline)
    pipeline.export_labels()
    if not each:
        _train(pipeline)
    pipeline.load_history()
    pipeline.deliver()
    print(json.dumps(_summary(installation, keys, time.monotonic() - begin)))
    return 0


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
        _say(f"{name} has no rows")
    if told is not None:
        _say(told)


def rolling(source: Source) -> Source:
    """The source as automation takes it: a hold-out that a benchmark fixes rolls with the data, too."""
    if isinstance(source.split, CardholderSplit):
        return source
    return source.model_copy(update={"split": source.split.model_copy(update={"holdout_start": None})})


def overrule(settings: Settings, partition: str, *, accept: bool, who: str, reason: str) -> int:
    """Accept or refuse a partition, and run the gate's check again, so that Dagster shows what holds."""
    installation = Installation.load(settings)
    pipeline = Pipeline(installation)
    decide_partition(installation, partition, accept=accept, who=who_is_at_the_shell(who), reason=reason)
    pipeline.run("judge_partition", partition)
    print(f"{partition} is {'accepted' if accept else 'refused'}. The next training takes that into account.")
    return 0


def confirm_rules(settings: Settings, *, who: str, reason: str, restored: bool) -> int:
    """Let the rules of the gate be those that the source's TOML declares; the next run judges every partition anew."""
    said = confirm_rules_of(Installation.load(settings), who=who_is_at_the_shell(who), reason=reason, restored=restored)
    print(said)
    return 0


def deliver(installation: Installation) -> None:
    """Deliver what waits, as after a change of the champion that the command line made."""
    if delivery.has_work(installation):
        Pipeline(installation).deliver()


def _train(pipeline: Pipeline) -> None:
    try:
        if pipeline.is_trained():
            _say("the champion was trained on exactly these partitions already")
            return
    except (GateRefusalError, NotYetTrainableError) as error:
        _say(str(error))
        return
    _say("training")
    result = pipeline.run("train")
    for evaluation in result.get_asset_check_evaluations():
        if evaluation.check_name == "beats_champion":
            _say(f"{'promoted' if evaluation.passed else 'not promoted'}: {evaluation.description}")


def _summary(installation: Installation, keys: list[str], seconds: float) -> dict[str, Any]:
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


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
