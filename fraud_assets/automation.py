"""Everything that acts by itself: new files land, partitions are taken, the gate is asked for training, and alerts are told.

Plain sensors over the store, one way for all, rather than Dagster's automation conditions. What has to be made follows from
hashes that the store holds: which files went into which partition, which raw partitions into which transformed one. Conditions
know only that `landing` was materialized, and would remake every partition for one new file, and of the past only the newest
window; across the border to the unpartitioned `preprocessor` they launch although the gate rejected. So the sensors ask the
store, as the command `fraud` does, and the gate reads verdicts, never Dagster's records. Whatever they launch, the assets refuse
by themselves what the gate does not allow.

A partition or training that was tried once with the same inputs is not tried again: its failure is an alert, and a person's.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

import dagster as dg

from fraud_assets import alerts, delivery, history, labels, spreading
from fraud_assets.landing import load_landing
from fraud_assets.learning.rows import Data
from fraud_assets.learning.training import training_inputs
from fraud_assets.project import Project
from fraud_assets.volume import mature_instant
from fraud_core import gate, partitions
from fraud_core.artifacts import Pointer, fingerprint
from fraud_core.bundle import read_bundle
from fraud_core.errors import GateRefusalError, IntegrityError, NotYetTrainableError, StoreError
from fraud_core.gate import Rules
from fraud_core.intake.landing import Landing, parse_fingerprint, partition_keys
from fraud_core.intake.raw import raw_inputs
from fraud_core.intake.watch import Seen, look
from fraud_core.served import NOWHERE
from fraud_core.transform import transformed_inputs

DATA_JOBS = ("land", "materialize_partition", "run_partition", *spreading.JOBS)
TRAINING_JOBS = ("train", "run_partition")
UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
SILENCE = timedelta(hours=12)  # an unfinished run that is older belongs to a process that was killed
RUN_KEY_TAG = "dagster/run_key"
EVERY_SECONDS = 30
MATURED_AT_ONCE = 50
PAUSES = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 4, 8, 15, 30, 60))  # after so many failed deliveries


@dataclass(frozen=True)
class Step:
    """What a sensor decides: a run of its job, or none; and in a sentence, why. `cursor` is what it remembers."""

    why: str
    run_key: str | None = None
    partition: str | None = None
    cursor: str | None = None
    config: Mapping[str, Any] | None = None

    def result(self) -> dg.SensorResult:
        """In Dagster's terms."""
        if self.run_key is None:
            return dg.SensorResult(skip_reason=self.why, cursor=self.cursor)
        request = dg.RunRequest(
            run_key=self.run_key, run_config=self.config, partition_key=self.partition, tags={"fraud/why": self.why[:250]}
        )
        return dg.SensorResult(run_requests=[request], cursor=self.cursor)


