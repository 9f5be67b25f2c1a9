"""Check out a data version: what a model was trained on, verified by hash, on any machine that has the remote and the key."""

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from fraud_assets.delivery.dvc.recording import RUN_PATIENCE, TRAINING, Training, is_on, repository, tag_of
from fraud_assets.delivery.dvc.repository import Repository
from fraud_assets.installation import Installation
from fraud_assets.training.training import fit_preprocessor, train
from fraud_core import gate
from fraud_core.errors import DataVersionError, IntegrityError
from fraud_core.gate.labels import without_held
from fraud_core.models.manifest import Lineage
from fraud_core.settings import Settings
from fraud_core.signing import keys
from fraud_core.signing.documents import open_document
from fraud_core.sources.source import Source
from fraud_core.storage.artifacts import Artifacts
from fraud_core.storage.directory import DirectoryStore
from fraud_core.training_data.transform import transformed_inputs


@dataclass(frozen=True)
class Checkout:
    """A data version that was brought back.

    Attributes:
        folder: a home of its own, whose `store` holds raw, transformed, preprocessor and model, and the gate's verdicts.
        revision: of the data repository.
        training: what was trained.
        files: how many files were verified.
        size: their bytes.
    """

    folder: Path
    revision: str
    training: Training
    files: int
    size: int


def checkout(settings: Settings, version: str, folder: Path) -> Checkout:
    """Bring back exactly what a model was trained on. The folder is there whole, or not at all.

    Args:
        settings: the installation's; on another machine, its DVC remote and signing key are enough.
        version: a model's.
        folder: which must not exist yet, or be empty.

    Raises:
        DataVersionError: the version is unknown, the folder is taken, or the remote does not give what it should.
        IntegrityError: something is not what this installation's key has signed.
    """
    if not is_on(settings):
        raise DataVersionError("Data versions are switched off; set FRAUD_DVC_REMOTE to where they were pushed.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataVersionError(f"{folder} is not empty; name another folder with --to.")
    repo = repository(settings)
    with repo.locked(RUN_PATIENCE):
        revision = _find(repo, version)
        draft = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
        store = draft / "store"
        store.mkdir(parents=True)
        try:
            repo.bring(revision, "assets", store / "assets")
            repo.bring(revision, "drift", store / "drift")
            signed = repo.read(revision, TRAINING)
            (draft / "training.json").write_text(signed)
            key = keys.signing_key(settings)
            training = open_document(Training, signed.encode(), key, f"{TRAINING} of {revision[:12]}")
            files, size = _verify(Artifacts(DirectoryStore(store), key), training, version)
            if folder.exists():
                folder.rmdir()
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return Checkout(folder, revision, training, files, size)


def retrain(settings: Settings, brought: Checkout, progress: Callable[[str], None]) -> str:
    """Train on what was brought back, by the settings and the source of then; returns the version that this gives.

    The same locked libraries on the same machine give the same version.
    """
    given = brought.training.settings | {"home": brought.folder, "store": "", "dvc_remote": "off"}
    given["signing_key"] = SecretStr(keys.signing_key(settings).secret.hex())
    installation = Installation(settings.model_copy(update=given), Source.model_validate(brought.training.source))
    contents = {key: pointer.content for key, pointer in installation.transformed().items()}
    store, signing_key = installation.artifacts.store, installation.artifacts.signing_key
    allowed = without_held(store, signing_key, gate.training_set(store, signing_key, contents), None)  # by the rules of then
    if gate.fingerprint(allowed) != brought.training.manifest.lineage.training_set:
        raise IntegrityError(f"The verdicts in {brought.folder} accept other partitions than the model was trained on.")
    task = installation.training_task(allowed)
    return train(task, fit_preprocessor(task), progress).bundle.version


def _find(repo: Repository, version: str) -> str:
    revision = repo.tagged(tag_of(version))
    if revision is None:
        repo.fetch()
        revision = repo.tagged(tag_of(version))
    if revision is None:
        raise DataVersionError(
            f"There is no data version of {version}, neither here nor at {repo.remote}. `fraud models` lists the versions; "
            "name the remote that it was pushed to with FRAUD_DVC_REMOTE."
        )
    return revision


def _verify(artifacts: Artifacts, training: Training, version: str) -> tuple[int, int]:
    """Every file against its signed hash, and all of them against what the training says of itself; counts files and bytes."""
    lineage = training.manifest.lineage
    _drop_others(artifacts, lineage)
    model, preprocessor = artifacts.pointer("model"), artifacts.pointer("preprocessor")
    raws, transformed = artifacts.pointers("raw"), artifacts.pointers("transformed")
    if model is None or preprocessor is None or {model.facts["version"], training.manifest.version} != {version}:
        raise IntegrityError(f"The data version does not hold model {version} and its preprocessor.")
    source = Source.model_validate(training.source)
    for partition, content in _contents(lineage).items():
        pointer = transformed.get(partition)
        behind = [raws[key] for key in [*source.preceding(partition), partition] if key in raws]
        if pointer is None or pointer.content != content or pointer.inputs != transformed_inputs(source, behind):
            raise IntegrityError(f"The data version does not hold {partition} as model {version} was trained on it.")
    pointers = [*raws.values(), *transformed.values(), preprocessor, model]
    for pointer in pointers:
        artifacts.store.get_hashed(pointer.key, pointer.sha256)
    return len(pointers), sum(pointer.size for pointer in pointers)


def _contents(lineage: Lineage) -> dict[str, str]:
    """The partitions that were trained on, and those that the gate rejected, with their contents."""
    return {key: content for key, content, _ in lineage.partitions} | dict(lineage.rejected)


def _drop_others(artifacts: Artifacts, lineage: Lineage) -> None:
    """Take away partitions that the training did not know: they came while it went on."""
    known = _contents(lineage)
    for partition in artifacts.pointers("transformed"):
        if partition not in known:
            for asset in ("raw", "transformed"):
                shutil.rmtree(artifacts.store.local_path(f"assets/{asset}/{partition}/latest.json").parent)
