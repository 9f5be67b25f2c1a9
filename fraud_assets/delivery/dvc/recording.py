"""Data versions: one commit for each materialization of raw, transformed, preprocessor and model, and a name for each model.

    assets/<asset>/<partition>/   latest.json, the signed pointer, and what DVC keeps: the file it points at
    drift/<partition>.json        the signed verdicts that a training went by
    training/training.json        signed: what was trained, from which contents, under which settings and source

A materialization only leaves a note in the outbox. The notes become commits when a model is made, so that its bundle can name
the revision, and in the job `deliver`, which pushes, too. So neither git nor DVC nor a remote can fail a run.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from fraud_assets.delivery import outbox
from fraud_assets.delivery.dvc.repository import Repository
from fraud_assets.installation import Installation
from fraud_assets.training.task import TrainingSettings
from fraud_assets.training.training import TrainedModel
from fraud_core import gate
from fraud_core.errors import IntegrityError
from fraud_core.gate.labels import label_verdict_key
from fraud_core.models.manifest import Manifest
from fraud_core.settings import Settings
from fraud_core.signing.documents import signed_document
from fraud_core.signing.keys import canonical_json, sign
from fraud_core.storage.artifacts import Pointer

VERSIONED = ("raw", "transformed", "preprocessor", "model")
OFF = "off"
RUN_PATIENCE = 30.0  # seconds that a run waits for another process that is pushing
TRAINING = "training/training.json"


class Training(BaseModel):
    """What a training was made of. `settings` are the decisive ones; of the source, paths are left out but for their names."""

    model_config = ConfigDict(frozen=True)

    manifest: Manifest
    settings: dict[str, Any]
    source: dict[str, Any]


class Note(BaseModel):
    """A materialization that is to be committed.

    For a model, with the pointers of everything behind it and the verdicts (partition -> their text as it was signed).
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    at: datetime
    pointer: Pointer
    behind: tuple[Pointer, ...] = ()
    verdicts: dict[str, str] = {}
    training: Training | None = None


def is_on(settings: Settings) -> bool:
    """Whether data versions are made."""
    return settings.dvc_remote != OFF


def repository(settings: Settings) -> Repository:
    """The installation's repository of data versions."""
    remote = settings.dvc_remote or str(settings.home / "dvc-remote")
    if "://" not in remote:
        remote = str(Path(remote).expanduser().resolve())
    return Repository(settings.home / "data-versions", remote)


def tag_of(version: str) -> str:
    """How the revision of a model's version is named."""
    return f"model/{version}"


def note(installation: Installation, pointer: Pointer, run_id: str, fitted: Any = None) -> None:
    """Leave a note of a materialization.

    Args:
        installation: the installation.
        pointer: to what was written.
        run_id: Dagster's.
        fitted: of a model, what was written.

    Raises:
        StoreError: the disk of the home does not take it, or the store cannot be asked for what lies behind a model.
    """
    if not is_on(installation.settings) or pointer.asset not in VERSIONED:
        return
    left = Note(run_id=run_id, at=datetime.now(UTC), pointer=pointer)
    if isinstance(fitted, TrainedModel):
        left = left.model_copy(update=_behind(installation, fitted))
    outbox.data_versions(installation.settings).put(outbox.encoded(left))


def commit(installation: Installation, seconds: float = RUN_PATIENCE) -> int:
    """Make the notes that wait into commits, oldest first; returns how many. Waits so long for another process.

    Raises:
        DataVersionError: another process holds the repository, or git or DVC fails. The notes stay.
        IntegrityError: a note is not what this installation wrote; the others are commits.
    """
    waiting = outbox.data_versions(installation.settings)
    if not is_on(installation.settings) or not len(waiting):
        return 0
    repo = repository(installation.settings)
    with repo.locked(seconds):
        entries, wrong = waiting.read()
        notes = [Note.model_validate(entry.body) for entry in entries]
        texts = _take(installation, repo, [pointer for left in notes for pointer in (*left.behind, left.pointer)])
        for entry, left in zip(entries, notes, strict=True):
            _commit(installation, repo, left, texts)
            waiting.done(entry)
    if wrong:
        raise IntegrityError(wrong)
    return len(entries)