def build(project: Project) -> list[dg.SensorDefinition]:
    """The sensors. `FRAUD_AUTOMATION=off` leaves those that make something stopped until somebody starts them in the UI."""
    running = dg.DefaultSensorStatus.RUNNING
    switched = running if project.settings.automation == "on" else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(job_name="land", minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def new_files(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Lands source files that are new or changed, once they have stopped growing."""
        return next_landing(project, context.cursor).result()

    @dg.sensor(job_name="materialize_partition", minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def due_partitions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Takes partitions that are over and not made from what has landed, oldest first, one at a time."""
        return next_partition(project, context.instance, datetime.now(UTC)).result()

    @dg.sensor(job_name="train", minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def accepted_partitions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Asks the gate which partitions may train, and trains when these are others than the champion's."""
        return next_training(project, context.instance, datetime.now(UTC)).result()

    @dg.sensor(job_name="export_labels", minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def new_labels(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Copies labels that came in to where trainings read them, once a day."""
        return next_labels(project, datetime.now(UTC)).result()

    @dg.sensor(job_name="repeat_fraud_rates", minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def matured_labels(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Repeats the check `fraud_rate` for partitions whose labels have matured since, all in one run."""
        return next_fraud_rates(project, context.instance, datetime.now(UTC), context.cursor).result()

    @dg.sensor(minimum_interval_seconds=EVERY_SECONDS, default_status=running)
    def alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Tells Alertmanager and the webhook of failed checks and runs, and keeps open alerts open."""
        report = alerts.tick(project, context.instance, datetime.now(UTC))
        for trouble in report.troubles:
            context.log.warning(trouble)
        return dg.SkipReason(str(report))

    @dg.sensor(job_name=delivery.JOB, minimum_interval_seconds=EVERY_SECONDS, default_status=running)
    def deliver(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Pushes data versions to DVC's remote and logs trainings and verdicts to MLflow, until they are taken."""
        return next_delivery(project, context.instance, datetime.now(UTC)).result()

    acting = [new_files, due_partitions, new_labels, accepted_partitions, matured_labels, alert, deliver]
    return [*acting, *_of_history(project, switched)]


def _of_history(project: Project, switched: dg.DefaultSensorStatus) -> list[dg.SensorDefinition]:
    """The sensors of what was scored online, and of the source's history where it has one."""

    @dg.sensor(job_name=history.DAILY_JOB, minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def served_day(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Once a day exports what was scored online, and checks that its features were those of the pipeline."""
        return next_served_day(project, datetime.now(UTC)).result()

    if not history.is_kept(project):
        return [served_day]

    @dg.sensor(job_name=history.JOB, minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def stale_history(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Brings the scorer's history up to date when raw has changed, labels came in, or its store was lost."""
        return next_history(project, context.instance, datetime.now(UTC)).result()

    return [stale_history, served_day]


def next_landing(project: Project, cursor: str | None) -> Step:
    """Land when the source's files are others than those last asked for, and were the same on the tick before.

    Raises:
        SourceError: a remote file cannot be asked about.
    """
    seen = look(project.source)
    if not seen and project.source.simulator is None:
        return Step(f"There are no files yet at {', '.join(project.source.paths)}.", cursor=cursor)
    now = fingerprint(
        parse_fingerprint(project.source, project.card_key), *(part for file in seen for part in (file.name, file.stamp))
    )
    before = json.loads(cursor) if cursor else {}
    if now == before.get("asked") or (cursor is None and _has_landed(project, seen)):
        return Step("No file is new or changed.", cursor=json.dumps({"seen": now, "asked": now}))
    if seen and now != before.get("seen"):
        return Step(
            "Files are new or changed; they are read when they are the same on the next look.",
            cursor=json.dumps({"seen": now, "asked": before.get("asked")}),
        )
    return Step("Files are new or changed.", run_key=now, cursor=json.dumps({"seen": now, "asked": now}))


def next_partition(project: Project, instance: dg.DagsterInstance, now: datetime) -> Step:
    """The oldest partition that is over, not finished, and not tried before with the same inputs.

    Raises:
        IntegrityError: a pointer's signature does not hold.
    """
    busy = _busy(instance, DATA_JOBS, now)
    if busy is not None:
        return Step(busy)
    unconfirmed = _unconfirmed(project)
    if unconfirmed is not None:
        return Step(unconfirmed)
    for key, stamp in unfinished(project, now):
        if not _was_tried(instance, stamp):
            return Step(f"Partition {key} is not made from what has landed.", run_key=stamp, partition=key)
    return Step("Every partition that is over was taken.")


def next_training(project: Project, instance: dg.DagsterInstance, now: datetime) -> Step:
    """Train when the accepted set is neither the champion's nor that of the last training, and no partition is on its way.

    Raises:
        IntegrityError: a pointer's signature does not hold.
    """
    first = _unconfirmed(project) or _comes_first(project, instance, now)
    if first is not None:
        return Step(first)
    try:
        allowed = project.training_set()
        inputs, outcomes = training_inputs(project, allowed), Data.of(project).fingerprint()
    except (GateRefusalError, NotYetTrainableError) as refusal:
        return Step(str(refusal))
    trained = project.artifacts.pointer("model")
    store, signing_key = project.artifacts.store, project.artifacts.signing_key
    latest = project.latest()
    if trained is not None and trained.inputs == inputs:
        return Step("The last training was on exactly these partitions.")
    if latest is not None:
        lineage = read_bundle(store, latest.version, signing_key).manifest.lineage
        if (lineage.training_set, lineage.labels) == (gate.fingerprint(allowed), outcomes):
            return Step(f"Champion {latest.version} was trained on exactly these partitions.")
    # What was tried includes from where: a set may come back after another was trained in between.
    stamp = fingerprint(inputs, "" if trained is None else trained.sha256, str(0 if latest is None else latest.sequence))
    if _was_tried(instance, stamp):
        return Step("Training on these partitions was tried, and its run failed; start the job `train` when it can succeed.")
    return Step(f"The gate accepts {len(allowed.accepted)} partitions, others than the champion's.", run_key=stamp)


def next_labels(project: Project, now: datetime) -> Step:
    """Export the labels that came in, once a day.

    Raises:
        StoreError: the database cannot be used.
    """
    if labels.are_waiting(project, now):
        return Step("Labels came in.", run_key=f"labels {now:%Y-%m-%d}")
    return Step("No label has come in since the last export, or today's was made.")


def next_fraud_rates(project: Project, instance: dg.DagsterInstance, now: datetime, cursor: str | None) -> Step:
    """Judge the fraud rates again where labels have matured since the instant that the cursor holds.

    Raises:
        IntegrityError: a pointer's signature does not hold.
    """
    first = _comes_first(project, instance, now)
    if first is not None:
        return Step(first, cursor=cursor)
    present = {key: pointer for key, pointer in project.transformed().items() if pointer.rows}
    if not present:
        return Step("No partition with rows is materialized.", cursor=cursor)
    until = mature_instant(project, present)
    since = datetime.fromisoformat(cursor) if cursor else datetime.fromtimestamp(0, UTC)
    windows = {key: partitions.window(key, project.source.cadence, project.source.zone) for key in present}
    matured = [key for key, (start, end) in windows.items() if since < until and since < end and start < until]
    if not matured:
        return Step("No label has matured since.", cursor=cursor)
    taken = matured[:MATURED_AT_ONCE]
    if len(taken) < len(matured):
        until = min(until, windows[taken[-1]][1])
    return Step(
        f"Labels have matured in {taken[0]} to {taken[-1]}.",
        run_key=fingerprint(until.isoformat(), *(f"{key} {present[key].content}" for key in taken)),
        cursor=until.isoformat(),
        config={"ops": {"judge_again": {"config": {"partitions": taken}}}},
    )


def next_delivery(project: Project, instance: dg.DagsterInstance, now: datetime) -> Step:
    """Deliver what waits, when nothing else is under way; after failures ever more seldom, up to once an hour.

    Raises:
        StoreError: the store cannot be asked who is champion.
    """
    if not delivery.has_work(project):
        return Step("Nothing waits to be delivered.")
    busy = _busy(instance, (*DATA_JOBS, *TRAINING_JOBS, delivery.JOB), now)
    if busy is not None:
        return Step(busy)
    again = _tried_again_at(instance, delivery.JOB)
    if again is not None and now < again:
        return Step(f"The last delivery failed; it is tried again at {again:%H:%M} UTC.")
    return Step("Data versions, trainings or verdicts wait to be delivered.", run_key=f"{delivery.JOB} {now.isoformat()}")


def next_history(project: Project, instance: dg.DagsterInstance, now: datetime) -> Step:
    """Bring the history up to date where it is not; after failures ever more seldom, up to once an hour.

    Raises:
        IntegrityError: a pointer's signature does not hold.
    """
    first = _busy(instance, (history.JOB,), now) or _comes_first(project, instance, now)
    if first is not None:
        return Step(first)
    again = _tried_again_at(instance, history.JOB)
    if again is not None and now < again:
        return Step(f"The history could not be brought up to date; that is tried again at {again:%H:%M} UTC.")
    try:
        with history.catching_up(project) as catch_up:
            due, labels_wait = catch_up.due(), catch_up.labels_wait()
    except StoreError as error:
        return Step(str(error))
    if not due and not labels_wait:
        return Step("The history has all that raw and the labels hold.")
    missing = f"The history lacks {', '.join(due)}." if due else "Labels came in."
    return Step(missing, run_key=f"{history.JOB} {now.isoformat()}")


def next_served_day(project: Project, now: datetime) -> Step:
    """Once a day (in UTC), if anything was ever scored."""
    try:
        with history.opened(project) as store:
            sequence = store.look([NOWHERE])[0].sequence
    except StoreError as error:
        return Step(str(error))
    if not sequence:
        return Step("No payment was scored yet.")
    return Step("A day is over.", run_key=f"{history.DAILY_JOB} {now:%Y-%m-%d}")


def unfinished(project: Project, now: datetime) -> Iterator[tuple[str, str]]:
    """Partitions that are over, can be made, and are not made from what has landed; each with a hash of what it is to be made of.

    A partition without a verdict is none of them, if it is made: whoever removed the verdict may have removed a person's
    refusal, so that is for a person to run again.
    """
    landing = load_landing(project)
    if landing is None:
        return
    source, raws, transformed = project.source, project.artifacts.pointers("raw"), project.transformed()
    rules = _rules(project)
    confirmed = [rules.sha256] if rules is not None and rules.confirmed is not None else []
    for key in due_keys(project, landing, now):
        preceding = [raws.get(other) for other in source.preceding(key)]
        present = [raw for raw in preceding if raw is not None]
        if len(present) < len(preceding):
            continue  # one before it has to be made first
        wanted = raw_inputs(landing, key)
        raw, made = raws.get(key), transformed.get(key)
        if (
            raw is None
            or made is None
            or raw.inputs != wanted
            or made.inputs != transformed_inputs(source, [*present, raw])
            or _is_stale(project, key, made, rules)
        ):
            yield key, fingerprint(key, wanted, transformed_inputs(source, present), *confirmed)


def due_keys(project: Project, landing: Landing, now: datetime) -> list[str]:
    """Partitions whose time is over; of files, none after the last one that has rows."""
    source, landed = project.source, landing.partitions()
    keys = [key for key in partition_keys(source, landing) if partitions.window(key, source.cadence, source.zone)[1] <= now]
    if source.simulator is not None:
        return keys
    return [key for key in keys if landed and key <= landed[-1]]


def _unconfirmed(project: Project) -> str | None:
    """Why nothing is judged: the source's TOML changes the rules of the gate, and nobody has confirmed that."""
    try:
        project.rules()
    except GateRefusalError as refusal:
        return str(refusal)
    return None


def _rules(project: Project) -> Rules | None:
    """The rules of the gate; None where a person has to confirm them first, so that nothing is judged anew by then."""
    try:
        return project.rules()
    except GateRefusalError:
        return None


def _is_stale(project: Project, key: str, made: Pointer, rules: Rules | None) -> bool:
    """Whether the verdict speaks of other content, or was found by other rules."""
    try:
        verdict = gate.read_verdict(project.artifacts.store, project.artifacts.signing_key, key)
    except IntegrityError:
        return False
    if verdict is None:
        return False
    return verdict.content != made.content or (rules is not None and not rules.holds(verdict.rules))


def _has_landed(project: Project, seen: list[Seen]) -> bool:
    """Whether somebody landed these very files, as far as names and sizes tell."""
    landing = load_landing(project)
    if landing is None or landing.parse != parse_fingerprint(project.source, project.card_key):
        return False
    return {name: file.size for name, file in landing.files.items()} == {file.name: file.size for file in seen}


def _comes_first(project: Project, instance: dg.DagsterInstance, now: datetime) -> str | None:
    """Why to wait: data is on its way, or a training is."""
    busy = _busy(instance, (*DATA_JOBS, *TRAINING_JOBS), now)
    if busy is not None:
        return busy
    waiting = (key for key, stamp in unfinished(project, now) if not _was_tried(instance, stamp))
    key = next(waiting, None)
    return None if key is None else f"Partition {key} comes first."


def _busy(instance: dg.DagsterInstance, jobs: tuple[str, ...], now: datetime) -> str | None:
    """Why to wait: a run of these jobs is under way."""
    for run in instance.get_runs(dg.RunsFilter(statuses=list(UNFINISHED), updated_after=now - SILENCE)):
        if run.job_name in jobs:
            return f"A run of {run.job_name} is under way."
    return None


def _tried_again_at(instance: dg.DagsterInstance, job: str) -> datetime | None:
    """Until when a job rests whose last runs failed; None: the last one did not."""
    last = instance.get_run_records(dg.RunsFilter(job_name=job), limit=len(PAUSES))
    failures = list(takewhile(lambda record: record.dagster_run.status == dg.DagsterRunStatus.FAILURE, last))
    return failures[0].create_timestamp + PAUSES[len(failures) - 1] if failures else None


def _was_tried(instance: dg.DagsterInstance, stamp: str) -> bool:
    return instance.get_runs_count(dg.RunsFilter(tags={RUN_KEY_TAG: stamp})) > 0
