"""Sensors: new files land, partitions are taken, the gate is asked for training, and alerts are told.

Plain sensors over the store, one way for all, rather than Dagster's automation conditions. What has to be made follows from
hashes that the store holds: which files went into which partition, which raw partitions into which transformed one. Conditions
know only that `landing` was materialized, and would remake every partition for one new file, and of the past only the newest
window; across the border to the unpartitioned `preprocessor` they launch although the gate rejected. So the sensors ask the
store, as the command `fraud` does, and the gate reads verdicts, never Dagster's records. Whatever they launch, the assets refuse
by themselves what the gate does not allow.

A partition or training that was tried once with the same inputs is not tried again: its failure is an alert, and a person's.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg

from fraud_assets.delivery import delivery
from fraud_assets.events import alerts
from fraud_assets.installation import Installation
from fraud_assets.schedule.proposals import (
    DATA_JOBS,
    TRAINING_JOBS,
    Proposal,
    _busy,
    _comes_first,
    _has_landed,
    _tried_again_at,
    _was_tried,
    next_fraud_rates,
    next_labels,
    next_training,
    unfinished,
)
from fraud_assets.schedule.state import Overview
from fraud_assets.stages import history
from fraud_core.errors import StoreError
from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.history.export import NO_QUERY
from fraud_core.intake.landing import parse_fingerprint
from fraud_core.intake.watch import look
from fraud_core.storage.artifacts import fingerprint

EVERY_SECONDS = 30


def build(installation: Installation) -> list[dg.SensorDefinition]:
    """The sensors. `FRAUD_AUTOMATION=off` leaves those that make something stopped until somebody starts them in the UI."""
    running = dg.DefaultSensorStatus.RUNNING
    switched = running if installation.settings.automation == "on" else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(job_name="land", minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def new_files(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Lands source files that are new or changed, once they have stopped growing."""
        return next_landing(installation, context.cursor).result()

    @dg.sensor(job_name="materialize_partition", minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def due_partitions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Takes partitions that are over and not made from what has landed, oldest first, one at a time."""
        return next_partition(installation, context.instance, datetime.now(UTC)).result()

    @dg.sensor(job_name="train", minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def accepted_partitions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Asks the gate which partitions may train, and trains when these are others than the champion's."""
        return next_training(installation, context.instance, datetime.now(UTC)).result()

    @dg.sensor(job_name="export_labels", minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def new_labels(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Copies labels that came in to where trainings read them, once a day."""
        return next_labels(installation, datetime.now(UTC)).result()

    @dg.sensor(job_name="repeat_fraud_rates", minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def matured_labels(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Repeats the check `fraud_rate` for partitions whose labels have matured since, all in one run."""
        return next_fraud_rates(installation, context.instance, datetime.now(UTC), context.cursor).result()

    @dg.sensor(minimum_interval_seconds=EVERY_SECONDS, default_status=running)
    def alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Tells Alertmanager and the webhook of failed checks and runs, and keeps open alerts open."""
        report = alerts.tick(installation, context.instance, datetime.now(UTC))
        for trouble in report.troubles:
            context.log.warning(trouble)
        return dg.SkipReason(str(report))

    @dg.sensor(job_name=delivery.JOB, minimum_interval_seconds=EVERY_SECONDS, default_status=running)
    def deliver(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Pushes data versions to DVC's remote and logs trainings and verdicts to MLflow, until they are taken."""
        return next_delivery(installation, context.instance, datetime.now(UTC)).result()

    acting = [new_files, due_partitions, new_labels, accepted_partitions, matured_labels, alert, deliver]
    return [*acting, *_of_history(installation, switched)]


def _of_history(installation: Installation, switched: dg.DefaultSensorStatus) -> list[dg.SensorDefinition]:
    """The sensors of what was scored online, and of the source's history where it has one."""

    @dg.sensor(job_name=history.DAILY_JOB, minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def served_day(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Once a day exports what was scored online, and checks that its features were those of the pipeline."""
        return next_served_day(installation, datetime.now(UTC)).result()

    if not history.is_kept(installation):
        return [served_day]

    @dg.sensor(job_name=history.JOB, minimum_interval_seconds=EVERY_SECONDS, default_status=switched)
    def stale_history(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Brings the scorer's history up to date when raw has changed, labels came in, or its store was lost."""
        return next_history(installation, context.instance, datetime.now(UTC)).result()

    return [stale_history, served_day]


def next_landing(installation: Installation, cursor: str | None) -> Proposal:
    """Land when the source's files are others than those last asked for, and were the same on the tick before.

    Raises:
        SourceError: a remote file cannot be asked about.
    """
    seen = look(installation.source)
    if not seen and installation.source.simulator is None:
        return Proposal(f"There are no files yet at {', '.join(installation.source.paths)}.", cursor=cursor)
    now = fingerprint(
        parse_fingerprint(installation.source, installation.card_key),
        *(part for file in seen for part in (file.name, file.stamp)),
    )
    before = json.loads(cursor) if cursor else {}
    if now == before.get("asked") or (cursor is None and _has_landed(installation, seen)):
        return Proposal("No file is new or changed.", cursor=json.dumps({"seen": now, "asked": now}))
    if seen and now != before.get("seen"):
        return Proposal(
            "Files are new or changed; they are read when they are the same on the next look.",
            cursor=json.dumps({"seen": now, "asked": before.get("asked")}),
        )
    return Proposal("Files are new or changed.", run_key=now, cursor=json.dumps({"seen": now, "asked": now}))


def next_partition(installation: Installation, instance: dg.DagsterInstance, now: datetime) -> Proposal:
    """The oldest partition that is over, not finished, and not tried before with the same inputs.

    Raises:
        IntegrityError: a pointer's signature does not hold.
    """
    busy = _busy(instance, DATA_JOBS, now)
    if busy is not None:
        return Proposal(busy)
    overview = Overview.read(installation)
    if overview.unconfirmed is not None:
        return Proposal(overview.unconfirmed)
    for key, stamp in unfinished(installation, overview, now):
        if not _was_tried(instance, stamp):
            return Proposal(f"Partition {key} is not made from what has landed.", run_key=stamp, partition=key)
    return Proposal("Every partition that is over was taken.")


def next_delivery(installation: Installation, instance: dg.DagsterInstance, now: datetime) -> Proposal:
    """Deliver what waits, when nothing else is under way; after failures ever more seldom, up to once an hour.

    Raises:
        StoreError: the store cannot be asked who is champion.
    """
    if not delivery.has_work(installation):
        return Proposal("Nothing waits to be delivered.")
    busy = _busy(instance, (*DATA_JOBS, *TRAINING_JOBS, delivery.JOB), now)
    if busy is not None:
        return Proposal(busy)
    again = _tried_again_at(instance, delivery.JOB)
    if again is not None and now < again:
        return Proposal(f"The last delivery failed; it is tried again at {again:%H:%M} UTC.")
    return Proposal("Data versions, trainings or verdicts wait to be delivered.", run_key=f"{delivery.JOB} {now.isoformat()}")


def next_history(installation: Installation, instance: dg.DagsterInstance, now: datetime) -> Proposal:
    """Bring the history up to date where it is not; after failures ever more seldom, up to once an hour.

    Raises:
        IntegrityError: a pointer's signature does not hold.
    """
    overview = Overview.read(installation)
    first = _busy(instance, (history.JOB,), now) or _comes_first(installation, overview, instance, now)
    if first is not None:
        return Proposal(first)
    again = _tried_again_at(instance, history.JOB)
    if again is not None and now < again:
        return Proposal(f"The history could not be brought up to date; that is tried again at {again:%H:%M} UTC.")
    try:
        with history.catching_up(installation) as catching_up:
            catch_up = replace(catching_up, raws=overview.raws, is_accepted=overview.is_accepted)
            due, labels_wait = catch_up.due(), catch_up.labels_wait()
    except StoreError as error:
        return Proposal(str(error))
    if not due and not labels_wait:
        return Proposal("The history has all that raw and the labels hold.")
    missing = f"The history lacks {', '.join(due)}." if due else "Labels came in."
    return Proposal(missing, run_key=f"{history.JOB} {now.isoformat()}")


def next_served_day(installation: Installation, now: datetime) -> Proposal:
    """Once a day (in UTC), if anything was ever scored."""
    try:
        with history.opened(installation) as store:
            sequence = store.look([NO_QUERY], STANDARD_PLAN)[0].sequence
    except StoreError as error:
        return Proposal(str(error))
    if not sequence:
        return Proposal("No payment was scored yet.")
    return Proposal("A day is over.", run_key=f"{history.DAILY_JOB} {now:%Y-%m-%d}")