def push(installation: Installation) -> None:
    """Push to the remote what it does not have.

    Raises:
        DataVersionError: it is not taken; it is pushed with what comes next, or the next time.
    """
    repo = repository(installation.settings)
    if not is_on(installation.settings) or not repo.exists():
        return
    with repo.locked(RUN_PATIENCE):
        repo.push()


def has_work(settings: Settings) -> bool:
    """Whether something is to be committed or pushed."""
    if not is_on(settings):
        return False
    return len(outbox.data_versions(settings)) > 0 or not repository(settings).is_pushed()


def revision(settings: Settings, version: str) -> str | None:
    """The revision that holds what a model was trained on; None where it is not committed."""
    return repository(settings).tagged(tag_of(version)) if is_on(settings) else None


def _behind(installation: Installation, trained: TrainedModel) -> dict[str, Any]:
    """What belongs to a model's note. Partitions are noted here again, so that nothing lacks that was made without versions."""
    artifacts = installation.artifacts
    transformed = installation.transformed()
    pointers = [*artifacts.pointers("raw").values(), *transformed.values()]
    preprocessor = artifacts.pointer("preprocessor")
    keys = [key_of(partition) for partition in transformed for key_of in (gate.verdict_key, label_verdict_key)]
    source = installation.source.model_dump(mode="json")
    training = Training(
        manifest=trained.bundle.manifest,
        settings=TrainingSettings.model_validate(installation.settings).model_dump(mode="json"),
        source=source | {"paths": [Path(path).name for path in source["paths"]]},
    )
    return {
        "behind": (*pointers, *([preprocessor] if preprocessor is not None else [])),
        "verdicts": {key: artifacts.store.get(key).decode() for key in keys if artifacts.store.exists(key)},
        "training": training,
    }


def _take(installation: Installation, repo: Repository, pointers: list[Pointer]) -> dict[str, str]:
    """Let DVC keep the files that these point at, in one call; returns key -> text of the ``.dvc`` file."""
    texts: dict[str, str] = {}
    missing: dict[str, Path] = {}
    for pointer in pointers:
        held = _held(repo, pointer)
        if held is not None:
            texts[pointer.key] = held
            continue
        try:
            installation.artifacts.store.get_hashed(pointer.key, pointer.sha256)
            missing[pointer.key] = installation.artifacts.store.local_path(pointer.key)
        except IntegrityError as error:  # somebody cleared it away or changed it; its hash is kept all the same
            installation.tell(f"{error} It cannot be versioned.")
    return texts | repo.add(missing)


def _held(repo: Repository, pointer: Pointer) -> str | None:
    """The text of the ``.dvc`` file, where the repository has this very file as the current one."""
    path, latest = repo.folder / f"{pointer.key}.dvc", (repo.folder / pointer.key).with_name("latest.json")
    if not path.exists() or not latest.exists() or json.loads(latest.read_text())["sha256"] != pointer.sha256:
        return None
    return path.read_text()


def _commit(installation: Installation, repo: Repository, left: Note, texts: Mapping[str, str]) -> None:
    signing_key, pointer = installation.artifacts.signing_key, left.pointer
    folders: dict[str, dict[str, str]] = {}
    for held in (*left.behind, pointer):
        path = Path(held.key)
        files = {"latest.json": signed_document(held, signing_key).decode()}
        if held.key in texts:
            files[f"{path.name}.dvc"] = texts[held.key]
        folders[path.parent.as_posix()] = files
    told = {"Dagster-Run": left.run_id, "Partition": pointer.partition or "none", "Content": pointer.content}
    if left.training is not None:
        folders["drift"] = {Path(key).name: text for key, text in left.verdicts.items()}
        folders["training"] = {"training.json": canonical_json(sign(outbox.encoded(left.training), signing_key)).decode()}
        told["Version"] = left.training.manifest.version
    subject = f"{pointer.asset} {pointer.partition}" if pointer.partition else pointer.asset
    made = repo.commit(subject, "\n".join(f"{name}: {value}" for name, value in told.items()), folders, left.at)
    if left.training is not None:
        repo.tag(tag_of(left.training.manifest.version), made)
