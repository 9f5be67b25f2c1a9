"""Delivery to other servers: versions of the data to DVC's remote, trainings and verdicts to MLflow.

A run only leaves notes on disk (fraud_assets/delivery/outbox.py). The job `deliver` takes them where they belong; `fraud
pipeline` runs it at its end, and the sensor of that name whenever something waits. A remote that is down or full thus fails that
job alone, which is an alert, and the next one goes on where it stopped.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from fraud_assets.delivery import outbox
from fraud_assets.delivery.dvc import recording
from fraud_assets.delivery.mlflow.records import Logged, Records, TrainingNote, VerdictNote
from fraud_assets.delivery.mlflow.server import KEPT, Server, folder, server
from fraud_assets.delivery.outbox import Entry, held
from fraud_assets.installation import Installation
from fraud_core.errors import DeliveryError, FraudError
from fraud_core.gate import Verdict
from fraud_core.models.registry import ChampionPointer, read_latest
from fraud_core.signing.keys import canonical_json
from fraud_core.storage.artifacts import Document, Estimator, Pointer, Table

JOB = "deliver"
Warn = Callable[[str], object]


def build_jobs(installation: Installation) -> list[dg.JobDefinition]:
    """The job that takes notes where they belong."""

    @dg.op
    def version_data(context: dg.OpExecutionContext) -> None:
        """Commit what was materialized to the data repository, and push it to DVC's remote."""
        made = recording.commit(installation)
        context.log.info(f"{made} data versions were committed.")
        recording.push(installation)

    @dg.op
    def log_to_mlflow(context: dg.OpExecutionContext) -> None:
        """Log trainings and verdicts, and move the alias `champion`."""
        for observation in log_all(installation):
            context.log_event(observation)

    @dg.job(name=JOB, description="Push data versions to DVC's remote, and log trainings and verdicts to MLflow.")
    def deliver() -> None:
        version_data()
        log_to_mlflow()

    return [deliver]


def note(
    installation: Installation, pointer: Pointer, run_id: str, written: Table | Document | Estimator, log: logging.Logger
) -> dict[str, Any]:
    """Leave notes of a materialization; returns what there is to show of it. Nothing here fails a run.

    Args:
        installation: the installation.
        pointer: to what was written.
        run_id: Dagster's.
        written: what was written.
        log: of the run.
    """
    with _harmless(log.warning):
        fitted = written.fitted if isinstance(written, Estimator) else None
        recording.note(installation, pointer, run_id, fitted)
        if pointer.asset == "model" and server(installation.settings) is not None:
            preprocessor = installation.artifacts.pointer("preprocessor")
            if preprocessor is not None:
                left = TrainingNote(run_id=run_id, at=datetime.now(UTC), model=pointer, preprocessor=preprocessor)
                outbox.mlflow(installation.settings).put(outbox.encoded(left))
    if pointer.asset != "model":
        return {}
    with _harmless(log.warning):  # at once, so that the bundle can name its data version
        recording.commit(installation)
    revision = revision_of(installation, str(pointer.facts["version"]), log.warning)
    return {"data_revision": revision or "none"}


def note_verdict(installation: Installation, verdict: Verdict, warn: Warn) -> None:
    """Leave a note of a verdict. Nothing here fails a run."""
    with _harmless(warn):
        if server(installation.settings) is not None:
            outbox.mlflow(installation.settings).put(outbox.encoded(VerdictNote(verdict=verdict)))


def revision_of(installation: Installation, version: str, warn: Warn) -> str | None:
    """The data version behind a model, where it is known by now. Nothing here fails a run."""
    try:
        return recording.revision(installation.settings, version)
    except (FraudError, OSError) as error:
        warn(f"The data version of {version} is not known: {error}")
        return None


def has_work(installation: Installation) -> bool:
    """Whether something waits to be delivered.

    Raises:
        StoreError: the store cannot be asked who is champion.
    """
    if recording.has_work(installation.settings):
        return True
    if server(installation.settings) is None:
        return False
    return len(outbox.mlflow(installation.settings)) > 0 or _unnamed_champion(installation) is not None


