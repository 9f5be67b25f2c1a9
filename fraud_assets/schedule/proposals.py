"""Proposals: which run comes next, and why, or why none does. It starts nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

import dagster as dg

from fraud_assets.installation import Installation
from fraud_assets.runtime import spreading
from fraud_assets.schedule.planning import PartitionState, is_judged, is_trained
from fraud_assets.schedule.state import Overview
from fraud_assets.stages import labels
from fraud_assets.stages.landing import load_landing
from fraud_assets.stages.volume import mature_instant
from fraud_core.errors import GateRefusalError, NotYetTrainableError
from fraud_core.gate.labels import label_index
from fraud_core.intake.landing import Landing, parse_fingerprint, partition_keys
from fraud_core.intake.watch import Seen
from fraud_core.models.bundle import read_manifest
from fraud_core.models.registry import ChampionPointer
from fraud_core.sources import partitions
from fraud_core.storage.artifacts import Pointer, fingerprint

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
MATURED_AT_ONCE = 50
PAUSES = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 4, 8, 15, 30, 60))  # after so many failed deliveries


@dataclass(frozen=True)
class Proposal:
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


def next_training(installation: Installation, instance: dg.DagsterInstance, now: datetime) -> Proposal:
    """Train when the accepted set is neither the champion's nor that of the last training, and no partition is on its way.

    Raises:
        IntegrityError: a pointer's signature does not hold.
    """
    overview = Overview.read(installation)
    first = overview.unconfirmed or _comes_first(installation, overview, instance, now)
    if first is not None:
        return Proposal(first)
    artifacts, latest = installation.artifacts, installation.latest()
    trained, known = artifacts.pointer("model"), artifacts.pointer("labels")
    held = label_index(artifacts.store, artifacts.signing_key, artifacts.heads).read()
    asked = fingerprint(
        *(pointer.sha256 for pointer in (trained, known) if pointer is not None),
        "" if latest is None else str(latest.sequence),
        "" if overview.rules is None else overview.rules.sha256,
        *(f"{key} {pointer.sha256}" for key, pointer in overview.transformed.items()),
        *(f"{key} {summary.model_dump_json()}" for key, summary in (*overview.verdicts.items(), *held.items())),
    )
    if asked not in installation.trainings:
        installation.trainings.clear()
        installation.trainings[asked] = _training_due(installation, trained, latest)
    why, stamp = installation.trainings[asked]
    if stamp is not None and _was_tried(instance, stamp):
        return Proposal("Training on these partitions was tried, and its run failed; start the job `train` when it can succeed.")
    return Proposal(why, run_key=stamp)


def _training_due(installation: Installation, trained: Pointer | None, latest: ChampionPointer | None) -> tuple[str, str | None]:
    """Whether a training is due, by what every verdict says in its own place: why, and by which key."""
    try:
        allowed = installation.training_set()
        task = installation.training_task(allowed)
    except (GateRefusalError, NotYetTrainableError) as refusal:
        return str(refusal), None
    if is_trained(task.inputs, trained):
        return "The last training was on exactly these partitions.", None
    if latest is not None:
        lineage = read_manifest(installation.artifacts.store, latest.version, installation.artifacts.signing_key).lineage
        if (lineage.training_set, lineage.labels) == (task.lineage.training_set, task.lineage.labels):
            return f"Champion {latest.version} was trained on exactly these partitions.", None
    # What was tried includes from where: a set may come back after another was trained in between.
    stamp = fingerprint(task.inputs, "" if trained is None else trained.sha256, str(0 if latest is None else latest.sequence))
    return f"The gate accepts {len(allowed.accepted)} partitions, others than the champion's.", stamp


def next_labels(installation: Installation, now: datetime) -> Proposal:
    """Export the labels that came in, once a day.

    Raises:
        StoreError: the database cannot be used.
    """
    if labels.are_waiting(installation, now):
        return Proposal("Labels came in.", run_key=f"labels {now:%Y-%m-%d}")
    return Proposal("No label has come in since the last export, or today's was made.")


def next_fraud_rates(installation: Installation, instance: dg.DagsterInstance, now: datetime, cursor: str | None) -> Proposal:
    """Judge the fraud rates again where labels have matured since the instant that the cursor holds.

    Raises:
        IntegrityError: a pointer's signature does not hold.
    """
    overview = Overview.read(installation)
    first = _comes_first(installation, overview, instance, now)
    if first is not None:
        return Proposal(first, cursor=cursor)
    present = {key: pointer for key, pointer in overview.transformed.items() if pointer.rows}
    if not present:
        return Proposal("No partition with rows is materialized.", cursor=cursor)
    until = mature_instant(installation, present)
    since = datetime.fromisoformat(cursor) if cursor else datetime.fromtimestamp(0, UTC)
    windows = {key: partitions.window(key, installation.source.cadence, installation.source.zone) for key in present}
    matured = [key for key, (start, end) in windows.items() if since < until and since < end and start < until]
    if not matured:
        return Proposal("No label has matured since.", cursor=cursor)
    taken = matured[:MATURED_AT_ONCE]
    if len(taken) < len(matured):
        until = min(until, windows[taken[-1]][1])
    return Proposal(
        f"Labels have matured in {taken[0]} to {taken[-1]}.",
        run_key=fingerprint(until.isoformat(), *(f"{key} {present[key].content}" for key in taken)),
        cursor=until.isoformat(),
        config={"ops": {"judge_again": {"config": {"partitions": taken}}}},
    )


def unfinished(installation: Installation, overview: Overview, now: datetime) -> Iterator[tuple[str, str]]:
    """Partitions that are over, can be made, and are not made from what has landed; each with a hash of what it is to be made of.

    A partition without a verdict is none of them, if it is made: whoever removed the verdict may have removed a person's
    refusal, so that is for a person to run again.
    """
    if overview.landing is None:
        return
    for key in due_keys(installation, overview.landing, now):
        state = PartitionState.of(installation.source, overview.landing, key, overview.raws.get, overview.transformed.get)
        verdict, made = overview.verdicts.get(key), state.transformed
        is_stale = made is not None and verdict is not None and not is_judged(verdict, made.content, overview.rules)
        if state.can_be_made and (not state.is_up_to_date or is_stale):
            yield key, state.stamp(overview.rules)


def due_keys(installation: Installation, landing: Landing, now: datetime) -> list[str]:
    """Partitions whose time is over; of files, none after the last one that has rows."""
    source, landed = installation.source, landing.partitions()
    keys = [key for key in partition_keys(source, landing) if partitions.window(key, source.cadence, source.zone)[1] <= now]
    if source.simulator is not None:
        return keys
    return [key for key in keys if landed and key <= landed[-1]]


def _has_landed(installation: Installation, seen: list[Seen]) -> bool:
    """Whether somebody landed these very files, as far as names and sizes tell."""
    landing = load_landing(installation)
    if landing is None or landing.parse != parse_fingerprint(installation.source, installation.card_key):
        return False
    return {name: file.size for name, file in landing.files.items()} == {file.name: file.size for file in seen}


def _comes_first(installation: Installation, overview: Overview, instance: dg.DagsterInstance, now: datetime) -> str | None:
    """Why to wait: data is on its way, or a training is."""
    busy = _busy(instance, (*DATA_JOBS, *TRAINING_JOBS), now)
    if busy is not None:
        return busy
    waiting = (key for key, stamp in unfinished(installation, overview, now) if not _was_tried(instance, stamp))
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