def log_all(installation: Installation) -> Iterator[dg.AssetObservation]:
    """Log what waits, oldest first, and let the alias follow the champion; yields what Dagster is to show beside the assets.

    What cannot be logged by its own fault holds up nothing else.

    Raises:
        DeliveryError: something was not taken; it waits on.
    """
    place = server(installation.settings)
    if place is None:
        return
    with held(folder(installation.settings) / ".lock", 0) as alone:
        if alone and (len(outbox.mlflow(installation.settings)) or _unnamed_champion(installation) is not None):
            place.ask()
            with place.connected(), _quiet():
                yield from _log_waiting(installation, place)


def _log_waiting(installation: Installation, place: Server) -> Iterator[dg.AssetObservation]:
    waiting, records = outbox.mlflow(installation.settings), Records(installation, place)
    entries, wrong = waiting.read()
    refused = []
    for entry in entries:
        try:
            with _told(place):
                observation = _log(installation, records, entry)
        except FraudError as error:
            place.ask()  # whether it is the server's fault, and no other will be taken either
            refused.append(f"{_named(entry)} ({error})")
            continue
        yield observation
        waiting.done(entry)
    if wrong:
        refused.append(wrong)
    with _told(place):
        _follow_champion(installation, place, records)
    if refused:
        raise DeliveryError(f"MLflow does not take {len(refused)} of what waits: {'; '.join(refused[:3])}")


def _log(installation: Installation, records: Records, entry: Entry) -> dg.AssetObservation:
    match entry.body["kind"]:
        case "training":
            training = TrainingNote.model_validate(entry.body)
            logged = records.log_training(training)
            _write_beside_card(installation, training, logged)
            return dg.AssetObservation("model", metadata=_shown(logged) | {"training_run": training.run_id})
        case _:
            verdict = VerdictNote.model_validate(entry.body)
            logged = records.log_verdict(verdict)
            return dg.AssetObservation("transformed", partition=verdict.verdict.partition, metadata=_shown(logged))


def _shown(logged: Logged) -> dict[str, Any]:
    return {"mlflow": dg.MetadataValue.url(logged.link), "mlflow_run_id": logged.run_id}


def _write_beside_card(installation: Installation, training: TrainingNote, logged: Logged) -> None:
    """What is known only now goes beside the card of the run, where its model was promoted."""
    version, store = str(training.model.facts["version"]), installation.artifacts.store
    run = f"models/{version}/runs/{training.run_id}"
    if store.exists(f"{run}/card.json"):
        revision = recording.revision(installation.settings, version)
        body = {"mlflow_run_id": logged.run_id, "mlflow_url": logged.link, "data_revision": revision}
        store.put(f"{run}/tracking.json", canonical_json(body))


def _named(entry: Entry) -> str:
    if entry.body["kind"] == "training":
        return f"the training of {entry.body['model']['facts']['version']}"
    return f"the verdict on {entry.body['verdict']['partition']}"


def _follow_champion(installation: Installation, place: Server, records: Records) -> None:
    latest = _unnamed_champion(installation)
    if latest is None:
        return
    if not records.name_champion(latest) and len(outbox.mlflow(installation.settings)):
        return  # its training is still to be logged; one that never was, as from before there was an MLflow, has no name there
    path = folder(installation.settings) / "champion.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"server": place.pages, "sequence": latest.sequence}))
    draft.replace(path)


def _unnamed_champion(installation: Installation) -> ChampionPointer | None:
    """The champion, where the alias was not moved since it became one."""
    place = server(installation.settings)
    latest = read_latest(installation.artifacts.store, installation.artifacts.signing_key)
    if latest is None or place is None:
        return None
    path = folder(installation.settings) / "champion.json"
    named = json.loads(path.read_text()) if path.exists() else {}
    return None if named == {"server": place.pages, "sequence": latest.sequence} else latest


@contextmanager
def _harmless(warn: Warn) -> Iterator[None]:
    """What goes wrong within is told, and harms nobody: it is tried again by the job `deliver`, which fails aloud."""
    try:
        yield
    except (FraudError, OSError) as error:
        warn(f"{error} It is tried again by the job `{JOB}`.")


@contextmanager
def _told(place: Server) -> Iterator[None]:
    """Errors of MLflow's as one of ours. Of a foreign error the name alone is told: its message may hold a password or data."""
    try:
        yield
    except FraudError:
        raise
    except Exception as error:
        raise DeliveryError(
            f"MLflow at {place.pages} does not take it ({type(error).__name__}; the run's log says more). {KEPT}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what MLflow and Alembic tell about themselves."""
    import mlflow as _  # noqa: F401, PLC0415 - which sets the levels anew

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
